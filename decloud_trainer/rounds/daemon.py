"""The daemon: a watcher that writes the journal, workers that advance what stands in it.

Nothing between the two lives in memory, so a restart needs no code of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from decloud_trainer.errors import CorruptionError, DecloudError, NetworkError
from decloud_trainer.faultpoints import reach
from decloud_trainer.rounds.asking import answer, new_requests
from decloud_trainer.rounds.coldstore import store_excess
from decloud_trainer.rounds.engine import Busy, Engine
from decloud_trainer.rounds.entry import Entry, Request, State
from decloud_trainer.rounds.gate import Gate, Wish
from decloud_trainer.rounds.intake import Scope, sweep, take_request
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.marks import WISH, mark, paused_until, set_mark
from decloud_trainer.rounds.ports import Watch

log = logging.getLogger(__name__)

# How soon a command's request is noticed.
REQUESTS_S = 0.3
# Rewards that we don't know of are looked for at start and then this often.
SWEEP_S = 24 * 3600.0
# The longest sleep of the scheduler, so that a row written by someone else isn't overslept.
LONGEST_SLEEP_S = 1.0
# Steps at once beside those that train: months of rounds may be due together at the start, and
# endpoints limit their callers.
MOST_STEPS = 16
# Looks at the balance for the cold address, besides those after each claim; and at the clock for
# the sweep.
STORE_S, SWEEP_LOOK_S = 300.0, 60.0
# After trouble with the network, doubled each time, at most the second; and after a failure that
# no step could record.
NETWORK_PAUSE_S, LONGEST_NETWORK_PAUSE_S = 5.0, 600.0
FAILURE_PAUSE_S = 5.0


class Daemon:
    """Watches, schedules, answers requests and sweeps until it is told to stop.

    Args:
        finish_at: unix seconds by this machine's clock from which nothing new is taken.
        followed: kept up to date with the ids of the rounds that we are in, for the watch.
    """

    def __init__(
        self,
        engine: Engine,
        watch: Watch,
        scope: Scope,
        followed: set[int],
        *,
        finish_at: float | None = None,
    ) -> None:
        self._engine = engine
        self._journal = engine.parts.journal
        self._clock = engine.parts.clock
        self._watch = watch
        self._scope = scope
        self._followed = followed
        self._finish_at = finish_at
        self._any = scope.key(0)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._most_steps = MOST_STEPS + engine.parts.terms.max_concurrent_rounds
        self._wake = asyncio.Event()
        self._paid = asyncio.Event()
        self._broken: asyncio.Future[None] | None = None

    async def run(self, until: asyncio.Event) -> None:
        """Work until the event is set; then let no step go on, and return.

        A step that is cut off is safe: what it had recorded is where the next start goes on.

        Raises:
            CorruptionError: the journal is damaged. Other failures are logged and outlived.
        """
        await self._journal(Journal.reconsider, self._any)
        await self._journal(Journal.catch_up, self._any)
        self._followed.update(await self._journal(Journal.active_ids, self._any))
        self._broken = asyncio.get_running_loop().create_future()
        loops = (
            self._watching,
            self._scheduling,
            self._requests,
            self._sweeping,
            self._storing,
        )
        await self._journal(set_mark, WISH, None)  # it was for an earlier daemon
        tasks = [asyncio.create_task(_outlive(loop)) for loop in loops]
        stopping = asyncio.create_task(self._stopping(until))
        watched: set[asyncio.Future[Any]] = {*tasks, stopping, self._broken}
        try:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises what ended it, except for the one that may end
        finally:
            self._broken.cancel()
            await _end([stopping, *tasks])
            await _end(list(self._running.values()))

    async def _stopping(self, until: asyncio.Event) -> None:
        """Ends when the event is set, another terminal says stop, or all is finished."""
        gate = self._engine.parts.gate
        while not until.is_set():
            try:
                if await self._is_to_end(gate):
                    return
            except CorruptionError:
                raise
            except DecloudError as error:  # the journal can't be used just now
                log.warning("can't see what other terminals ask for: %s", error)
            await _wait(until, REQUESTS_S)

    async def _is_to_end(self, gate: Gate) -> bool:
        await self._pause_or_resume()
        wish = await self._journal(mark, WISH)
        if wish == Wish.STOP.value:
            return True
        if wish == Wish.FINISH.value and not gate.finishing:
            gate.finishing = "finishing: nothing new is taken"
        if self._finish_at is not None and self._local_now() >= self._finish_at:
            gate.finishing = gate.finishing or "the session's time is over"
        return bool(gate.finishing or gate.is_full) and await self._is_idle()

    async def _pause_or_resume(self) -> None:
        parts = self._engine.parts
        paused = await self._journal(paused_until) > self._local_now()
        if parts.gate.paused and not paused:
            await self._journal(Journal.reconsider, self._any)
            self._wake.set()
        parts.gate.paused = paused

    def _local_now(self) -> float:
        return self._engine.parts.to_local(self._clock())

    async def _is_idle(self) -> bool:
        return not self._running and not await self._journal(Journal.active_ids, self._any)

    async def _watching(self) -> None:
        async with contextlib.aclosing(self._watch.changes()) as changes:
            async for round in changes:
                if await self._journal(Journal.saw, self._scope.key(round.id), round):
                    self._wake.set()

    async def _scheduling(self) -> None:
        while True:
            self._wake.clear()
            for entry in await self._journal(Journal.due, self._any, self._clock()):
                if len(self._running) >= self._most_steps:
                    break
                if entry.row not in self._running and not self._engine.is_held(entry.key):
                    self._start(entry)
            active = await self._journal(Journal.active_ids, self._any)
            self._followed.clear()
            self._followed.update(active)
            next_time = await self._journal(Journal.next_time, self._any, tuple(self._running))
            pause = LONGEST_SLEEP_S
            if next_time is not None and len(self._running) < self._most_steps:
                pause = min(max(next_time - self._clock(), 0.02), LONGEST_SLEEP_S)
            await _wait(self._wake, pause)

    def _start(self, entry: Entry) -> None:
        async def advance() -> None:
            try:
                after = await self._engine.advance(entry)
                if after.state is State.CLAIMED:
                    self._paid.set()
            except Busy:
                pass
            except CorruptionError as error:
                if self._broken is not None and not self._broken.done():
                    self._broken.set_exception(error)
            except Exception:
                # The engine records what a step raises; here not even that went well, say on a
                # full disk. The other rounds must go on, and this one must not run hot.
                log.exception("round %s can't go on for now", entry.key.round_id)
                await asyncio.sleep(FAILURE_PAUSE_S)
            finally:
                del self._running[entry.row]
                self._wake.set()

        self._running[entry.row] = asyncio.create_task(advance())

    async def _requests(self) -> None:
        while True:
            pause = REQUESTS_S
            for request in await self._journal(new_requests):
                try:
                    reach("request.taking")
                    refusal = await self._take(request)
                    reach("request.taken")
                except Busy:
                    continue  # the running step would overwrite it; taken after that
                except NetworkError as error:
                    log.warning("request %s waits for the network: %s", request.kind, error)
                    pause = NETWORK_PAUSE_S
                    continue
                await self._journal(answer, request.id, refusal)
                self._wake.set()
            await asyncio.sleep(pause)

    async def _take(self, request: Request) -> str:
        """Why the request is refused; empty if it was taken."""
        asked, ours = request.key, self._scope
        if asked != ours.key(request.round_id):
            return (
                f"the running daemon works for wallet {ours.wallet} and program {ours.program} on "
                f"the network with the genesis hash {ours.genesis}; this command is for wallet "
                f"{asked.wallet} and program {asked.program} on {asked.genesis}: stop the daemon "
                "first, or give both the same settings"
            )
        try:
            await take_request(self._engine, self._scope, request)
        except (NetworkError, Busy):
            raise
        except DecloudError as error:
            return f"{error.message} ({error.hint})" if error.hint else error.message
        return ""

    async def _sweeping(self) -> None:
        while True:
            await _when_reachable(
                lambda: sweep(self._engine, self._scope),
                lambda error: log.warning("looking for unclaimed rewards: %s", error),
            )
            self._wake.set()
            due = self._clock() + SWEEP_S  # by the clock: a machine that slept is late, not behind
            while (left := due - self._clock()) > 0:  # noqa: ASYNC110  the clock tells nobody
                await asyncio.sleep(min(left, SWEEP_LOOK_S))

    async def _storing(self) -> None:
        while True:
            await _when_reachable(
                self._store,
                lambda error: log.warning("looking for what exceeds the float: %s", error),
            )
            await _wait(self._paid, STORE_S)

    async def _store(self) -> None:
        self._paid.clear()
        await store_excess(self._engine.parts, self._any)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, at most so long.

    Not by `wait_for`: before Python 3.12 it loses a cancellation that comes together with the
    event, and then the daemon never ends."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _when_reachable(
    work: Callable[[], Awaitable[object]], tell: Callable[[NetworkError], None]
) -> None:
    """Do it; after trouble with the network again, ever later."""
    pause = NETWORK_PAUSE_S
    while True:
        try:
            await work()
            return
        except NetworkError as error:
            tell(error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_NETWORK_PAUSE_S)


async def _outlive(loop: Callable[[], Awaitable[None]]) -> None:
    """Run one of the daemon's loops for ever: a failure is logged, and it goes on."""
    while True:
        try:
            await loop()
        except CorruptionError:
            raise
        except Exception:
            # Also a defect of this program: months of claims hang on loops that go on.
            log.exception("unexpected; going on in %g s", FAILURE_PAUSE_S)
        await asyncio.sleep(FAILURE_PAUSE_S)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def run_once(engine: Engine, scope: Scope) -> None:
    """Look at the network once and advance every row as far as it goes now, without waiting."""
    journal, parts = engine.parts.journal, engine.parts
    await journal(Journal.reconsider, scope.key(0))
    await sweep(engine, scope)
    for round in await parts.chain.open_rounds():
        await journal(Journal.saw, scope.key(round.id), round)
    for round_id in await journal(Journal.active_ids, scope.key(0)):
        fresh = await parts.chain.round(round_id)
        if fresh is not None:
            await journal(Journal.saw, scope.key(round_id), fresh)
    while due := await journal(Journal.due, scope.key(0), parts.clock()):
        await asyncio.gather(*(engine.advance(entry) for entry in due))
    await store_excess(parts, scope.key(0))


async def run_until(engine: Engine, entry: Entry, arrived: Callable[[Entry], bool]) -> Entry:
    """Advance one row, without a daemon, until it has arrived or is final.

    Raises:
        PinRefused, InsufficientFunds: it is stuck until the user does something.
    """
    journal = engine.parts.journal
    while not arrived(entry) and not entry.state.is_final:
        pause = entry.not_before - engine.parts.clock()
        if pause > 0:
            await asyncio.sleep(min(pause, LONGEST_SLEEP_S))
            try:
                fresh = await engine.parts.chain.round(entry.key.round_id)
            except NetworkError as error:
                log.warning("round %s can't be read: %s", entry.key.round_id, error)
                continue
            if fresh is not None:
                await journal(Journal.saw, entry.key, fresh)
            reread = await journal(Journal.entry, entry.key)
            assert reread is not None, "rows never vanish"
            entry = reread
            continue
        entry = await engine.advance(entry, watched=True)
    return entry
