"""What exceeds the float goes to the cold address: once, announced, and never more."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from daemonworld import Stuck, World, a_world
from localchain import FAST, FEE, PATIENCE_S, RENT, SOL, local_chain, until
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from decloud_trainer.chain import v1
from decloud_trainer.chain.generation import Generation
from decloud_trainer.chain.guard import Guard
from decloud_trainer.chain.sending import SolanaSender
from decloud_trainer.errors import RpcError, SpendingRefused
from decloud_trainer.localnet.accounts import Account
from decloud_trainer.rounds import coldstore, daemon, marks, transfers
from decloud_trainer.rounds.entry import RowKey, State
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import NO_ROUND, Action, ActionKind
from decloud_trainer.rounds.ports import Sender
from decloud_trainer.rounds.spending import Ceilings, ColdStore

FLOAT = 2 * SOL


class Cold:
    """A cold address, and a sender whose guard knows it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.address = Keypair().pubkey()
        self.store = ColdStore(str(self.address), FLOAT)

    @property
    def lamports(self) -> int:
        account = self.world.net.ledger.account(self.address)
        return account.lamports if account else 0

    def sender(self, real: Any) -> SolanaSender:
        return self.world.guarded(Ceilings(cold=self.store))

    @asynccontextmanager
    async def daemon(self, **options: Any) -> AsyncIterator[Any]:
        wrap = options.pop("sender", self.sender)
        with patch.object(daemon, "STORE_S", 0.05):
            async with self.world.daemon(sender=wrap, cold=self.store, **options) as running:
                yield running

    def booked(self) -> list[transfers.Transfer]:
        with closing(Journal(self.world.home / "journal.sqlite")) as journal:
            return transfers.transfers(journal)


async def told(world: World) -> None:
    """Until the first transfer to the address is announced."""

    def is_told() -> bool:
        with closing(Journal(world.home / "journal.sqlite")) as journal:
            return marks.mark(journal, coldstore.TOLD) is not None

    await until(is_told)


async def test_the_excess_goes_after_the_announcement(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To the lamport the float is left; ten minutes before, the log says where it will go."""
    async with a_world(tmp_path) as world:
        cold = Cold(world)
        async with cold.daemon():
            await told(world)
            await until(lambda: f"they go to {cold.address} in 10 minutes" in caplog.text)
            assert (world.balance(), cold.lamports) == (10 * SOL, 0)
            world.warp(601)
            await until(lambda: cold.lamports == 10 * SOL - FLOAT - FEE)
            assert world.balance() == FLOAT
            await until(lambda: cold.booked()[0].sent.outcome is not None)
        (booked,) = cold.booked()
        assert booked.sent.outcome is not None
        assert booked.sent.outcome.wallet_change_lamports == FLOAT - 10 * SOL


async def test_a_claim_is_followed_by_its_transfer_and_joins_use_the_float(
    tmp_path: Path,
) -> None:
    """A whole round: the wallet ends at the float again, the reward's rest is stored."""
    async with a_world(tmp_path) as world:
        cold = Cold(world)
        async with cold.daemon() as running:
            await told(world)
            world.warp(601)
            await until(lambda: world.balance() == FLOAT)
            number = world.open()
            await running.until(number, State.JOINED)
            assert world.balance() == FLOAT - RENT - FEE
            world.net.start_training(number)
            await running.until(number, State.SUBMITTED)
            world.complete(number)
            await until(lambda: len(world.transactions()) == 3 and world.balance() == FLOAT)
            reward = SOL * 9 // 10 * 98 // 100
            assert cold.lamports == 8 * SOL - FEE + reward - RENT - 4 * FEE


@pytest.mark.parametrize("sent", [False, True])
async def test_a_crash_between_intent_and_knowing_moves_it_once(tmp_path: Path, sent: bool) -> None:
    """Recorded and perhaps broadcast, then dead: the next start sends the same bytes or none."""
    async with a_world(tmp_path) as world:
        cold = Cold(world)
        made: list[Stuck] = []

        def stuck(real: Sender) -> Stuck:
            made.append(Stuck(cold.sender(real), world, "transfer", sent=sent))
            return made[-1]

        async with cold.daemon(sender=stuck):
            await told(world)
            world.warp(601)
            await asyncio.wait_for(made[0].reached.wait(), PATIENCE_S)
        (before,) = cold.booked()
        assert before.sent.outcome is None
        async with cold.daemon():
            await until(lambda: cold.booked()[0].sent.outcome is not None)
            await until(lambda: world.balance() == FLOAT)
        (after,) = cold.booked()
        assert after.sent.intent.signature == before.sent.intent.signature
        assert cold.lamports == 10 * SOL - FLOAT - FEE


async def test_one_that_never_landed_is_made_anew(tmp_path: Path) -> None:
    """Past its last block height it can't land: only then comes another."""
    async with a_world(tmp_path) as world:
        cold = Cold(world)
        made: list[Stuck] = []

        def stuck(real: Sender) -> Stuck:
            made.append(Stuck(cold.sender(real), world, "transfer", sent=False))
            return made[-1]

        async with cold.daemon(sender=stuck):
            await told(world)
            world.warp(601)
            await asyncio.wait_for(made[0].reached.wait(), PATIENCE_S)
        world.net.settle_slots(170)
        async with cold.daemon():
            await until(lambda: len(cold.booked()) == 2 and world.balance() == FLOAT)
            await until(lambda: cold.booked()[1].sent.outcome is not None)
        assert cold.lamports == 10 * SOL - FLOAT - FEE


async def test_another_address_is_announced_again(tmp_path: Path) -> None:
    """Whoever changes the setting doesn't get the money at once."""
    async with a_world(tmp_path) as world:
        first, second = Cold(world), Cold(world)
        async with first.daemon():
            await told(world)
        async with second.daemon():

            def is_told() -> bool:
                with closing(Journal(world.home / "journal.sqlite")) as journal:
                    return marks.mark(journal, coldstore.TOLD)["address"] == str(second.address)

            await until(is_told)
            assert (first.lamports, second.lamports) == (0, 0)


async def test_an_endpoint_that_is_behind_is_not_believed(tmp_path: Path) -> None:
    """It would show the balance of before the last transfer, and the float would go, too."""
    asked: list[int] = []

    class Behind:
        def __init__(self, real: Any) -> None:
            self._real = real

        async def balance(self, *, since_slot: int = 0) -> int:
            asked.append(since_slot)
            return int(await self._real.balance(since_slot=since_slot))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    async with a_world(tmp_path) as world:
        cold = Cold(world)
        async with cold.daemon(chain=Behind):
            await told(world)
            world.warp(601)
            await until(lambda: world.balance() == FLOAT)
            await until(lambda: cold.booked()[0].sent.outcome is not None)
            (booked,) = cold.booked()
            assert booked.sent.outcome is not None
            slot = booked.sent.outcome.slot
            await until(lambda: slot in asked)
        later = world.net.ledger.current.number + 10**6
        with pytest.raises(RpcError, match="Minimum context slot"):
            await world.net.chain.balance(since_slot=later)


# The guard


def to(address: Pubkey, lamports: int) -> Action:
    return Action(ActionKind.TRANSFER, NO_ROUND, to=str(address), lamports=lamports)


async def test_the_guard_signs_no_other_transfer() -> None:
    """Another address, more than exceeds the float, none set, a token account: all refused."""
    async with local_chain() as net:
        cold, thief = Keypair().pubkey(), Keypair().pubkey()

        def sender(store: ColdStore | None, floor: int = 0) -> SolanaSender:
            guard = Guard(net.rpc, net.wallet, ceilings=Ceilings(floor=floor, cold=store))
            found = Generation(net.rpc, net.wallet.pubkey, setting=net.generation)
            return SolanaSender(net.rpc, net.wallet, found, guard=guard, pace=FAST)

        mine = sender(ColdStore(str(cold), FLOAT))
        most = 10 * SOL - FLOAT - FEE
        for who, action, words in (
            (mine, to(thief, SOL), "isn't the cold address"),
            (mine, to(cold, 0), "nothing"),
            (mine, to(cold, most + 1), "sweep_above keeps"),
            (sender(ColdStore(str(cold), FLOAT), 9 * SOL), to(cold, SOL), "sweep_above keeps"),
            (sender(None), to(cold, SOL), "isn't the cold address"),
            (sender(ColdStore(net.wallet.pubkey, FLOAT)), to(net.trainer.pubkey(), SOL), "isn't"),
        ):
            with pytest.raises(SpendingRefused, match=words):
                await who.prepare(action)
        instruction = transfer(
            TransferParams(from_pubkey=net.trainer.pubkey(), to_pubkey=thief, lamports=SOL)
        )
        with pytest.raises(SpendingRefused, match="something else"):
            await mine._guard.sign(to(cold, SOL), [instruction])
        vault, _ = v1.vault_address(7)
        with pytest.raises(SpendingRefused, match="nobody can have a key"):
            await sender(ColdStore(str(vault), FLOAT)).prepare(to(vault, SOL))
        net.ledger.airdrop(vault, SOL)
        net.settle_slots()
        await sender(ColdStore(str(vault), FLOAT)).prepare(to(vault, SOL))
        await mine.prepare(to(cold, most))
        owned = Account(SOL, bytes(165), v1.PROGRAM_ID, False, 0)
        net.ledger.set_account(cold, owned)
        net.settle_slots()
        with pytest.raises(SpendingRefused, match="belongs to the program"):
            await mine.prepare(to(cold, SOL))


async def test_a_join_that_was_just_signed_is_counted() -> None:
    """The balance doesn't show it yet, and the float must still be there after it."""
    async with local_chain() as net:
        cold = Keypair().pubkey()
        guard = Guard(net.rpc, net.wallet, ceilings=Ceilings(cold=ColdStore(str(cold), FLOAT)))
        found = Generation(net.rpc, net.wallet.pubkey, setting=net.generation)
        sender = SolanaSender(net.rpc, net.wallet, found, guard=guard, pace=FAST)
        await sender.prepare(Action(ActionKind.JOIN, net.open_round()))
        with pytest.raises(SpendingRefused, match="sweep_above keeps"):
            await sender.prepare(to(cold, 10 * SOL - FLOAT - FEE))
        await sender.prepare(to(cold, 10 * SOL - FLOAT - 2 * FEE - RENT))


def test_a_journal_of_the_first_version_is_migrated(tmp_path: Path) -> None:
    """It gets the table for transfers and keeps what it has."""
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE transfers")
        db.execute("INSERT INTO marks VALUES ('kept', '1')")
        db.execute("PRAGMA user_version = 1")
    db.close()
    journal = Journal(path)
    assert transfers.transfers(journal) == []
    assert marks.mark(journal, "kept") == 1
    assert transfers.under_way(journal, RowKey("g", "p", "w", NO_ROUND)) is None
    journal.close()


def test_less_than_is_worth_it_stays() -> None:
    """The float and the fee are left, and amounts below 0.001 SOL aren't sent."""
    assert coldstore.excess_lamports(FLOAT + 1_005_000, FLOAT, FEE) == 1_000_000
    assert coldstore.excess_lamports(FLOAT + 1_004_999, FLOAT, FEE) == 0
    assert coldstore.excess_lamports(0, FLOAT, FEE) == 0
