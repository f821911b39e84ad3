"""Priority fees follow what others pay, up to what an action allows, and cost what they say."""

from __future__ import annotations

from typing import Any

import pytest
from localchain import FAST, FEE, GRADIENT_CID, RENT, SOL, LocalChain, local_chain
from solders.compute_budget import set_compute_unit_price
from solders.instruction import AccountMeta, Instruction
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from decloud_trainer.chain import v1
from decloud_trainer.chain.client import SolanaChain
from decloud_trainer.chain.fees import lamports_of, price_at
from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.errors import RpcError
from decloud_trainer.localnet.ledger import Commitment
from decloud_trainer.rounds.model import Action, ActionKind, Outcome, OutcomeState, Tip


def crowd(net: LocalChain, price: int, account: Pubkey | None = None) -> None:
    """Somebody pays this price, in a slot of its own, for writing to the account."""
    me = net.creator.pubkey()
    plain = transfer(TransferParams(from_pubkey=me, to_pubkey=me, lamports=1))
    written = [] if account is None else [AccountMeta(account, False, True)]
    work = Instruction(SYSTEM_PROGRAM, bytes(plain.data), [*plain.accounts, *written])
    blockhash = net.ledger.blockhash_at(Commitment.PROCESSED)
    message = Message.new_with_blockhash([set_compute_unit_price(price), work], me, blockhash)
    landed = net.ledger.submit(VersionedTransaction(message, [net.creator]))
    assert landed.error is None
    net.ledger.advance_slot()


async def sent(net: LocalChain, action: Action, rpc: Rpc | None = None) -> Outcome:
    sender = net.sender(generation=net.generation, pace=FAST)
    if rpc is not None:
        sender._rpc = rpc
    return await sender.settle(await sender.prepare(action), fresh=True)


def recent(net: LocalChain, number: int, price: int) -> None:
    """In all the slots that count, writers to the round paid this price."""
    address, _ = v1.round_address(number)
    for _ in range(150):
        crowd(net, price, address)


async def test_nobody_pays_so_nothing_is_paid() -> None:
    """The base fee alone, whatever the action would allow; no instruction beside ours."""
    async with local_chain(slot_s=0) as net:
        number = net.open_round()
        sender = net.sender(generation=net.generation)
        intent = await sender.prepare(Action(ActionKind.JOIN, number, tip=Tip(10_000)))
        message = VersionedTransaction.from_bytes(intent.raw).message
        assert len(message.instructions) == 1


async def test_what_others_pay_for_the_account_is_paid_and_charged() -> None:
    """To the lamport what the chain charges: fee and rent are booked apart."""
    async with local_chain() as net:
        number = net.open_round()
        recent(net, number, 100_000)
        outcome = await sent(net, Action(ActionKind.JOIN, number, tip=Tip(10_000)))
        assert outcome.state is OutcomeState.LANDED
        assert FEE < outcome.fee_lamports <= FEE + 10_000
        assert outcome.wallet_change_lamports == -RENT - outcome.fee_lamports
        assert await net.chain.balance() == 10 * SOL - RENT - outcome.fee_lamports


@pytest.mark.parametrize("most", [0, 1, 7, 500])
async def test_never_more_than_allowed(most: int) -> None:
    """A price far beyond is cut to the action's limit; without one none is paid."""
    async with local_chain() as net:
        number = net.open_round()
        recent(net, number, 10**8)
        outcome = await sent(net, Action(ActionKind.JOIN, number, tip=Tip(most)))
        assert outcome.state is OutcomeState.LANDED
        assert outcome.fee_lamports <= FEE + most


async def test_costs_tell_what_others_pay_for_a_round() -> None:
    """Before joining; without a round, and where nobody pays, it is nothing."""
    async with local_chain() as net:
        calm, crowded = net.open_round(), net.open_round()
        recent(net, crowded, 100_000)
        assert (await net.chain.costs(crowded)).priority_lamports == 4_000
        assert (await net.chain.costs()).priority_lamports == 0
        async with Silent(net.endpoints.rpc_url) as rpc:
            mute = SolanaChain(rpc, net.wallet.pubkey)
            assert (await mute.costs(calm)).priority_lamports == 0


async def test_the_local_network_tells_prices_by_account() -> None:
    """As a node does: of each slot the least price, more where an account is wanted more."""
    async with local_chain(slot_s=0) as net:
        round_, _ = v1.round_address(net.open_round())
        slot = net.ledger.current.number
        crowd(net, 5)
        crowd(net, 700, round_)
        prices = await net.rpc.call("getRecentPrioritizationFees", [str(round_)])
        told = {one["slot"]: one["prioritizationFee"] for one in prices}
        assert [told[slot], told[slot + 1], told[slot + 2]] == [5, 700, 0]
        assert len(prices) <= 150
        with pytest.raises(RpcError, match="Too many"):
            await net.rpc.call("getRecentPrioritizationFees", [str(round_)] * 129)


class Silent(Rpc):
    """An endpoint that doesn't know of priority fees, or tells nonsense."""

    answer: Any = None

    async def call(self, method: str, *params: Any, **options: Any) -> Any:
        if method == "getRecentPrioritizationFees":
            if self.answer is None:
                raise RpcError("Method not found")
            return options["read"](self.answer)
        return await super().call(method, *params, **options)


async def test_an_endpoint_without_prices_costs_no_transaction() -> None:
    """It is sent for the base fee."""
    async with local_chain() as net, Silent(net.endpoints.rpc_url) as rpc:
        outcome = await sent(net, Action(ActionKind.JOIN, net.open_round(), tip=Tip(9_999)), rpc)
        assert (outcome.state, outcome.fee_lamports) == (OutcomeState.LANDED, FEE)


async def test_a_fee_is_booked_without_the_chains_record() -> None:
    """An endpoint that keeps no history: the signed bytes say what was paid."""
    async with local_chain() as net:
        number = net.open_round()
        net.run(v1.join_round(number, net.trainer.pubkey()), net.trainer)
        net.start_training(number)
        recent(net, number, 10**6)
        before = await net.chain.balance()

        class Forgetful(Rpc):
            async def transaction(self, signature: str) -> None:
                return None

        async with Forgetful(net.endpoints.rpc_url) as rpc:
            action = Action(ActionKind.SUBMIT, number, GRADIENT_CID, tip=Tip(3_000))
            outcome = await sent(net, action, rpc)
        assert outcome.fee_lamports > FEE
        assert before - await net.chain.balance() == outcome.fee_lamports


def test_the_rank_of_a_price() -> None:
    """Nearest rank; nothing is asked for where nobody paid."""
    assert price_at([], 90) == 0
    assert price_at([0, 0, 9], 50) == 0
    assert [price_at([30, 10, 20, 40], rank) for rank in (0, 25, 50, 75, 90, 100)] == [
        10,
        10,
        20,
        30,
        40,
        40,
    ]
    assert lamports_of(1, 1) == 1
    assert lamports_of(100_000, 40_000) == 4_000
