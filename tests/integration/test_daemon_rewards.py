"""No reward is lost: not by an empty home, an old answer, a refusal, or another machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from daemonworld import OldAnswers, Running, World, a_world, ask
from localchain import FEE, RENT, SOL, until

from decloud_trainer.chain import lifecycle, v1
from decloud_trainer.rounds.entry import State
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import Round, RoundStatus, Submission

ALL = {"JoinRound": 1, "SubmitGradients": 1, "ClaimReward": 1}


async def train_elsewhere(world: World, *, submit: bool = True) -> int:
    """A round that the wallet has joined on another machine, and perhaps submitted to."""
    number = world.open()
    world.join_as(world.net.trainer, number)
    world.net.start_training(number)
    if submit:
        world.submit_as(world.net.trainer, number)
    world.net.settle_slots()
    return number


async def test_rewards_of_a_lost_home_are_found_and_claimed(tmp_path: Path) -> None:
    """An empty journal asks the chain for all submissions of the wallet, however old."""
    async with a_world(tmp_path) as world:
        numbers = [await train_elsewhere(world) for _ in range(2)]
        for number in numbers:
            world.complete(number)
        world.net.settle_slots()
        async with world.daemon() as running:
            for number in numbers:
                await running.until(number, State.CLAIMED)
            assert world.transactions() == dict.fromkeys(ALL, 2)
            entry = await running.until(numbers[0], State.CLAIMED)
            assert entry.facts.adopted


async def test_a_share_that_an_old_answer_hides_is_not_given_up(tmp_path: Path) -> None:
    """A node that lags behind the completed round shows no share at first."""
    old = True

    def hide(found: Submission | None) -> Submission | None:
        return dataclasses.replace(found, contribution_bps=0) if found and old else found

    def lagging(real: Any) -> OldAnswers:
        chain = OldAnswers(real)
        chain.submission_now = hide
        return chain

    async with a_world(tmp_path) as world, world.daemon(chain=lagging) as running:
        number = await through_submission(world, running)
        world.complete(number)
        await running.until_reason(number, "the chain shows no share of ours: looking again")
        old = False
        world.warp(21)
        await running.until(number, State.CLAIMED)


async def through_submission(world: World, running: Running, **options: Any) -> int:
    number = world.open(**options)
    await running.until(number, State.JOINED)
    world.net.start_training(number)
    await running.until(number, State.SUBMITTED)
    return number


async def test_no_share_at_all_ends_the_round(tmp_path: Path) -> None:
    """After a second look it is believed, and costs no claim."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        number = await through_submission(world, running)
        world.complete(number, bps=0)
        await running.until_reason(number, "looking again")
        world.warp(21)
        entry = await running.until(number, State.LOST)
        assert entry.reason == "the validator gave our submission no share"
        assert entry.facts.contribution_bps == 0
        assert "ClaimReward" not in world.transactions()


async def test_a_round_given_up_too_early_is_taken_up_by_the_sweep(tmp_path: Path) -> None:
    """The journal says lost, the chain shows a share: the next start claims it."""
    async with a_world(tmp_path) as world:
        async with world.daemon() as running:
            number = await through_submission(world, running)
            entry = await running.until(number, State.SUBMITTED)
            journal = running.engine.parts.journal
            await journal(Journal.move, entry, State.LOST, "wrongly", entry.facts)
        world.complete(number)
        world.net.settle_slots()
        async with world.daemon() as running:
            await running.until(number, State.CLAIMED)
            assert world.transactions() == ALL


@pytest.mark.parametrize("stage", [State.TRAINED, State.PINNED])
async def test_an_old_status_does_not_end_a_round(tmp_path: Path, stage: State) -> None:
    """A node that still shows the round as waiting for trainers is waited for."""
    old = False

    def age(found: Round | None) -> Round | None:
        if found is None or not old:
            return found
        return dataclasses.replace(found, status=RoundStatus.WAITING_TRAINERS)

    def lagging(real: Any) -> OldAnswers:
        chain = OldAnswers(real)
        chain.round_now = age
        return chain

    async def begin_to_lag(parts: Any, entry: Any) -> Any:
        nonlocal old
        old = "old state" not in entry.reason
        return await lifecycle.V1.steps[stage](parts, entry)

    steps = {stage: begin_to_lag}
    async with (
        a_world(tmp_path) as world,
        world.daemon(chain=lagging, steps=steps) as running,
    ):
        number = world.open()
        await running.until(number, State.JOINED)
        world.net.start_training(number)
        entry = await running.until(number, State.SUBMITTED)
        events = await running.engine.parts.journal(Journal.events, entry)
        assert "the endpoint shows an old state of the round" in [one.text for one in events]


async def test_a_claim_that_would_leave_dust_is_tried_again(tmp_path: Path) -> None:
    """The vault may not end below its rent: once the others have claimed, ours goes through."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        other = world.another_trainer()
        world.net.ledger.airdrop(v1.TREASURY, SOL)  # so that small fees can reach it
        number = world.open(reward_lamports=1_900_000)
        await running.until_reason(number, "an equal share among 1 would pay")
        await ask(running, "join", number)
        await running.until(number, State.JOINED)
        world.join_as(other, number)
        world.net.start_training(number)
        await running.until(number, State.SUBMITTED)
        world.submit_as(other, number)
        world.net.complete(number, [(world.net.trainer, 6000), (other, 4000)])
        entry = await running.until_reason(number, "the claim was refused, trying again")
        assert "minimum balance" in entry.reason
        world.claim_as(other, number)
        world.warp(61)
        await running.until(number, State.CLAIMED)
        assert world.transactions() == ALL


async def test_rounds_joined_elsewhere_are_left_to_the_other_machine(tmp_path: Path) -> None:
    """They hold no slot, and are trained here only when their deadline is near."""
    async with a_world(tmp_path) as world:
        number = await train_elsewhere(world, submit=False)
        async with world.daemon() as running:
            entry = await running.until_reason(number, "joined elsewhere")
            assert entry.state is State.JOINED
            second = world.open()
            await running.until(second, State.JOINED)
            assert running.jobs_of(number, "train") == []
            world.warp(3600 - 500)
            await running.until(number, State.SUBMITTED)


async def test_a_round_joined_elsewhere_is_trained_on_request(tmp_path: Path) -> None:
    """The user knows that no other machine is at work on it."""
    async with a_world(tmp_path) as world:
        number = await train_elsewhere(world, submit=False)
        async with world.daemon() as running:
            await running.until_reason(number, "joined elsewhere")
            assert await ask(running, "train", number, epochs=2) == ("taken", "")
            entry = await running.until(number, State.SUBMITTED)
            assert entry.facts.epochs == 2


async def test_an_open_round_joined_elsewhere_is_adopted_however_it_is_found(
    tmp_path: Path,
) -> None:
    """The watch may tell of it before the sweep does: it isn't trained at once either way."""
    async with a_world(tmp_path) as world:
        number = world.open()
        world.join_as(world.net.trainer, number)
        world.net.settle_slots()
        async with world.daemon() as running:
            entry = await running.until(number, State.JOINED)
            assert entry.facts.adopted
            world.net.start_training(number)
            await running.until_reason(number, "`decloud-trainer train` or a near deadline")
            assert world.transactions()["JoinRound"] == 1


async def test_without_auto_claim_a_reward_waits_for_its_user(tmp_path: Path) -> None:
    """It is claimable, says how, and is claimed once asked for."""
    async with a_world(tmp_path) as world, world.daemon(terms={"auto_claim": False}) as running:
        number = await through_submission(world, running)
        world.complete(number)
        entry = await running.until_reason(number, "auto_claim is off")
        assert entry.state is State.CLAIMABLE
        assert await ask(running, "claim", number) == ("taken", "")
        await running.until(number, State.CLAIMED)
        assert world.balance() == 10 * SOL - RENT - 3 * FEE + SOL * 9 // 10 * 98 // 100


async def test_without_auto_train_a_joined_round_waits_for_its_user(tmp_path: Path) -> None:
    """It holds its slot, since its user wants to train it."""
    async with a_world(tmp_path) as world, world.daemon(terms={"auto_train": False}) as running:
        number = world.open()
        await running.until(number, State.JOINED)
        world.net.start_training(number)
        await running.until_reason(number, "auto_train is off")
        assert running.jobs_of(number, "train") == []
        assert await ask(running, "train", number) == ("taken", "")
        await running.until(number, State.SUBMITTED)


async def test_a_model_that_is_gone_is_fetched_again(tmp_path: Path) -> None:
    """What lies in the cache may vanish between the join and the training."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        number = world.open()
        await running.until(number, State.JOINED)
        for model in (world.home / "models").iterdir():
            model.write_bytes(b"damaged")
        world.net.start_training(number)
        await running.until(number, State.SUBMITTED)
        await until(lambda: world.transactions()["SubmitGradients"] == 1)
