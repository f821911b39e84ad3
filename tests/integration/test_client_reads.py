"""What an endpoint or a stranger puts before the client is checked, and reads stay small."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from localchain import GRADIENT_CID, MODEL_CID, SOL, LocalChain, local_chain
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from decloud_trainer.chain import v1
from decloud_trainer.chain.client import SolanaChain
from decloud_trainer.chain.openrounds import OpenRounds
from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.errors import LayoutError, RpcError
from decloud_trainer.localnet.accounts import Account
from decloud_trainer.rounds.model import RoundStatus

UNUSUAL_CID = "z" + GRADIENT_CID + "abcdefg"


class CountingRpc(Rpc):
    """Counts calls."""

    calls: list[str]
    refuse_slices = False

    def __init__(self, url: str) -> None:
        super().__init__(url, timeout_s=2.0)
        self.calls = []

    async def call(self, method: str, *params: Any, **options: Any) -> Any:
        self.calls.append(method)
        if self.refuse_slices and "dataSlice" in params[-1]:
            raise RpcError("too large")
        return await super().call(method, *params, **options)


def account_of(net: LocalChain, number: int) -> tuple[Pubkey, Account]:
    address, _ = v1.round_address(number)
    account = net.ledger.account(address)
    assert account is not None
    return address, account


async def test_a_forged_copy_of_a_round_is_never_told(caplog: pytest.LogCaptureFixture) -> None:
    """Right bytes at a wrong address, and other layouts, are skipped with one warning each."""
    async with local_chain() as net:
        number = net.open_round()
        _, real = account_of(net, number)
        forged, newer, cut = (Keypair().pubkey() for _ in range(3))
        rich = bytearray(real.data)
        reward_at = 53 + len(MODEL_CID)
        rich[reward_at : reward_at + 8] = (10**15).to_bytes(8, "little")
        net.ledger.set_account(forged, dataclasses.replace(real, data=bytes(rich)))
        net.ledger.set_account(newer, dataclasses.replace(real, data=real.data[:8] + bytes(155)))
        net.ledger.set_account(cut, dataclasses.replace(real, data=real.data[:150]))
        net.settle_slots()
        for _ in range(2):
            for told in (await net.chain.open_rounds(), await net.chain.rounds_with()):
                assert [(one.id, one.reward_lamports) for one in told] == [(number, SOL)]
        for address in (forged, newer, cut):
            assert caplog.text.count(f"skipped the account {address}") == 1


async def test_a_round_of_another_layout_is_an_error_when_asked_for() -> None:
    """Asked for by id, it is a clear error and not a wrong value, nor 'there is none'."""
    async with local_chain() as net:
        address, real = account_of(net, net.open_round())
        net.ledger.set_account(address, dataclasses.replace(real, data=real.data[:8] + bytes(155)))
        net.settle_slots()
        with pytest.raises(LayoutError):
            await net.chain.round(0)
        foreign = dataclasses.replace(real, owner=Keypair().pubkey())
        net.ledger.set_account(address, foreign)
        net.settle_slots()
        with pytest.raises(LayoutError, match="belongs to"):
            await net.chain.round(0)


async def test_lamports_sent_to_a_future_round_are_no_round() -> None:
    """Anyone can send lamports to an address; that makes no account of the program."""
    async with local_chain() as net:
        net.ledger.airdrop(v1.round_address(5)[0], 10**9)
        net.ledger.airdrop(v1.submission_address(5, net.wallet.pubkey)[0], 10**9)
        net.settle_slots()
        assert await net.chain.round(5) is None
        assert await net.chain.submission(5) is None


async def test_one_bad_submission_does_not_hide_the_others() -> None:
    """A submission of an unknown layout or at a wrong address is skipped; the rest are told."""
    async with local_chain() as net:
        first, second = net.open_round(), net.open_round()
        for number in (first, second):
            net.run(v1.join_round(number, net.trainer.pubkey()), net.trainer)
        address, _ = v1.submission_address(first, net.wallet.pubkey)
        account = net.ledger.account(address)
        assert account is not None
        broken = account.data[:48] + b"\xff" * (len(account.data) - 48)
        net.ledger.set_account(address, dataclasses.replace(account, data=broken))
        forged = Keypair().pubkey()
        net.ledger.set_account(forged, account)
        net.settle_slots()
        assert [one.round_id for one in await net.chain.submissions()] == [second]
        with pytest.raises(LayoutError):
            await net.chain.submission(first)


def open_rounds(net: LocalChain, rpc: Rpc, now: list[float]) -> OpenRounds:
    chain = SolanaChain(rpc, net.wallet.pubkey)
    return OpenRounds(rpc, v1.PROGRAM_ID, chain.readable_round, clock=lambda: now[0])


async def test_finished_rounds_cost_nothing() -> None:
    """After one listing by filters, each look is one call for the counter and the open rounds."""
    async with local_chain() as net:
        for _ in range(20):
            number = net.post_round()
            net.run(v1.cancel_round(number, net.creator.pubkey()), net.creator)
        still_open = net.post_round()
        net.settle_slots()
        now = [0.0]
        async with CountingRpc(net.endpoints.rpc_url) as rpc:
            opened = open_rounds(net, rpc, now)
            assert [one.id for one in await opened.read()] == [still_open]
            # The counter, the filters; again the counter, and four bytes of each recent round.
            assert rpc.calls == [
                "getMultipleAccounts",
                *["getProgramAccounts"] * 4,
                *["getMultipleAccounts"] * 2,
            ]
            for _ in range(3):
                rpc.calls.clear()
                assert [one.id for one in await opened.read()] == [still_open]
                assert rpc.calls == ["getMultipleAccounts"]
            rpc.calls.clear()
            now[0] = 3600
            assert [one.id for one in await opened.read()] == [still_open]
            assert rpc.calls == ["getMultipleAccounts", *["getProgramAccounts"] * 4]


async def test_new_and_changed_rounds_are_found_by_the_counter_alone() -> None:
    """Also rounds with unusual CIDs; what has ended is left alone."""
    async with local_chain() as net:
        first = net.post_round()
        net.settle_slots()
        async with CountingRpc(net.endpoints.rpc_url) as rpc:
            opened = open_rounds(net, rpc, [0.0])
            await opened.read()
            second, third = net.post_round(), net.post_round(cid=UNUSUAL_CID)
            net.run(v1.claim_round(first, net.validator.pubkey()), net.validator)
            net.settle_slots()
            rpc.calls.clear()
            found = {one.id: one.status for one in await opened.read()}
            assert found == {
                first: RoundStatus.WAITING_TRAINERS,
                second: RoundStatus.WAITING_VALIDATOR,
                third: RoundStatus.WAITING_VALIDATOR,
            }
            assert rpc.calls == ["getMultipleAccounts"] * 2
            net.run(v1.cancel_round(second, net.creator.pubkey()), net.creator)
            net.settle_slots()
            assert {one.id for one in await opened.read()} == {first, third}
            rpc.calls.clear()
            assert {one.id for one in await opened.read()} == {first, third}
            assert rpc.calls == ["getMultipleAccounts"]


async def test_a_round_that_an_endpoint_doesnt_show_yet_is_asked_for_again() -> None:
    """The counter may be newer than the endpoint that is asked for the round itself."""
    async with local_chain() as net:
        net.post_round()
        net.settle_slots()
        async with CountingRpc(net.endpoints.rpc_url) as rpc:
            opened = open_rounds(net, rpc, [0.0])
            await opened.read()
            number = net.post_round()
            net.settle_slots()
            address, real = account_of(net, number)
            net.ledger.set_account(address, None)
            net.settle_slots()
            assert number not in {one.id for one in await opened.read()}
            net.ledger.set_account(address, real)
            net.settle_slots()
            assert number in {one.id for one in await opened.read()}


async def test_a_round_with_an_unusual_cid_is_found_at_the_first_look() -> None:
    """Its later states are read anew; once over it is left alone."""
    async with local_chain() as net:
        number = net.post_round(cid=UNUSUAL_CID)
        net.settle_slots()
        async with CountingRpc(net.endpoints.rpc_url) as rpc:
            chain = SolanaChain(rpc, net.wallet.pubkey)
            (found,) = await chain.open_rounds()
            assert (found.id, found.model_cid) == (number, UNUSUAL_CID)
            net.run(v1.claim_round(number, net.validator.pubkey()), net.validator)
            net.settle_slots()
            (found,) = await chain.open_rounds()
            assert found.status is RoundStatus.WAITING_TRAINERS
            net.run(v1.join_round(number, net.trainer.pubkey()), net.trainer)
            net.start_training(number)
            net.settle_slots()
            assert await chain.open_rounds() == []
            assert [one.id for one in await chain.rounds_with(RoundStatus.TRAINING)] == [number]


async def test_an_endpoint_that_refuses_slices_still_serves_the_usual_rounds() -> None:
    """Looking for unusual rounds is a safety net: without it the usual ones are told."""
    async with local_chain() as net:
        number = net.post_round()
        net.settle_slots()
        async with CountingRpc(net.endpoints.rpc_url) as rpc:
            rpc.refuse_slices = True
            found = await SolanaChain(rpc, net.wallet.pubkey).open_rounds()
            assert [one.id for one in found] == [number]


async def test_a_program_without_a_readable_counter_is_listed_each_time() -> None:
    """Nothing is missed when the counter is of no use."""
    async with local_chain() as net:
        net.post_round()
        address, _ = v1.counter_address()
        real = net.ledger.account(address)
        assert real is not None
        net.ledger.set_account(address, dataclasses.replace(real, data=b"\0" * 9))
        net.settle_slots()
        async with CountingRpc(net.endpoints.rpc_url) as rpc:
            opened = open_rounds(net, rpc, [0.0])
            for _ in range(2):
                assert len(await opened.read()) == 1


async def test_many_rounds_are_read_in_few_calls() -> None:
    """A hundred at a time, absent ones left out."""
    async with local_chain() as net:
        numbers = [net.post_round() for _ in range(3)]
        net.settle_slots()
        async with CountingRpc(net.endpoints.rpc_url) as rpc:
            found = await SolanaChain(rpc, net.wallet.pubkey).rounds(range(150))
            assert [one.id for one in found] == numbers
            assert rpc.calls == ["getMultipleAccounts"] * 2
