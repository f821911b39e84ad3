"""Advances journal rows: pick the step for the state, run it, record what it says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from decloud_trainer.errors import (
    ContentMismatch,
    CorruptionError,
    DecloudError,
    InsufficientFunds,
    JobFailed,
    LayoutError,
    PinRefused,
    TrainingError,
    UntrustedData,
)
from decloud_trainer.faultpoints import reach
from decloud_trainer.rounds.entry import Entry, RowKey, State
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import RoundStatus
from decloud_trainer.rounds.parts import Move, Parts, Wait
from decloud_trainer.rounds.path import Path
from decloud_trainer.rounds.tidy import tidy

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
# No pause after a failure is longer than this part of the time that is left to a deadline.
PAUSE_PART = 0.1
# A round that was skipped for a failure comes after all others for so long.
OTHERS_FIRST_S = 600.0


class Busy(DecloudError):
    """Somebody else has the row in hand just now: try again in a moment."""

    retryable = True


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
        self._held: set[RowKey] = set()

    def is_held(self, key: RowKey) -> bool:
        """Whether a step, a request or the sweep has the row in hand."""
        return key in self._held

    @contextlib.contextmanager
    def hold(self, key: RowKey) -> Iterator[None]:
        """Have the row for oneself: what a step found out and what others write in the
        meantime would overwrite each other.

        Raises:
            Busy: another one has it.
        """
        if key in self._held:
            raise Busy(f"round {key.round_id} is being worked on")
        self._held.add(key)
        try:
            yield
        finally:
            self._held.remove(key)

    async def advance(self, entry: Entry, *, watched: bool = False) -> Entry:
        """Run the row's next step and record its result; the row as it is then.

        An expected failure is recorded, and tried again later where that may help; cancelling
        is safe at any point.

        Args:
            watched: somebody waits for the result, and can mend what only people can.

        Raises:
            Busy: the row is in other hands.
            PinRefused, InsufficientFunds: recorded, too; only when watched.
            DecloudError: the journal itself failed.
        """
        with self.hold(entry.key):
            current = await self.parts.journal(Journal.entry, entry.key)
            assert current is not None, "rows never vanish"
            if current.state not in self.path.steps:
                return current
            if current.state in (State.SEEN, State.SKIPPED):
                async with self._deciding:
                    return await self._run(current, watched)
            return await self._run(current, watched)

    async def _run(self, entry: Entry, watched: bool) -> Entry:
        try:
            reach(f"step.{entry.state.value}.begin")
            result = await self.path.steps[entry.state](self.parts, entry)
            reach(f"step.{entry.state.value}.done")
        except CorruptionError:
            raise
        except DecloudError as error:
            after = await self._failed(entry, error)
            if watched and isinstance(error, PinRefused | InsufficientFunds):
                raise
            return after
        except Exception as error:
            # A defect in one round's step must not stop the others: it is logged in full and
            # the step is tried again.
            log.exception("round %s: step of state %s", entry.key.round_id, entry.state.value)
            return await self._retry_later(entry, f"unexpected {type(error).__name__}: {error}")
        if isinstance(result, Move):
            return await self._move(entry, result, problem=result.state is State.FAILED)
        return await self._wait(entry, result)

    async def _move(self, entry: Entry, move: Move, *, problem: bool) -> Entry:
        until = self.parts.clock() + move.pause_s if move.pause_s else 0.0
        after = await self.parts.journal(
            Journal.move, entry, move.state, move.reason, move.facts, until=until
        )
        self.parts.gate.moved(after.key.round_id, after.state)
        if after.state.is_final:
            await tidy(self.parts, after)
        self._tell(after, moved=True, problem=problem)
        return after

    async def _wait(self, entry: Entry, wait: Wait) -> Entry:
        until = self.parts.clock() + wait.seconds
        after = await self.parts.journal(Journal.wait, entry, wait.reason, until, facts=wait.facts)
        if wait.reason != entry.reason:
            self._tell(after, moved=False)
        return after

    async def _failed(self, entry: Entry, error: DecloudError) -> Entry:
        text = f"{error.message} ({error.hint})" if error.hint else error.message
        state = _given_up(entry.state, error)
        if state is None:
            return await self._retry_later(entry, text)
        if state is not State.SKIPPED:
            return await self._move(entry, Move(state, text, entry.facts), problem=True)
        if entry.state is State.SKIPPED:
            return await self._wait(entry, Wait(text, OTHERS_FIRST_S, entry.facts))
        return await self._move(entry, Move(state, text, entry.facts, OTHERS_FIRST_S), problem=True)

    async def _retry_later(self, entry: Entry, text: str) -> Entry:
        now = self.parts.clock()
        pause = min(FIRST_PAUSE_S * 2 ** min(entry.failures, 10), LONGEST_PAUSE_S)
        deadline = _deadline(entry)
        if deadline is not None:
            pause = min(pause, max(FIRST_PAUSE_S, (deadline - now) * PAUSE_PART))
        after = await self.parts.journal(
            Journal.wait, entry, text, now + pause, facts=entry.facts, failed=True
        )
        if text != entry.reason:
            self._tell(after, moved=False, problem=True)
        return after

    def _tell(self, entry: Entry, *, moved: bool, problem: bool = False) -> None:
        try:
            self._on_event(Told(self.parts.clock(), entry, moved, problem))
        except Exception:  # whoever shows it, say on a closed terminal, is no reason to stop
            log.exception("round %s: an event can't be shown", entry.key.round_id)


def _deadline(entry: Entry) -> int | None:
    """Until when the row's step must have succeeded, if the chain has said so yet."""
    seen = entry.round
    if seen is None:
        return None
    if entry.state in (State.SEEN, State.WATCHING, State.FETCHED):
        return seen.join_deadline if seen.status is RoundStatus.WAITING_TRAINERS else None
    if entry.state in (State.JOINED, State.TRAINED, State.PINNED):
        return seen.submit_deadline if seen.status is RoundStatus.TRAINING else None
    return None


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
    # A gateway may have the right bytes later; the account may be readable again.
    passing = isinstance(error, LayoutError | ContentMismatch)
    if state is State.JOINED and hopeless and not passing:
        return State.FAILED
    return None
