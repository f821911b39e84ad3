"""Keeps the requests to one endpoint under the limit that its operator has published."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

# What lands and settles transactions goes before what only looks: money waits for nobody's list.
URGENT: Final = frozenset({"sendTransaction", "getLatestBlockhash", "getSignatureStatuses"})
WINDOW_S: Final = 10.0
ROUNDING: Final = 1e-6  # so small a part of a token isn't missing


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in any ten seconds, and so many of them of one method."""

    requests: int
    of_one_method: int


PUBLIC: Final = Limit(100, 40)
"""Of the public endpoints at api.*.solana.com, from docs.solana.com/clusters."""


def limit_of(requests: int) -> Limit:
    """A limit with the public endpoints' proportion: two fifths may be of one method."""
    return Limit(requests, max(1, requests * 2 // 5))


class Budget:
    """Token buckets, one for all requests and one for each method.

    A bucket holds half of the limit and is filled with the other half in ten seconds: so no ten
    seconds see more than the limit, wherever they begin.

    Args:
        limit: None lets everything through at once.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        limit: Limit | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._sleep = sleep
        self._all = None if limit is None else _Bucket(limit.requests, clock())
        self._methods: dict[str, _Bucket] = {}
        self._waiting: list[tuple[int, int, str]] = []
        self._count = 0

    def wait_s(self, method: str) -> float:
        """How long a request would wait if it came now."""
        return self._wait((_rank(method), self._count + 1, method))

    async def take(self, method: str) -> None:
        """Wait for a request's turn: urgent methods first, then in the order of coming."""
        if self._all is None:
            return
        self._count += 1
        turn = (_rank(method), self._count, method)
        self._waiting.append(turn)
        try:
            while (pause := self._wait(turn)) > 0:
                # Those before it may give up: looked at again each second.
                await self._sleep(min(pause, 1.0))
        finally:
            self._waiting.remove(turn)
        self._all.take()
        self._of(method).take()

    def _wait(self, turn: tuple[int, int, str]) -> float:
        """Seconds until there are tokens for this one and for all that go before it."""
        if self._all is None:
            return 0.0
        before = [one for one in self._waiting if one < turn]
        same = sum(one[2] == turn[2] for one in before)
        now = self._clock()
        return max(self._all.wait_s(1 + len(before), now), self._of(turn[2]).wait_s(1 + same, now))

    def _of(self, method: str) -> _Bucket:
        assert self._limit is not None
        if method not in self._methods:
            self._methods[method] = _Bucket(self._limit.of_one_method, self._clock())
        return self._methods[method]


class _Bucket:
    def __init__(self, limit: int, now: float) -> None:
        self._size = max(limit / 2, 1.0)
        self._rate = limit / 2 / WINDOW_S
        self._tokens = self._size
        self._at = now

    def wait_s(self, tokens: int, now: float) -> float:
        """Seconds until it holds that many; it may run into debt for more than it can hold."""
        elapsed, self._at = max(now - self._at, 0.0), now
        self._tokens = min(self._tokens + elapsed * self._rate, self._size)
        missing = tokens - self._tokens
        return missing / self._rate if missing > ROUNDING else 0.0

    def take(self) -> None:
        self._tokens -= 1


def _rank(method: str) -> int:
    return 0 if method in URGENT else 1
