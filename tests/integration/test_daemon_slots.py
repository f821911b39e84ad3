"""Slots are held by work, and by nothing else; what isn't taken says why."""

from __future__ import annotations

import asyncio
from pathlib import Path

from daemonworld import World, a_world, hang
from localchain import PATIENCE_S, SOL, until
from processes import processes_in
from solders.system_program import TransferParams, transfer

from decloud_trainer.rounds import intents
from decloud_trainer.rounds.entry import State
from decloud_trainer.rounds.model import RoundStatus


async def test_a_cancelled_round_frees_its_slot(tmp_path: Path) -> None:
    """The validator gives up a round that we have joined: it is lost, the next one is taken."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        first = world.open()
        await running.until(first, State.JOINED)
        second = world.open()
        await running.until_reason(second, "all 1 slots are busy")
        world.abort(first)
        entry = await running.until(first, State.LOST)
        assert "Cancelled" in entry.reason
        await running.until(second, State.JOINED)
        assert world.transactions() == {"JoinRound": 2}


async def test_a_round_that_nobody_validates_is_let_go(tmp_path: Path) -> None:
    """Its time is over: nothing was spent on it."""
    async with a_world(tmp_path, validator_s=60) as world, world.daemon() as running:
        first = world.post()
        await running.until(first, State.FETCHED)
        world.warp(61)
        world.take_back(first)
        entry = await running.until(first, State.SKIPPED)
        assert entry.reason == "can't be joined any more: Expired"
        assert world.transactions() == {}


async def test_a_round_without_a_validator_holds_no_slot_against_others(tmp_path: Path) -> None:
    """What can be joined now goes first; when its validator comes too late, it is skipped."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        waiting = world.post()
        await running.until(waiting, State.FETCHED)
        ready = world.open()
        await running.until(ready, State.JOINED)
        world.take(waiting)
        entry = await running.until(waiting, State.SKIPPED)
        assert entry.reason == "all 1 slots are busy"
        assert world.transactions() == {"JoinRound": 1}


async def test_a_late_validator_holds_up_no_slot(tmp_path: Path) -> None:
    """Long after the join deadline another round is taken; the late one is still finished."""
    async with a_world(tmp_path, join_s=60) as world, world.daemon() as running:
        late = world.open()
        await running.until(late, State.JOINED)
        second = world.open()
        await running.until_reason(second, "all 1 slots are busy")
        world.warp(60 + 901)
        await running.until_reason(late, "the validator is late")
        third = world.open()
        await running.until(third, State.JOINED)
        world.net.start_training(late)
        await running.until(late, State.SUBMITTED)


async def test_a_training_ends_with_its_round(tmp_path: Path) -> None:
    """A round that is given up during the training stops the child and frees the slot."""
    script = {"train": {"seconds": 60}}
    async with a_world(tmp_path) as world, world.daemon(script=script) as running:
        first = world.open()
        await running.until(first, State.JOINED)
        second = world.open()
        world.net.start_training(first)
        await until(lambda: any(told.kind == "train" for told in running.progress))
        (job,) = running.jobs_of(first, "train")
        assert processes_in(world.home / "jobs" / job)
        world.abort(first)
        await running.until(first, State.LOST)
        await running.until(second, State.JOINED)
        await until(lambda: not processes_in(world.home / "jobs" / job))


async def test_a_round_that_passed_training_between_two_looks_is_let_go(tmp_path: Path) -> None:
    """The daemon was away while the others trained: lost, and the slot is free."""
    async with a_world(tmp_path) as world:
        other = world.another_trainer()
        async with world.daemon(steps={State.JOINED: hang}) as running:
            number = world.open()
            world.join_as(other, number)
            await running.until(number, State.JOINED)
        world.net.start_training(number)
        world.submit_as(other, number)
        world.warp(3601)
        world.take_back(number)
        world.net.settle_slots()
        async with world.daemon() as running:
            entry = await running.until(number, State.LOST)
            assert "Validating" in entry.reason
            second = world.open()
            await running.until(second, State.JOINED)


async def test_a_failed_training_frees_its_slot(tmp_path: Path) -> None:
    """It is final, says why, and the next round is joined."""
    script = {"train": {"fail": "Diverged"}}
    async with a_world(tmp_path) as world, world.daemon(script=script) as running:
        first = world.open()
        await running.until(first, State.JOINED)
        second = world.open()
        world.net.start_training(first)
        entry = await running.until(first, State.FAILED)
        assert "scripted failure: Diverged" in entry.reason
        assert [told for told in running.told if told.problem]
        await running.until(second, State.JOINED)


async def test_a_crashing_inspection_is_tried_so_often_and_no_more(tmp_path: Path) -> None:
    """A worker that can't run ends the round here, not in a loop; later rounds are tried."""
    script = {"inspect": {"crash_attempts": 99}}
    async with a_world(tmp_path) as world, world.daemon(script=script) as running:
        number = world.open()
        entry = await running.until(number, State.SKIPPED)
        assert "can't be trained here: the worker ended without a result" in entry.reason
        await asyncio.sleep(0.5)
        assert len(running.jobs_of(number, "inspect")) == 1
        assert await running.history(number) == ["seen", "watching", "skipped"]


async def test_a_restart_gives_refused_rounds_another_chance(tmp_path: Path) -> None:
    """What made a round untrainable may have been mended: settings, data, the installation."""
    async with a_world(tmp_path) as world:
        async with world.daemon(script={"inspect": {"fail": "UnknownArchitecture"}}) as running:
            number = world.open()
            await running.until(number, State.SKIPPED)
        async with world.daemon() as running:
            await running.until(number, State.JOINED)


async def test_an_untrainable_dataset_is_skipped_with_its_reason(tmp_path: Path) -> None:
    """Nothing is fetched or spent for what can't be trained here."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        number = world.open(dataset_index=6)
        entry = await running.until(number, State.SKIPPED)
        assert entry.reason.startswith("Dataset not found: Food101")
        assert running.jobs_of(number, "prepare") == []


async def test_data_of_another_kind_than_the_model_takes_is_skipped(tmp_path: Path) -> None:
    """Texts for a network of images: known before anything is paid."""
    async with a_world(tmp_path) as world:
        script = {"prepare": {"data": {"modality": "text"}}}
        async with world.daemon(script=script) as running:
            number = world.open()
            entry = await running.until(number, State.SKIPPED)
            assert entry.reason.endswith("digits is text data, the model takes image data")


async def test_a_poor_wallet_skips_until_there_is_money(tmp_path: Path) -> None:
    """The numbers are named; after an airdrop the round is taken."""
    async with a_world(tmp_path) as world:
        spend_all_but(world, 2_600_000)
        async with world.daemon() as running:
            number = world.open()
            entry = await running.until(number, State.SKIPPED)
            assert "the wallet holds 0.0026 SOL, taking part needs 0.00174804 SOL" in entry.reason
            world.net.ledger.airdrop(world.net.trainer.pubkey(), SOL)
            world.warp(31)
            await running.until(number, State.JOINED)


def spend_all_but(world: World, lamports: int) -> None:
    net = world.net
    me, to = net.trainer.pubkey(), net.creator.pubkey()
    amount = world.balance() - lamports - 5000
    net.run(transfer(TransferParams(from_pubkey=me, to_pubkey=to, lamports=amount)), net.trainer)


async def test_three_rounds_at_once_take_two_slots(tmp_path: Path) -> None:
    """Never more than the setting, and the third follows when one is submitted."""
    async with a_world(tmp_path) as world:
        terms = {"max_concurrent_rounds": 2}
        async with world.daemon(terms=terms) as running:
            rounds = [world.open() for _ in range(3)]
            await until(lambda: world.transactions()["JoinRound"] == 2)
            await asyncio.sleep(0.3)
            states = {n: (await running.entry(n)).state for n in rounds}  # type: ignore[union-attr]
            assert sorted(s.value for s in states.values()) == ["joined", "joined", "skipped"]
            done = next(n for n in rounds if states[n] is State.JOINED)
            world.net.start_training(done)
            await running.until(done, State.SUBMITTED)
            (last,) = (n for n in rounds if states[n] is State.SKIPPED)
            await running.until(last, State.JOINED)


async def test_a_full_round_is_left_after_one_refusal(tmp_path: Path) -> None:
    """The program knows how many may join; its refusal costs nothing and isn't asked for twice."""
    async with a_world(tmp_path, max_trainers=1) as world, world.daemon() as running:
        other = world.another_trainer()
        number = world.open()
        world.join_as(other, number)
        entry = await running.until(number, State.SKIPPED)
        assert "the join was refused" in entry.reason
        await asyncio.sleep(0.5)
        assert len(await running.engine.parts.journal(intents.sent, entry)) == 1
        assert world.transactions() == {}


async def test_slow_machines_join_nothing_they_cannot_finish(tmp_path: Path) -> None:
    """The speed is measured before the join, and the time is what a round is expected to leave."""
    script = {"inspect": {"samples_per_s": 0.1}}
    async with a_world(tmp_path) as world, world.daemon(script=script) as running:
        number = world.open()
        entry = await running.until(number, State.SKIPPED)
        assert "training would take about 13470 s here, more than the 3600 s" in entry.reason
        assert world.transactions() == {}


async def test_what_is_refused_for_good_asks_the_chain_nothing(tmp_path: Path) -> None:
    """Rounds outside of the filters cost no calls, however often they change."""
    calls: list[int] = []

    class Counting:
        def __init__(self, real: object) -> None:
            self._real = real

        async def round(self, number: int) -> object:
            calls.append(number)
            return await self._real.round(number)  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    terms = {"datasets": frozenset({"mnist"})}
    async with a_world(tmp_path) as world, world.daemon(terms=terms, chain=Counting) as running:
        number = world.post()
        entry = await running.until(number, State.SKIPPED)
        assert entry.reason == "dataset Custom isn't among the accepted ones"
        world.take(number)
        async with asyncio.timeout(PATIENCE_S):
            while entry.round is None or entry.round.status is RoundStatus.WAITING_VALIDATOR:
                await asyncio.sleep(0.02)
                entry = await running.until(number, State.SKIPPED)
        await asyncio.sleep(0.2)
        assert calls == []
