"""The daemon: a watcher that writes the journal, workers that advance what stands in it.

Nothing between the two lives in memory, so a restart needs no code of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass

from decloud_trainer.errors import DecloudError, NetworkError
from decloud_trainer.rounds.engine import Engine
from decloud_trainer.rounds.entry import Entry, Facts, Request, RowKey, State
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import Round, RoundStatus, Submission
from decloud_trainer.rounds.ports import Watch

log = logging.getLogger(__name__)

# How soon a command's request is noticed.
REQUESTS_S = 0.3
# Rewards that we don't know of are looked for at start and then this often.
SWEEP_S = 24 * 3600.0
# The longest sleep of the scheduler, so that a row written by someone else isn't overslept.
LONGEST_SLEEP_S = 1.0


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose rounds these are: a network, its program, our wallet."""

    genesis: str
    program: str
    wallet: str

    def key(self, round_id: int) -> RowKey:
        return RowKey(self.genesis, self.program, self.wallet, round_id)


class Daemon:
    """Watches, schedules, answers requests and sweeps until it is told to stop.

    Args:
        followed: kept up to date with the ids of the rounds that we are in, for the watch.
    """

    def __init__(self, engine: Engine, watch: Watch, scope: Scope, followed: set[int]) -> None:
        self._engine = engine
        self._journal = engine.parts.journal
        self._chain = engine.parts.chain
        self._clock = engine.parts.clock
        self._watch = watch
        self._scope = scope
        self._followed = followed
        self._any = scope.key(0)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    async def run(self, until: asyncio.Event) -> None:
        """Work until the event is set; then let no step go on, and return.

        A step that is cut off is safe: what it had recorded is where the next start goes on.
        """
        loops = [self._watching(), self._scheduling(), self._requests(), self._sweeping()]
        tasks = [asyncio.create_task(loop) for loop in loops]
        stopping = asyncio.create_task(until.wait())
        try:
            done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # a loop that ends has failed
        finally:
            await _end([stopping, *tasks])
            await _end(list(self._running.values()))

    async def _watching(self) -> None:
        async for round in self._watch.changes():
            if await self._journal(Journal.saw, self._scope.key(round.id), round):
                self._wake.set()

    async def _scheduling(self) -> None:
        while True:
            self._wake.clear()
            for entry in await self._journal(Journal.due, self._any, self._clock()):
                if entry.row not in self._running:
                    self._start(entry)
            active = await self._journal(Journal.active_ids, self._any)
            self._followed.clear()
            self._followed.update(active)
            next_time = await self._journal(Journal.next_time, self._any)
            pause = LONGEST_SLEEP_S
            if next_time is not None:
                pause = min(max(next_time - self._clock(), 0.02), LONGEST_SLEEP_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)

    def _start(self, entry: Entry) -> None:
        async def advance() -> None:
            try:
                await self._engine.advance(entry)
            finally:
                del self._running[entry.row]
                self._wake.set()

        self._running[entry.row] = asyncio.create_task(advance())

    async def _requests(self) -> None:
        while True:
            for request in await self._journal(Journal.new_requests):
                entry = await self._journal(Journal.entry, self._scope.key(request.round_id))
                if entry is not None and entry.row in self._running:
                    continue  # its facts belong to the running step; taken right after it
                try:
                    await take_request(self._engine, self._scope, request)
                except NetworkError as error:
                    log.warning("request %s waits for the network: %s", request.kind, error)
                except DecloudError as error:
                    await self._journal(Journal.answer, request.id, error.message)
                else:
                    await self._journal(Journal.answer, request.id, "")
                    self._wake.set()
            await asyncio.sleep(REQUESTS_S)

    async def _sweeping(self) -> None:
        pause = 5.0
        while True:
            try:
                await sweep(self._engine, self._scope)
            except NetworkError as error:
                log.warning("looking for unclaimed rewards: %s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 600.0)
                continue
            self._wake.set()
            await asyncio.sleep(SWEEP_S)


async def _end(tasks: list[asyncio.Task[None] | asyncio.Task[bool]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def sweep(engine: Engine, scope: Scope) -> int:
    """Take up every submission of the wallet that the journal doesn't know; their number.

    Claimable rewards are claimed whatever their age. Rounds under way are adopted: another
    machine may be at work on them, so they are trained only on request or near the deadline.
    """
    parts = engine.parts
    found = 0
    for submission in await parts.chain.submissions():
        key = scope.key(submission.round_id)
        known = await parts.journal(Journal.entry, key)
        if submission.reward_claimed or (known is not None and known.state is not State.SKIPPED):
            continue
        try:
            round = await parts.chain.round(submission.round_id)
        except NetworkError:
            raise
        except DecloudError as error:
            log.warning("submission of round %s: %s", submission.round_id, error)
            continue
        if round is None or round.status in (RoundStatus.EXPIRED, RoundStatus.CANCELLED):
            continue
        entry = await _put(engine, scope, round, standing(submission), "found on chain")
        await parts.journal(Journal.revise, entry, dataclasses.replace(entry.facts, adopted=True))
        found += 1
    return found


def standing(submission: Submission | None) -> State:
    """The state that the chain alone gives a round."""
    if submission is None:
        return State.SEEN
    return State.SUBMITTED if submission.submitted else State.JOINED


async def take_request(engine: Engine, scope: Scope, request: Request) -> Entry:
    """Do as a command asked: put the round's row where its step can run, with the user's wishes.

    A round that was skipped, lost or failed is looked at anew.

    Raises:
        DecloudError: it can't be done; the message says why.
    """
    parts = engine.parts
    round = await parts.chain.round(request.round_id)
    if round is None:
        raise DecloudError(
            f"round {request.round_id} is not on chain",
            hint="`decloud-trainer list` shows the rounds there are",
        )
    submission = await parts.chain.submission(request.round_id)
    _check_request(request, round, submission)
    entry = await parts.journal(Journal.entry, scope.key(round.id))
    state = standing(submission)
    anew = entry is None or entry.state in (State.SKIPPED, State.LOST, State.FAILED)
    if entry is None or anew:
        entry = await _put(engine, scope, round, state, f"asked to {request.kind}")
    facts = _wishes(entry.facts, request)
    return await parts.journal(Journal.revise, entry, facts)


def _check_request(request: Request, round: Round, submission: Submission | None) -> None:
    number = f"round {round.id}"
    if request.kind == "join":
        if submission is not None:
            raise DecloudError(
                f"{number} is already joined", hint=f"next: `decloud-trainer train {round.id}`"
            )
        return
    if submission is None:
        raise DecloudError(
            f"{number} is not joined", hint=f"first: `decloud-trainer join {round.id}`"
        )
    if request.kind == "train" and submission.submitted:
        raise DecloudError(
            f"{number} has our submission already, and the network takes only one",
            hint=f"next: `decloud-trainer claim {round.id}`",
        )
    if request.kind == "claim":
        if submission.reward_claimed:
            raise DecloudError(f"the reward of {number} is already claimed")
        if not submission.submitted:
            raise DecloudError(
                f"nothing was submitted in {number}, so there is nothing to claim",
                hint=f"first: `decloud-trainer train {round.id}`",
            )
        if round.status is not RoundStatus.COMPLETED:
            raise DecloudError(
                f"{number} is {round.status.value}: rewards are paid once it is Completed",
                hint="a running daemon claims by itself then",
            )
        if submission.contribution_bps == 0:
            raise DecloudError(f"the validator gave our submission in {number} no share")


def _wishes(facts: Facts, request: Request) -> Facts:
    if request.kind == "join":
        return dataclasses.replace(facts, asked_join=True, refused="")
    if request.kind == "claim":
        return dataclasses.replace(facts, asked_claim=True)
    return dataclasses.replace(
        facts,
        asked_train=True,
        epochs=request.args.get("epochs"),
        max_batches=request.args.get("max_batches"),
    )


async def _put(engine: Engine, scope: Scope, round: Round, state: State, reason: str) -> Entry:
    """The round's row, in the given state whether it is new or not."""
    journal = engine.parts.journal
    key = scope.key(round.id)
    await journal(Journal.saw, key, round, state=state, reason=reason)
    entry = await journal(Journal.entry, key)
    assert entry is not None
    if entry.state is not state:
        entry = await journal(Journal.move, entry, state, reason, entry.facts)
    return entry


async def run_until(engine: Engine, entry: Entry, arrived: Callable[[Entry], bool]) -> Entry:
    """Advance one row, without a daemon, until it has arrived or is final."""
    journal = engine.parts.journal
    while not arrived(entry) and not entry.state.is_final:
        pause = entry.not_before - engine.parts.clock()
        if pause > 0:
            await asyncio.sleep(min(pause, LONGEST_SLEEP_S))
            fresh = await engine.parts.chain.round(entry.key.round_id)
            if fresh is not None:
                await journal(Journal.saw, entry.key, fresh)
            reread = await journal(Journal.entry, entry.key)
            assert reread is not None, "rows never vanish"
            entry = reread
            continue
        entry = await engine.advance(entry)
    return entry
