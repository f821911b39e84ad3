"""Several JSON-RPC endpoints that are used as one: the best one first, the others when it fails.

A call goes to the endpoint that has served best. When that one fails, or says nothing for
`Use.hedge_s`, the next one is asked as well, and the first good answer counts: an endpoint that
hangs costs a second, not a time-out. Which ones may be asked, and in what order, is `Pool`'s.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from decloud_trainer.chain.health import Health
from decloud_trainer.chain.jsonrpc import PASSING_CODES, Endpoint, Unanswered
from decloud_trainer.chain.pool import USUAL, Known, Pool, Read, Use
from decloud_trainer.errors import RpcError

log = logging.getLogger(__name__)

_Running = dict["asyncio.Task[Any]", Known]


@dataclass(slots=True)
class Asked:
    """What came of asking: values of good answers, errors of the others.

    Attributes:
        order: the endpoints in the order in which they were asked; winners: those that answered.
        may_pass: whether any of the errors may be gone in a moment.
    """

    values: list[Any] = field(default_factory=list)
    order: list[Known] = field(default_factory=list)
    winners: list[Known] = field(default_factory=list)
    errors: list[RpcError] = field(default_factory=list)
    may_pass: bool = False


class Endpoints:
    """One or several URLs of the same cluster.

    Args:
        urls: in the user's order of preference; see `Endpoint`.
        timeout_s: for one attempt at one endpoint.
        attempts: of a read, over all endpoints each, the first included.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        timeout_s: float = 20.0,
        attempts: int = 4,
        use: Use = USUAL,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._attempts = attempts
        self._use = use
        self._clock = clock
        self._sleep = sleep
        urls = (urls,) if isinstance(urls, str) else urls
        self._pool = Pool(urls, use, timeout_s=timeout_s, clock=clock, sleep=sleep)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(host for host, _ in self.health())})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; a later call opens new ones."""
        for known in self._pool.known:
            await known.endpoint.aclose()

    @property
    def host(self) -> str:
        """The host of the endpoint that would be asked now."""
        return self._pool.best().endpoint.host

    @property
    def newest_slot(self) -> int:
        """The newest slot that any endpoint has shown; 0 before the first."""
        return self._pool.newest_slot

    def each(self) -> Iterator[Self]:
        """Every endpoint in use by itself, with one attempt; resting ones only if all rest."""
        for one in self._pool.each():
            view = copy.copy(self)
            view._pool = one
            view._attempts = 1
            yield view

    def health(self) -> list[tuple[str, Health]]:
        """Host and record of every endpoint, in the user's order; their times are `clock`'s."""
        return [(known.endpoint.host, known.health) for known in self._pool.known]

    def nonsense(self, method: str) -> RpcError:
        """The error for an answer whose content no Solana node would give."""
        return self._pool.best().endpoint.nonsense(method)

    async def call(
        self, method: str, *params: Any, read: Callable[[Any], Any] = lambda result: result
    ) -> Any:
        """The result of a read, tried again while all endpoints are unreachable, busy or behind.

        Args:
            read: checks a result, and what it makes of it is returned; a TypeError, KeyError or
                ValueError of it says that the endpoint's answer is none.

        Raises:
            RpcError: no useful answer in all attempts, or a refusal that retrying can't change.
        """

        def value(endpoint: Endpoint, answer: Mapping[str, Any]) -> Any:
            result = endpoint.result(answer, method)
            try:
                return read(result)
            except (TypeError, KeyError, ValueError, AttributeError) as error:
                raise endpoint.nonsense(method) from error

        attempt = 1
        while True:
            asked = await self.ask(method, params, value)
            if asked.values:
                return asked.values[0]
            error = asked.errors[0]
            wait_s = max(0.25 * 2**attempt, self._pool.barred_s())
            if not asked.may_pass or attempt == self._attempts or wait_s > self._use.max_wait_s:
                raise error
            log.debug("%s; trying again", error)
            await self._sleep(wait_s)
            attempt += 1

    async def ask(
        self, method: str, params: Sequence[Any], read: Read, *, everywhere: bool = False
    ) -> Asked:
        """Ask one endpoint after the other until one has a good answer; each at most once.

        Args:
            read: the value of a good answer; raises RpcError for another one.
            everywhere: ask all of them at once, and wait `Use.hedge_s` for the slower ones.
        """
        waiting = self._pool.in_order(method)
        asked = Asked()
        if not waiting:
            asked.errors.append(self._pool.none_left(method))
            asked.may_pass = True
            return asked
        running: _Running = {}
        begin = len(waiting) if everywhere else 1
        try:
            while waiting or running:
                for known in waiting[:begin]:
                    asked.order.append(known)
                    attempt = self._pool.attempt(known, method, params, read)
                    running[asyncio.create_task(attempt)] = known
                del waiting[:begin]
                begin = 1  # one more after each silence and after each failure
                had_outcome = await self._next(running, asked, hedged=bool(waiting or asked.values))
                if (asked.values and not everywhere) or not (had_outcome or waiting):
                    break
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        for known in running.values():
            asked.errors.append(self._outrun(known, method, asked))
        return asked

    async def probe(self) -> list[Health]:
        """Ask every endpoint once where it stands; what is known of each then, in order."""
        return await self._pool.probe()

    async def keep_probing(self) -> None:
        """For ever: see how far each of several endpoints is, also those that are not in use."""
        await self._pool.keep_probing()

    async def _next(self, running: _Running, asked: Asked, *, hedged: bool) -> bool:
        """Wait for an outcome, or with `hedged` for `Use.hedge_s`; whether there was one."""
        done, _ = await asyncio.wait(
            running,
            timeout=self._use.hedge_s if hedged else None,
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in done:
            known = running.pop(task)
            try:
                asked.values.append(task.result())
                asked.winners.append(known)
            except Unanswered as trouble:
                asked.errors.append(trouble.error)
                asked.may_pass = True
            except RpcError as refusal:
                asked.errors.append(refusal)
                asked.may_pass |= refusal.code in PASSING_CODES
        return bool(done)

    def _outrun(self, known: Known, method: str, asked: Asked) -> RpcError:
        """The error of an endpoint that wasn't waited for any longer.

        It counts against its health if one that was asked later has answered before it."""
        host = known.endpoint.host
        error = RpcError(f"{host} failed at {method}: another endpoint was faster")
        place = asked.order.index(known)
        if any(winner in asked.order[place:] for winner in asked.winners):
            known.health.failed(error.message, self._clock())
        return error
