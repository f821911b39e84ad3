"""The program's generation is found out without spending anything."""

from __future__ import annotations

import pytest
from localchain import GRADIENT_CID, local_chain
from solders.keypair import Keypair

from decloud_trainer.chain import v1
from decloud_trainer.chain.generation import Generation
from decloud_trainer.errors import ChainError, InsufficientFunds, ProgramError, SettingsError


async def test_the_newest_generation_is_detected() -> None:
    """A program that knows abort_round is v1.2; the text says how that was found out."""
    async with local_chain("v1.2") as net:
        found = Generation(net.rpc, net.wallet.pubkey)
        assert await found.describe() == "v1.2 (detected by simulation)"
        assert len((await found.claim_reward(0)).accounts) == 7


async def test_the_oldest_generation_shows_at_the_first_claim() -> None:
    """v1.0 and v1.1 differ only in payouts: simulating the claim tells them apart."""
    async with local_chain("v1.0") as net:
        found = Generation(net.rpc, net.wallet.pubkey)
        assert await found.describe() == "v1.0 or v1.1 (by simulation; the first claim tells which)"
        number = net.open_round()
        net.run(v1.join_round(number, net.trainer.pubkey()), net.trainer)
        net.start_training(number)
        submit = v1.submit_gradients(number, GRADIENT_CID, net.trainer.pubkey())
        net.run(submit, net.trainer)
        net.complete(number, [(net.trainer, 10_000)])
        net.settle_slots()
        assert len((await found.claim_reward(number)).accounts) == 5
        assert await found.describe() == "v1.0 (detected by simulation)"


async def test_a_claim_that_neither_list_fits_is_the_programs_error() -> None:
    """A wallet that never joined is told so, and no generation is made up."""
    async with local_chain("v1.0") as net:
        number = net.open_round()
        net.settle_slots()
        with pytest.raises(ProgramError) as caught:
            await Generation(net.rpc, net.wallet.pubkey).claim_reward(number)
        assert caught.value.number == 3012


async def test_a_refusal_that_disproves_it_has_it_detected_again() -> None:
    """After an upgrade of the program the next claim uses the new list; a set one stays."""
    async with local_chain("v1.2") as net:
        found = Generation(net.rpc, net.wallet.pubkey)
        await found.describe()
        found._candidates = ("v1.0",)
        found.reconsider(6014)
        assert await found.describe() == "v1.0 (detected by simulation)"
        found.reconsider(3005)
        assert await found.describe() == "v1.2 (detected by simulation)"
        fixed = Generation(net.rpc, net.wallet.pubkey, setting="v1.0")
        fixed.reconsider(3005)
        assert await fixed.describe() == "v1.0 (set)"


async def test_a_referrer_is_named_only_where_the_generation_knows_them() -> None:
    """None by default; with one set, v1.0 claims go on without."""
    async with local_chain("v1.2") as net:
        friend = str(Keypair().pubkey())
        for setting, expected in (("v1.2", True), ("v1.0", False)):
            found = Generation(net.rpc, net.wallet.pubkey, setting=setting, referrer=friend)
            keys = [str(meta.pubkey) for meta in (await found.claim_reward(0)).accounts]
            assert (friend in keys) is expected


async def test_what_cannot_be_found_out_is_said() -> None:
    """No program at the address, and a wallet without SOL to simulate with."""
    async with local_chain("v1.2") as net:
        program = Keypair().pubkey()
        with pytest.raises(ChainError, match="program"):
            await Generation(net.rpc, net.wallet.pubkey, program=program).describe()
        with pytest.raises(InsufficientFunds):
            await Generation(net.rpc, str(Keypair().pubkey())).describe()
        with pytest.raises(SettingsError, match=r"v9"):
            Generation(net.rpc, net.wallet.pubkey, setting="v9")
