"""Advances journal rows: pick the step for the state, run it, record what it says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from decloud_trainer.errors import (
    DecloudError,
    JobFailed,
    LayoutError,
    TrainingError,
    UntrustedData,
)
from decloud_trainer.rounds.entry import Entry, State
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.parts import Move, Parts, Wait
from decloud_trainer.rounds.path import Path

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Told:
    """Something a user would like to see, as it happens.

    Attributes:
        problem: a step failed and will be tried again, or the row failed for good.
        moved: the row changed its state.
    """

    at: float
    entry: Entry
    moved: bool
    problem: bool = False


class Engine:
    def __init__(self, parts: Parts, path: Path, on_event: Callable[[Told], None]) -> None:
        self.parts = parts
        self.path = path
        self._on_event = on_event
        # Decisions count the slots in use, so two at once could both take the last one.
        self._deciding = asyncio.Lock()

    async def advance(self, entry: Entry) -> Entry:
        """Run the row's next step and record its result; the row as it is then.

        Never raises an expected failure: it is recorded, and tried again later where that may
        help. Cancelling it is safe at any point.
        """
        step = self.path.steps.get(entry.state)
        if step is None:
            return entry
        if entry.state in (State.SEEN, State.SKIPPED):
            async with self._deciding:
                return await self._run(entry)
        return await self._run(entry)

    async def _run(self, entry: Entry) -> Entry:
        parts = self.parts
        try:
            result = await self.path.steps[entry.state](parts, entry)
        except DecloudError as error:
            return await self._failed(entry, error)
        except Exception as error:
            # A defect in one round's step must not stop the others: it is logged in full and
            # the step is tried again.
            log.exception("round %s: step of state %s", entry.key.round_id, entry.state.value)
            return await self._retry_later(entry, f"unexpected {type(error).__name__}: {error}")
        if isinstance(result, Move):
            after = await parts.journal(
                Journal.move, entry, result.state, result.reason, result.facts
            )
            self._tell(after, moved=True, problem=result.state is State.FAILED)
            return after
        return await self._wait(entry, result)

    async def _wait(self, entry: Entry, result: Wait) -> Entry:
        until = self.parts.clock() + result.seconds
        after = await self.parts.journal(
            Journal.wait, entry, result.reason, until, facts=result.facts
        )
        if result.reason != entry.reason:
            self._tell(after, moved=False)
        return after

    async def _failed(self, entry: Entry, error: DecloudError) -> Entry:
        text = f"{error.message} ({error.hint})" if error.hint else error.message
        state = _given_up(entry.state, error)
        if state is None:
            return await self._retry_later(entry, text)
        after = await self.parts.journal(Journal.move, entry, state, text, entry.facts)
        self._tell(after, moved=True, problem=True)
        return after

    async def _retry_later(self, entry: Entry, text: str) -> Entry:
        pause = min(FIRST_PAUSE_S * 2 ** min(entry.failures, 10), LONGEST_PAUSE_S)
        until = self.parts.clock() + pause
        after = await self.parts.journal(
            Journal.wait, entry, text, until, facts=entry.facts, failed=True
        )
        if text != entry.reason:
            self._tell(after, moved=False, problem=True)
        return after

    def _tell(self, entry: Entry, *, moved: bool, problem: bool = False) -> None:
        self._on_event(Told(self.parts.clock(), entry, moved, problem))


def _given_up(state: State, error: DecloudError) -> State | None:
    """Where a failed step ends, or None to try it again later.

    Before the join a failure costs nothing: the round is skipped. A training that can't be done
    frees its slot. From the artefact on something may be owed to us: never given up here, the
    deadlines in the steps decide.
    """
    if error.retryable:
        return None
    if state in (State.WATCHING, State.FETCHED):
        return State.SKIPPED
    if state in (State.SEEN, State.SKIPPED) and isinstance(error, UntrustedData):
        return State.SKIPPED
    hopeless = isinstance(error, TrainingError | JobFailed | UntrustedData)
    if state is State.JOINED and hopeless and not isinstance(error, LayoutError):
        return State.FAILED
    return None
