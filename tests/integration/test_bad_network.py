"""What the local network's fault switchboard does wrong, the client comes through."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from localchain import FAST, FEE, RENT, SOL, LocalChain, local_chain, until
from solders.signature import Signature
from websockets.asyncio.server import serve

from decloud_trainer.chain import watch as watch_module
from decloud_trainer.chain.client import SolanaChain
from decloud_trainer.chain.generation import Generation
from decloud_trainer.chain.pool import Use
from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.chain.sending import SolanaSender
from decloud_trainer.chain.watch import RoundWatch, WatchPace
from decloud_trainer.localnet.faults import Faults
from decloud_trainer.localnet.rpc_server import LedgerEndpoints, serve_ledger
from decloud_trainer.rounds.model import Action, ActionKind, OutcomeState, Round, RoundStatus

NEVER = 3600.0
ONLY_EVENTS = WatchPace(
    poll_interval_s=NEVER, safety_interval_s=NEVER, answer_s=5, first_retry_s=0.02, max_retry_s=0.1
)


@contextlib.asynccontextmanager
async def second_node(net: LocalChain) -> AsyncIterator[tuple[LedgerEndpoints, Faults]]:
    """Another endpoint of the same chain, with faults of its own."""
    faults = Faults()
    async with serve_ledger(net.ledger, port=0, slot_s=0, faults=faults) as endpoints:
        yield endpoints, faults


RPC_FAULTS = ("rpc_429", "rpc_503", "rpc_timeout", "rpc_truncated", "rpc_wrong_id", "rpc_stale")


@pytest.mark.parametrize("fault", RPC_FAULTS)
async def test_with_two_endpoints_one_that_fails_is_not_noticed(fault: str) -> None:
    """Reads and a join go through the other one; the transaction lands once."""
    async with local_chain() as net, second_node(net) as (other, _):
        number = net.open_round()
        net.settle_slots(300)  # so that there is a past to be stuck in
        urls = [net.endpoints.rpc_url, other.rpc_url]
        async with Rpc(urls, timeout_s=5, use=Use(hedge_s=0.1)) as rpc:
            await rpc.probe()
            net.faults.switch(fault)
            chain = SolanaChain(rpc, net.wallet.pubkey)
            assert (await chain.round(number)) is not None
            sender = SolanaSender(rpc, net.wallet, Generation(rpc, net.wallet.pubkey), pace=FAST)
            intent = await sender.prepare(Action(ActionKind.JOIN, number))
            outcome = await sender.settle(intent, fresh=True)
            assert outcome.state is OutcomeState.LANDED
            assert await chain.balance() == 10 * SOL - RENT - FEE


@pytest.mark.parametrize("fault", ["rpc_503", "rpc_truncated", "rpc_wrong_id", "rpc_forked_away"])
async def test_trouble_with_the_only_endpoint_ends_in_one_landed_transaction(fault: str) -> None:
    """Whatever the answer to the broadcast, the same bytes are sent again until they land."""
    async with local_chain() as net:
        number = net.open_round()
        net.settle_slots()
        sender = net.sender()
        intent = await sender.prepare(Action(ActionKind.JOIN, number))
        net.faults.switch(fault, count=1)
        outcome = await sender.settle(intent, fresh=True)
        assert outcome.state is OutcomeState.LANDED
        assert net.faults.active() == {}
        assert await net.chain.balance() == 10 * SOL - RENT - FEE


async def test_a_transaction_that_dies_with_its_fork_expires_and_is_not_sent_twice() -> None:
    """Accepted, and gone: a new one is signed only when finalized is past its last height."""
    async with local_chain(slot_s=0) as net:
        number = net.open_round()
        net.settle_slots()
        sender = net.sender()
        net.faults.switch("rpc_forked_away")
        intent = await sender.prepare(Action(ActionKind.JOIN, number))
        settling = asyncio.create_task(sender.settle(intent, fresh=True))
        net.settle_slots(100)
        await asyncio.sleep(0.2)
        assert not settling.done()
        net.settle_slots(100)
        assert (await settling).state is OutcomeState.EXPIRED
        net.faults.switch("rpc_forked_away", on=False)
        again = await sender.prepare(Action(ActionKind.JOIN, number))
        settling = asyncio.create_task(sender.settle(again, fresh=True))
        await until(
            lambda: net.ledger.transaction(Signature.from_string(again.signature)) is not None
        )
        net.settle_slots()
        assert (await settling).state is OutcomeState.LANDED
        assert await net.chain.balance() == 10 * SOL - RENT - FEE


class CountingChain(SolanaChain):
    """Counts the looks at the open rounds that are over."""

    looks = 0

    async def open_rounds(self) -> list[Round]:
        found = await super().open_rounds()
        self.looks += 1
        return found


class Driven:
    """A watch whose pauses a test ends, and all that it tells."""

    def __init__(self, net: LocalChain, urls: list[str], pace: WatchPace = ONLY_EVENTS) -> None:
        self.chain = CountingChain(net.rpc, net.wallet.pubkey)
        self.watch = RoundWatch(self.chain, urls, pace=pace)
        self.told: list[Round] = []

    async def collect(self) -> None:
        async for round_ in self.watch.changes():
            self.told.append(round_)

    def joinable(self) -> set[int]:
        return {one.id for one in self.told if one.status is RoundStatus.WAITING_TRAINERS}


@contextlib.asynccontextmanager
async def watching(
    net: LocalChain, urls: list[str] | None = None, pace: WatchPace = ONLY_EVENTS
) -> AsyncIterator[Driven]:
    driven = Driven(net, urls or [net.endpoints.ws_url], pace)
    task = asyncio.create_task(driven.collect())
    try:
        # One look at the start, one when the subscription is up; from now on events alone tell.
        await until(lambda: driven.watch.is_connected and driven.chain.looks == 2)
        yield driven
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_under_thirty_per_cent_event_loss_no_joinable_round_is_missed() -> None:
    """What the lost events would have told, the next look tells: at most one call for all."""
    async with local_chain(slot_s=0) as net, watching(net) as seen:
        for _ in range(4):
            net.ledger.airdrop(net.creator.pubkey(), 10 * SOL)
        net.faults.switch("ws_lose_some")
        numbers = {net.open_round() for _ in range(30)}
        net.settle_slots()
        net.faults.switch("ws_lose_some", on=False)
        last = net.open_round()
        net.settle_slots()
        await until(lambda: last in seen.joinable())  # and so all events before it have come
        assert 10 <= len(seen.joinable() & numbers) < 30  # the same ones are lost in each run
        seen.watch._sweep_now.set()  # as the safety interval does
        await until(lambda: seen.joinable() >= numbers)
        assert seen.chain.looks == 3


@pytest.mark.parametrize("fault", ["ws_repeat", "ws_reorder"])
async def test_repeated_and_reordered_events_hide_nothing(fault: str) -> None:
    """Every round is told as joinable; what is told twice or too late is looked up by the steps."""
    async with local_chain(slot_s=0) as net, watching(net) as seen:
        net.faults.switch(fault)
        numbers = {net.open_round() for _ in range(5)}
        net.settle_slots()
        net.faults.switch(fault, on=False)
        net.post_round()  # brings out an event that is still held back
        net.settle_slots()
        await until(lambda: seen.joinable() >= numbers)


async def test_a_half_open_socket_is_noticed_by_its_silence() -> None:
    """Open by all appearances, dead in truth: pings find out, and the state is read again."""
    pace = WatchPace(
        poll_interval_s=NEVER,
        safety_interval_s=NEVER,
        answer_s=1,
        ping_s=0.2,
        first_retry_s=0.02,
        max_retry_s=0.05,
    )
    async with local_chain(slot_s=0) as net, watching(net, pace=pace) as seen:
        net.faults.switch("ws_half_open")
        number = net.open_round()
        net.settle_slots()
        await until(lambda: not seen.watch.is_connected)
        net.faults.switch("ws_half_open", on=False)
        await until(lambda: seen.watch.is_connected and number in seen.joinable())


async def test_a_second_websocket_takes_over_without_a_pause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The next URL is tried at once; what happened in between is told by the state."""
    pace = WatchPace(
        poll_interval_s=NEVER, safety_interval_s=NEVER, first_retry_s=NEVER, max_retry_s=NEVER
    )
    async with local_chain(slot_s=0) as net, second_node(net) as (other, _):
        urls = [net.endpoints.ws_url, other.ws_url]
        async with watching(net, urls, pace) as seen:
            net.faults.switch("ws_drop")
            # The other one may be there before anybody sees the first one gone.
            await until(lambda: "no subscription" in caplog.text)
            number = net.open_round()
            net.settle_slots()
            await until(lambda: seen.watch.is_connected)
            await until(lambda: number in seen.joinable())
            events = net.open_round()
            net.settle_slots()
            await until(lambda: events in seen.joinable())


@contextlib.asynccontextmanager
async def connects_and_is_silent() -> AsyncIterator[str]:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def takes_a_subscription_and_is_silent() -> AsyncIterator[str]:
    async with serve(lambda socket: socket.wait_closed(), "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


@pytest.mark.parametrize("silent", [connects_and_is_silent, takes_a_subscription_and_is_silent])
async def test_a_websocket_that_hangs_is_left_within_two_seconds(
    silent: Callable[[], AbstractAsyncContextManager[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but that limit, here a shorter one, brings the next endpoint its turn: all other
    times are an hour."""
    assert watch_module.FAILOVER_S <= 2
    monkeypatch.setattr(watch_module, "FAILOVER_S", 0.5)
    pace = WatchPace(
        poll_interval_s=NEVER,
        safety_interval_s=NEVER,
        answer_s=NEVER,
        ping_s=NEVER,
        first_retry_s=0.02,
        max_retry_s=0.05,
    )
    async with (
        local_chain(slot_s=0) as net,
        silent() as url,
        watching(net, [url, net.endpoints.ws_url], pace) as seen,
    ):
        number = net.open_round()
        net.settle_slots()
        await until(lambda: number in seen.joinable())


async def test_after_a_sleep_of_the_machine_everything_is_looked_at_again() -> None:
    """A new connection and a new look, although the old socket seems alive."""
    async with local_chain(slot_s=0) as net, watching(net) as seen:
        net.faults.switch("ws_lose_event")
        number = net.open_round()
        net.settle_slots()
        net.faults.switch("ws_lose_event", on=False)
        seen.watch.look_again()
        await until(lambda: number in seen.joinable())
        await until(lambda: seen.watch.is_connected)
