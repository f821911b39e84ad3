"""The budget of an endpoint: never more than its limit, and money before looking."""

from __future__ import annotations

import asyncio
import random

import pytest

from decloud_trainer.chain.budget import PUBLIC, Budget, Limit, limit_of


class Clock:
    """A driven clock: sleepers wake in the order of their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    async def sleep(self, seconds: float) -> None:
        self._count += 1
        future = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, self._count, future))
        await future

    async def run_until(self, end: float) -> None:
        """Let the time pass, and everybody act in it."""
        await _settle()
        while self._sleepers and min(self._sleepers)[0] <= end:
            first = min(self._sleepers)
            self._sleepers.remove(first)
            self.now = max(self.now, first[0])
            if not first[2].cancelled():
                first[2].set_result(None)
            await _settle()
        self.now = end


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def most_in_ten_seconds(times: list[float]) -> int:
    return max(sum(start <= t < start + 10 for t in times) for start in times)


@pytest.mark.parametrize("seed", range(2))
async def test_no_ten_seconds_see_more_than_the_limit(seed: int) -> None:
    """Wherever they begin, in all and of one method, however the callers come."""
    rng, clock = random.Random(seed), Clock()
    budget = Budget(PUBLIC, clock=lambda: clock.now, sleep=clock.sleep)
    sent: list[tuple[float, str]] = []

    async def ask(method: str) -> None:
        await budget.take(method)
        sent.append((clock.now, method))

    tasks = []
    for _ in range(15):
        for _ in range(rng.choice((0, 1, 40))):
            tasks.append(asyncio.create_task(ask(rng.choice(("a", "b", "sendTransaction")))))
        await clock.run_until(clock.now + rng.random() * 3)
    await clock.run_until(clock.now + 1000)
    await asyncio.gather(*tasks)
    assert len(sent) == len(tasks)
    assert most_in_ten_seconds([t for t, _ in sent]) <= 100
    for method in ("a", "b", "sendTransaction"):
        assert most_in_ten_seconds([t for t, m in sent if m == method]) <= 40


async def test_sending_goes_before_looking() -> None:
    """A claim that comes last, behind a queue of reads, is the next to go out."""
    clock = Clock()
    budget = Budget(Limit(4, 4), clock=lambda: clock.now, sleep=clock.sleep)
    order: list[str] = []

    async def ask(method: str, name: str) -> None:
        await budget.take(method)
        order.append(name)

    tasks = [asyncio.create_task(ask("getAccountInfo", f"read {n}")) for n in range(5)]
    await _settle()
    assert order == ["read 0", "read 1"]  # half of the limit at once
    tasks.append(asyncio.create_task(ask("sendTransaction", "claim")))
    await clock.run_until(100)
    await asyncio.gather(*tasks)
    assert order == ["read 0", "read 1", "claim", "read 2", "read 3", "read 4"]


async def test_a_cancelled_request_takes_nothing() -> None:
    """Who gives up in the queue holds up nobody behind."""
    clock = Clock()
    budget = Budget(Limit(2, 2), clock=lambda: clock.now, sleep=clock.sleep)
    await budget.take("a")
    first = asyncio.create_task(budget.take("a"))
    second = asyncio.create_task(budget.take("a"))
    await _settle()
    first.cancel()
    await clock.run_until(10.0)
    assert second.done()
    assert not second.cancelled()


async def test_without_a_limit_nothing_waits() -> None:
    """An endpoint of one's own is asked as often as there is something to ask."""
    clock = Clock()
    budget = Budget(None, clock=lambda: clock.now, sleep=clock.sleep)
    for _ in range(1000):
        await budget.take("a")
    assert budget.wait_s("a") == 0


def test_a_limit_of_ones_own_has_the_public_ones_proportion() -> None:
    """Two fifths of it may be of one method, and at least one."""
    assert limit_of(100) == PUBLIC
    assert limit_of(1) == Limit(1, 1)
