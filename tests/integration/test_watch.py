"""A change of a round is told whatever happens to the WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable

import pytest
from localchain import LocalChain, local_chain, until

from decloud_trainer.chain import v1
from decloud_trainer.chain.watch import RoundWatch, WatchPace
from decloud_trainer.rounds.model import Round, RoundStatus

# Polling and safety sweeps are out of the picture unless a test is about them.
NEVER = 3600.0
QUICK = WatchPace(
    poll_interval_s=NEVER, safety_interval_s=NEVER, answer_s=1, first_retry_s=0.02, max_retry_s=0.1
)


class Seen:
    """Runs a watch and collects what it tells."""

    def __init__(self, watch: RoundWatch) -> None:
        self.watch = watch
        self.rounds: list[Round] = []

    async def collect(self) -> None:
        async for round_ in self.watch.changes():
            self.rounds.append(round_)

    def times(self, number: int, status: RoundStatus) -> int:
        return sum(one.id == number and one.status is status for one in self.rounds)

    async def until_told(self, number: int, status: RoundStatus) -> None:
        await until(lambda: self.times(number, status) > 0)


@contextlib.asynccontextmanager
async def watching(
    net: LocalChain,
    pace: WatchPace = QUICK,
    *,
    follow: Callable[[], Iterable[int]] = tuple,
    url: str = "",
) -> AsyncIterator[Seen]:
    watch = RoundWatch(net.chain, url or net.endpoints.ws_url, pace=pace, follow=follow)
    seen = Seen(watch)
    task = asyncio.create_task(seen.collect())
    try:
        yield seen
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def move_on(net: LocalChain, number: int) -> None:
    net.run(v1.claim_round(number, net.validator.pubkey()), net.validator)


async def test_open_rounds_are_told_at_the_start_and_changes_as_they_come() -> None:
    """First what is there, then each change within a few slots, without polling."""
    async with local_chain() as net:
        first = net.post_round()
        net.settle_slots()
        async with watching(net) as seen:
            await seen.until_told(first, RoundStatus.WAITING_VALIDATOR)
            await until(lambda: seen.watch.is_connected)
            move_on(net, first)
            await seen.until_told(first, RoundStatus.WAITING_TRAINERS)
            second = net.post_round()
            await seen.until_told(second, RoundStatus.WAITING_VALIDATOR)


async def test_what_happened_while_the_socket_was_down_is_told_after_it() -> None:
    """After each reconnect all open rounds are told again."""
    async with local_chain() as net:
        number = net.post_round()
        net.settle_slots()
        async with watching(net) as seen:
            await until(lambda: seen.watch.is_connected)
            net.faults.switch("ws_drop")
            await until(lambda: not seen.watch.is_connected)
            move_on(net, number)
            net.settle_slots()
            net.faults.switch("ws_drop", on=False)
            await seen.until_told(number, RoundStatus.WAITING_TRAINERS)
            await until(lambda: seen.watch.is_connected)


async def test_a_lost_event_is_made_up_for_by_the_safety_sweep() -> None:
    """A notification that never comes costs at most the safety interval."""
    async with local_chain() as net:
        number = net.post_round()
        net.settle_slots()
        pace = dataclasses.replace(QUICK, safety_interval_s=0.3)
        async with watching(net, pace) as seen:
            await until(lambda: seen.watch.is_connected)
            net.faults.switch("ws_lose_event")
            move_on(net, number)
            await seen.until_told(number, RoundStatus.WAITING_TRAINERS)


async def test_without_a_socket_rounds_are_polled_and_only_changes_are_told() -> None:
    """Polling finds new and changed rounds, and doesn't repeat the others at each look."""
    async with local_chain() as net:
        first, second = net.post_round(), net.post_round()
        net.settle_slots()
        pace = dataclasses.replace(QUICK, poll_interval_s=0.05)
        async with watching(net, pace, url="ws://127.0.0.1:9") as seen:
            await seen.until_told(first, RoundStatus.WAITING_VALIDATOR)
            move_on(net, second)
            await seen.until_told(second, RoundStatus.WAITING_TRAINERS)
            await asyncio.sleep(0.3)
            assert seen.times(first, RoundStatus.WAITING_VALIDATOR) <= 2
            assert not seen.watch.is_connected


async def test_followed_rounds_are_told_whatever_their_status() -> None:
    """Own rounds in training are polled by id when there is no socket."""
    async with local_chain() as net:
        number = net.open_round()
        net.run(v1.join_round(number, net.trainer.pubkey()), net.trainer)
        net.settle_slots()
        pace = dataclasses.replace(QUICK, poll_interval_s=0.05)
        follow = [number, 999]
        async with watching(net, pace, url="ws://127.0.0.1:9", follow=lambda: follow) as seen:
            await seen.until_told(number, RoundStatus.WAITING_TRAINERS)
            net.start_training(number)
            await seen.until_told(number, RoundStatus.TRAINING)


async def test_trouble_with_the_endpoint_never_ends_the_watch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It waits, goes on when the endpoint is back, and logs an outage once."""
    async with local_chain() as net:
        number = net.post_round()
        net.settle_slots()
        net.rpc._attempts = 1
        net.faults.switch("rpc_429", count=5)
        pace = dataclasses.replace(QUICK, poll_interval_s=0.05)
        async with watching(net, pace) as seen:
            await seen.until_told(number, RoundStatus.WAITING_VALIDATOR)
            assert net.faults.active() == {}
        assert caplog.text.count("can't read rounds") == 1


async def test_foreign_accounts_in_notifications_are_passed_over() -> None:
    """An account of another layout is skipped; the next real change is told."""
    async with local_chain() as net:
        number = net.post_round()
        net.settle_slots()
        address, _ = v1.round_address(number)
        real = net.ledger.account(address)
        assert real is not None
        async with watching(net) as seen:
            await until(lambda: seen.watch.is_connected)
            broken = dataclasses.replace(real, data=real.data[:8] + bytes(155))
            net.ledger.set_account(v1.round_address(500)[0], broken)
            net.settle_slots(2)
            move_on(net, number)
            await seen.until_told(number, RoundStatus.WAITING_TRAINERS)
            assert {one.id for one in seen.rounds} == {number}


async def test_the_pause_before_reconnecting_grows_with_jitter() -> None:
    """A dead endpoint isn't hammered: the bounds of the random pause double up to a limit."""
    async with local_chain() as net:
        asked: list[tuple[float, float]] = []

        def uniform(low: float, high: float) -> float:
            asked.append((low, high))
            return 0.0

        pace = dataclasses.replace(QUICK, first_retry_s=1.0, max_retry_s=5.0)
        watch = RoundWatch(net.chain, "ws://127.0.0.1:9", pace=pace, uniform=uniform)
        task = asyncio.create_task(Seen(watch).collect())
        await until(lambda: len(asked) >= 5)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert asked[:5] == [(0.5, 1.5), (1.0, 3.0), (2.0, 6.0), (2.5, 7.5), (2.5, 7.5)]
