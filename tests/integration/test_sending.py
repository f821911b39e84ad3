"""Money moves at most once, whatever the network, the node or the process does meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from localchain import FAST, FEE, GRADIENT_CID, RENT, SOL, LocalChain, local_chain, until
from solders.keypair import Keypair
from solders.signature import Signature

from decloud_trainer.chain.client import SolanaChain
from decloud_trainer.chain.generation import Generation
from decloud_trainer.chain.rpc import Failure, Rpc, Status
from decloud_trainer.chain.sending import Pace, SolanaSender
from decloud_trainer.chain.wallet import Wallet
from decloud_trainer.errors import NetworkError
from decloud_trainer.localnet.program.image import Params
from decloud_trainer.rounds.model import Action, ActionKind, Intent, OutcomeState


class OddNode(Rpc):
    """A node that accepts transactions and loses some, lags behind, or keeps no records."""

    lose = 0
    sent = 0
    lag = 0
    serves_records = True

    async def send(self, raw: bytes, *, preflight: bool) -> Failure | None:
        self.sent += 1
        if self.sent <= self.lose:
            return None
        return await super().send(raw, preflight=preflight)

    async def signature_status(
        self, signature: str, *, search_history: bool
    ) -> tuple[int, Status | None]:
        slot, status = await super().signature_status(signature, search_history=search_history)
        return (slot - self.lag, None) if self.lag else (slot, status)

    async def transaction(self, signature: str) -> Mapping[str, Any] | None:
        return await super().transaction(signature) if self.serves_records else None


def odd_sender(net: LocalChain, pace: Pace = FAST) -> tuple[OddNode, SolanaSender]:
    node = OddNode(net.endpoints.rpc_url, timeout_s=2.0)
    found = Generation(node, net.wallet.pubkey)
    return node, SolanaSender(node, net.wallet, found, pace=pace)


async def join_intent(net: LocalChain, number: int) -> Intent:
    return await net.sender().prepare(Action(ActionKind.JOIN, number))


def times_landed(net: LocalChain, *intents: Intent) -> int:
    found = (net.ledger.transaction(Signature.from_string(i.signature)) for i in intents)
    return sum(landed is not None for landed in found)


async def test_a_lost_broadcast_is_repeated_until_it_lands() -> None:
    """A node that loses the transaction twice costs time and nothing else."""
    async with local_chain() as net:
        number = net.open_round()
        net.settle_slots()
        node, sender = odd_sender(net)
        async with node:
            node.lose = 2
            outcome = await sender.settle(await join_intent(net, number), fresh=True)
        assert node.sent == 3
        assert outcome.state is OutcomeState.LANDED
        assert await net.chain.balance() == 10 * SOL - RENT - FEE


async def test_it_expires_only_when_finalized_is_past_its_last_height() -> None:
    """While any node could still accept it, no second transaction may be made."""
    async with local_chain(slot_s=0) as net:
        number = net.open_round()
        net.settle_slots()
        node, sender = odd_sender(net)
        async with node:
            node.lose = 10**6
            intent = await sender.prepare(Action(ActionKind.JOIN, number))
            settling = asyncio.create_task(sender.settle(intent, fresh=True))
            last = intent.last_valid_height
            net.settle_slots(last - net.ledger.current.number + 8)  # finalized: exactly the last
            sent = node.sent
            await until(lambda: node.sent > sent + 2)
            assert not settling.done()
            net.settle_slots(1)
            outcome = await settling
        assert outcome.state is OutcomeState.EXPIRED
        assert (outcome.slot, outcome.fee_lamports) == (None, 0)
        assert await net.chain.balance() == 10 * SOL


async def test_a_node_that_lags_behind_cannot_make_it_expire() -> None:
    """'Not found' counts only from a node that has reached the deciding slot."""
    async with local_chain(slot_s=0) as net:
        number = net.open_round()
        net.settle_slots()
        intent = await join_intent(net, number)
        await net.rpc.send(intent.raw, preflight=True)  # it landed
        net.settle_slots(400)
        node, sender = odd_sender(net)
        async with node:
            node.lag = 50
            settling = asyncio.create_task(sender.settle(intent, fresh=False))
            sent = node.sent
            await until(lambda: node.sent > sent + 2)
            assert not settling.done()
            node.lag = 0
            assert (await settling).state is OutcomeState.LANDED


@pytest.mark.parametrize("slots_later", [1, 400])
async def test_after_a_crash_a_landed_transaction_is_found(slots_later: int) -> None:
    """With `fresh=False` it is looked up, in the node's history if it is old; not sent again."""
    async with local_chain(slot_s=0) as net:
        number = net.open_round()
        net.settle_slots()
        intent = await join_intent(net, number)
        await net.rpc.send(intent.raw, preflight=True)
        net.settle_slots(slots_later)
        node, sender = odd_sender(net)
        async with node:
            outcome = await sender.settle(intent, fresh=False)
        assert node.sent == 0
        assert outcome.state is OutcomeState.LANDED
        assert outcome.wallet_change_lamports == -RENT - FEE


async def test_after_a_crash_an_unsent_transaction_is_sent() -> None:
    """The recorded bytes themselves go out, not new ones."""
    async with local_chain() as net:
        number = net.open_round()
        net.settle_slots()
        intent = await join_intent(net, number)
        outcome = await net.sender().settle(intent, fresh=False)
        assert outcome.state is OutcomeState.LANDED
        assert times_landed(net, intent) == 1


async def test_after_a_long_outage_an_unsent_transaction_has_expired() -> None:
    """Nothing was spent, and that is known at the first look."""
    async with local_chain(slot_s=0) as net:
        number = net.open_round()
        net.settle_slots()
        intent = await join_intent(net, number)
        net.settle_slots(200)
        node, sender = odd_sender(net)
        async with node:
            assert (await sender.settle(intent, fresh=False)).state is OutcomeState.EXPIRED
        assert node.sent == 0


@pytest.mark.parametrize("limited", [0, 1])
async def test_a_refusal_at_preflight_names_the_programs_error_and_costs_nothing(
    limited: int,
) -> None:
    """A fresh transaction that the program refuses is never broadcast, also after a 429."""
    async with local_chain(params=Params(join_s=60)) as net:
        number = net.open_round()
        net.ledger.warp(120)
        net.settle_slots()
        intent = await join_intent(net, number)
        net.faults.switch("rpc_429", count=limited)
        outcome = await net.sender().settle(intent, fresh=True)
        assert outcome.state is OutcomeState.REJECTED
        assert (outcome.error_name, outcome.error_number) == ("JoinDeadlinePassed", 6009)
        assert "can't be joined any more" in outcome.error
        assert (outcome.slot, outcome.fee_lamports) == (None, 0)
        assert await net.chain.balance() == 10 * SOL


async def test_a_refusal_after_a_crash_proves_nothing() -> None:
    """The bytes may be out already, so only expiry ends it; what refused it is told."""
    async with local_chain(slot_s=0) as net:
        number = net.open_round()
        net.settle_slots()
        first = await join_intent(net, number)
        net.settle_slots(1)  # another blockhash, another signature
        second = await join_intent(net, number)
        await net.rpc.send(first.raw, preflight=True)
        net.settle_slots()
        node, sender = odd_sender(net)
        async with node:
            settling = asyncio.create_task(sender.settle(second, fresh=False))
            await until(lambda: node.sent >= 2)  # and so the first was refused
            assert not settling.done()
            net.settle_slots(200)
            outcome = await settling
        assert outcome.state is OutcomeState.EXPIRED
        assert outcome.error_name == "AlreadyInUse"
        assert times_landed(net, first, second) == 1


async def test_a_refusal_after_a_lost_answer_proves_nothing() -> None:
    """What a silent node may have broadcast can still land, whatever another look says."""
    async with local_chain(slot_s=0, params=Params(join_s=60)) as net:
        number = net.open_round()
        net.settle_slots()
        node = OddNode(net.endpoints.rpc_url, timeout_s=0.2)
        sender = SolanaSender(node, net.wallet, Generation(node, net.wallet.pubkey), pace=FAST)
        async with node:
            intent = await sender.prepare(Action(ActionKind.JOIN, number))
            net.faults.switch("rpc_timeout", count=1)
            net.ledger.warp(120)
            net.settle_slots()
            settling = asyncio.create_task(sender.settle(intent, fresh=True))
            await until(lambda: node.sent >= 3)  # one without an answer, one refused
            assert not settling.done()
            net.settle_slots(200)
            outcome = await settling
        assert outcome.state is OutcomeState.EXPIRED
        assert outcome.error_name == "JoinDeadlinePassed"


async def test_an_executed_failure_tells_its_fee_and_its_error() -> None:
    """A transaction that landed and failed is REJECTED with what it cost."""
    async with local_chain() as net:
        number = net.open_round()
        net.settle_slots()
        intent = await net.sender().prepare(Action(ActionKind.SUBMIT, number, GRADIENT_CID))
        await net.rpc.send(intent.raw, preflight=False)
        outcome = await net.sender().settle(intent, fresh=False)
        assert outcome.state is OutcomeState.REJECTED
        assert outcome.slot is not None
        assert (outcome.fee_lamports, outcome.wallet_change_lamports) == (FEE, -FEE)
        assert (outcome.error_name, outcome.error_number) == ("AccountNotInitialized", 3012)


@pytest.mark.parametrize("fault", ["rpc_429", "rpc_lost_answer", "rpc_timeout"])
async def test_trouble_with_the_endpoint_is_sat_out(fault: str) -> None:
    """Refused, lost or late answers to the broadcast end in exactly one landed transaction."""
    async with local_chain() as net:
        number = net.open_round()
        net.settle_slots()
        node = Rpc(net.endpoints.rpc_url, timeout_s=0.3)
        sender = SolanaSender(node, net.wallet, Generation(node, net.wallet.pubkey), pace=FAST)
        async with node:
            intent = await sender.prepare(Action(ActionKind.JOIN, number))
            net.faults.switch(fault, count=1)
            outcome = await sender.settle(intent, fresh=True)
        assert outcome.state is OutcomeState.LANDED
        assert times_landed(net, intent) == 1
        assert await net.chain.balance() == 10 * SOL - RENT - FEE


async def test_a_dead_endpoint_ends_in_a_network_error_and_settles_later() -> None:
    """The caller keeps the intent and asks again when there is an endpoint."""
    async with local_chain() as net:
        number = net.open_round()
        net.settle_slots()
        node = Rpc(net.endpoints.rpc_url, timeout_s=0.1, attempts=1)
        pace = Pace(first_poll=0.02, rebroadcast=0.1, patience=0.3, amounts=1)
        found = Generation(node, net.wallet.pubkey)
        sender = SolanaSender(node, net.wallet, found, pace=pace)
        intent = await net.sender().prepare(Action(ActionKind.JOIN, number))
        net.faults.switch("rpc_timeout")
        async with node:
            with pytest.raises(NetworkError):
                await sender.settle(intent, fresh=True)
        net.faults.switch("rpc_timeout", on=False)
        outcome = await net.sender().settle(intent, fresh=False)
        assert outcome.state is OutcomeState.LANDED


@pytest.mark.parametrize("lamports", [0, 1_000_000])
async def test_an_empty_wallet_is_recognised(lamports: int) -> None:
    """No SOL at all and too little for the rent have one name."""
    async with local_chain() as net:
        number = net.open_round()
        poor = Keypair()
        if lamports:
            net.ledger.airdrop(poor.pubkey(), lamports)
        net.settle_slots()
        wallet = Wallet(poor, "test")
        sender = SolanaSender(net.rpc, wallet, Generation(net.rpc, wallet.pubkey), pace=FAST)
        intent = await sender.prepare(Action(ActionKind.JOIN, number))
        outcome = await sender.settle(intent, fresh=True)
        assert outcome.state is OutcomeState.REJECTED
        assert outcome.error_name == "InsufficientFunds"
        assert await SolanaChain(net.rpc, wallet.pubkey).balance() == lamports


async def test_a_blockhash_that_died_before_sending_is_expired_at_no_cost() -> None:
    """A fresh transaction that no node accepts any more is given up without a broadcast."""
    async with local_chain(slot_s=0) as net:
        number = net.open_round()
        net.settle_slots()
        intent = await join_intent(net, number)
        net.settle_slots(200)
        outcome = await net.sender().settle(intent, fresh=True)
        assert outcome.state is OutcomeState.EXPIRED
        assert await net.chain.balance() == 10 * SOL


async def test_a_cancelled_caller_does_not_stop_what_is_under_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After the broadcast a cancellation waits until the fate is known, and then holds."""
    caplog.set_level(logging.INFO)
    async with local_chain() as net:
        number = net.open_round()
        net.settle_slots()
        node, sender = odd_sender(net)
        async with node:
            node.lose = 2
            intent = await sender.prepare(Action(ActionKind.JOIN, number))
            settling = asyncio.create_task(sender.settle(intent, fresh=True))
            await until(lambda: node.sent > 0)
            settling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await settling
        assert await net.chain.submission(number) is not None
        assert f"{intent.signature}): landed" in caplog.text


async def test_a_second_cancellation_stops_at_once() -> None:
    """A user who presses Ctrl-C twice does not wait; the intent is settled at the next start."""
    async with local_chain() as net:
        number = net.open_round()
        net.settle_slots()
        node, sender = odd_sender(net, Pace(first_poll=0.02, rebroadcast=0.1, grace=60))
        async with node:
            node.lose = 10**6
            intent = await sender.prepare(Action(ActionKind.JOIN, number))
            settling = asyncio.create_task(sender.settle(intent, fresh=True))
            await until(lambda: node.sent > 0)
            settling.cancel()
            await asyncio.sleep(0.05)
            assert not settling.done()
            settling.cancel()
            async with asyncio.timeout(1):
                with pytest.raises(asyncio.CancelledError):
                    await settling
            sent = node.sent
            await asyncio.sleep(0.3)
            assert node.sent == sent
        assert (await net.sender().settle(intent, fresh=False)).state is OutcomeState.LANDED


async def test_without_a_record_the_outcome_is_known_and_the_fee_alone_is_booked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An endpoint without history can't tell amounts; that is said and holds nothing up."""
    async with local_chain() as net:
        number = net.open_round()
        net.settle_slots()
        node, sender = odd_sender(net, Pace(first_poll=0.02, rebroadcast=0.1, amounts=0.1))
        async with node:
            node.serves_records = False
            outcome = await sender.settle(await join_intent(net, number), fresh=True)
        assert outcome.state is OutcomeState.LANDED
        assert (outcome.fee_lamports, outcome.wallet_change_lamports) == (FEE, -FEE)
        assert "only its fee is booked" in caplog.text
