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
from decloud_trainer.chain.rpc import Account as Read
from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.errors import LayoutError, RpcError
from decloud_trainer.localnet.accounts import Account
from decloud_trainer.rounds.model import RoundStatus

UNUSUAL_CID = "z" + GRADIENT_CID + "abcdefg"


class CountingRpc(Rpc):
    """Counts calls and the bytes of account data that they brought."""

    calls: list[str]
    data_bytes = 0
    refuse_scans = False

    def __init__(self, url: str) -> None:
        super().__init__(url, timeout_s=2.0)
        self.calls = []

    async def call(self, method: str, *params: Any, **options: Any) -> Any:
        self.calls.append(method)
        return await super().call(method, *params, **options)

    async def program_accounts(self, *args: Any, **options: Any) -> list[Read]:
        if self.refuse_scans and options:
            raise RpcError("too large")
        found = await super().program_accounts(*args, **options)
        self.data_bytes += sum(len(account.data) for account in found)
        return found


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


async def test_finished_rounds_are_not_fetched() -> None:
    """Open rounds cost four small queries, and a scan of four bytes a round now and then."""
    async with local_chain() as net:
        for _ in range(20):
            number = net.post_round()
            net.run(v1.cancel_round(number, net.creator.pubkey()), net.creator)
        net.post_round()
        net.settle_slots()
        now = [0.0]
        async with CountingRpc(net.endpoints.rpc_url) as rpc:
            chain = SolanaChain(rpc, net.wallet.pubkey, scan_interval_s=600, clock=lambda: now[0])
            assert len(await chain.open_rounds()) == 1
            assert rpc.calls == ["getProgramAccounts"] * 5
            assert rpc.data_bytes < 2 * 208 + 21 * 4
            rpc.calls.clear()
            now[0] = 599
            await chain.open_rounds()
            assert rpc.calls == ["getProgramAccounts"] * 4
            now[0] = 600
            await chain.open_rounds()
            assert len(rpc.calls) == 4 + 5


async def test_a_round_with_an_unusual_cid_is_found_and_followed() -> None:
    """The scan finds it; its later states are read anew; once over it is left alone."""
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
            net.ledger.warp(7200)
            net.run(v1.check_round(number, net.creator.pubkey()), net.creator)
            net.settle_slots()
            assert await chain.open_rounds() == []
            rpc.calls.clear()
            await chain.open_rounds()
            assert rpc.calls == ["getProgramAccounts"] * 4


async def test_an_endpoint_that_refuses_the_scan_still_serves_the_usual_rounds() -> None:
    """The scan is a safety net: without it the rounds of the usual kind are told."""
    async with local_chain() as net:
        number = net.post_round()
        net.settle_slots()
        async with CountingRpc(net.endpoints.rpc_url) as rpc:
            rpc.refuse_scans = True
            found = await SolanaChain(rpc, net.wallet.pubkey).open_rounds()
            assert [one.id for one in found] == [number]


async def test_many_rounds_are_read_in_few_calls() -> None:
    """A hundred at a time, absent ones left out."""
    async with local_chain() as net:
        numbers = [net.post_round() for _ in range(3)]
        net.settle_slots()
        async with CountingRpc(net.endpoints.rpc_url) as rpc:
            found = await SolanaChain(rpc, net.wallet.pubkey).rounds(range(150))
            assert [one.id for one in found] == numbers
            assert rpc.calls == ["getMultipleAccounts"] * 2
