"""The ways out: time-outs by check_round, cancel, abort; each refunds the creator once."""

from __future__ import annotations

import pytest
from program_world import (
    CID,
    SOL,
    START,
    World,
    le8,
    round_address,
    string,
    vault_address,
)

from decloud_trainer.localnet.program.image import Params


@pytest.fixture(params=["v1.0", "v1.2"])
def world(request: pytest.FixtureRequest) -> World:
    """Deadlines are the same in both generations."""
    return World(request.param)


def refunded(world: World, before: int) -> bool:
    return world.balance(world.creator) - before == SOL and not world.balance(vault_address(0))


def check_expires(world: World, seconds: int, reason: int, text: str) -> None:
    """Nothing happens at the deadline; one second later the round expires; then nothing again."""
    before, stored = world.balance(world.creator), world.data(round_address(0))
    world.now += seconds
    quiet = world.must("check_round")
    assert (quiet.events, quiet.lines) == ([], [])
    assert world.data(round_address(0)) == stored
    world.now += 1
    outcome = world.must("check_round")
    assert outcome.events == [("RoundExpired", 0, reason, SOL)]
    assert outcome.lines == [f"Round 0 expired ({text}). Refunded {SOL} lamports"]
    assert world.round().status == 5
    assert refunded(world, before)
    again = world.must("check_round")
    assert (again.events, again.lines) == ([], [])
    assert refunded(world, before)


def test_nobody_validates(world: World) -> None:
    """NoValidator after the validators' deadline."""
    check_expires(world.waiting_validator(), 3600, 0, "NoValidator")


def test_nobody_joins(world: World) -> None:
    """NoTrainers after the join deadline."""
    check_expires(world.waiting_trainers(), 600, 1, "NoTrainers")


def test_nobody_submits(world: World) -> None:
    """NoSubmissions after the submit deadline."""
    check_expires(world.training(), 3600, 2, "NoSubmissions")


def test_nobody_completes(world: World) -> None:
    """A validator that never finishes: the creator is refunded, for want of a better reason
    with NoSubmissions."""
    check_expires(world.validating(), 3600, 2, "NoSubmissions")


def test_joined_rounds_wait_for_their_validator(world: World) -> None:
    """With a trainer in it, the round doesn't expire at the join deadline."""
    world.waiting_trainers().must("join_round")
    world.now += 10_000
    assert world.must("check_round").events == []
    assert world.round().status == 1
    world.must("start_training", le8(0) + bytes(4))


def test_some_submissions_are_enough(world: World) -> None:
    """After the submit deadline the round goes on to validation with those who made it."""
    other = world.wallet()
    world.training(world.trainer, other)
    world.must("submit_gradients", le8(0) + string(CID))
    world.now += 3601
    outcome = world.must("check_round")
    assert outcome.events == [("TrainingEnded", 0, 1)]
    assert outcome.lines == ["Training ended for round 0. Submissions: 1"]
    state = world.round()
    assert (state.status, state.trainers, state.submissions) == (3, 2, 1)
    assert state.validation_deadline == START + 3601 + 3600
    assert world.call("submit_gradients", le8(0) + string(CID), trainer=other).code == 6011


@pytest.mark.parametrize(
    "station", ["waiting_validator", "waiting_trainers", "training", "validating", "completed"]
)
def test_a_check_in_time_changes_nothing(station: str) -> None:
    """Anyone may call it at any moment of a round."""
    world = getattr(World(), station)()
    before = world.data(round_address(0))
    assert world.must("check_round").events == []
    assert world.data(round_address(0)) == before


def test_a_completed_round_never_expires(world: World) -> None:
    """Rewards may be claimed at any later time."""
    world.completed()
    world.now += 10**8
    assert world.must("check_round").events == []
    world.must("claim_reward")


def test_cancel_refunds_the_creator(world: World) -> None:
    """As long as no validator has claimed the round, deadline or not."""
    world.waiting_validator()
    world.now += 9_999
    before = world.balance(world.creator)
    outcome = world.must("cancel_round")
    assert outcome.events == [("RoundCancelled", 0)]
    assert outcome.lines == [f"Round 0 cancelled. Refunded {SOL} lamports"]
    assert world.round().status == 6
    assert refunded(world, before)
    assert world.call("claim_round").code == 6004


@pytest.mark.parametrize("station", ["waiting_trainers", "training", "validating"])
def test_abort_refunds_the_creator(station: str) -> None:
    """The validator gives a round back at any stage before completion."""
    world = getattr(World(), station)()
    before = world.balance(world.creator)
    outcome = world.must("abort_round")
    key = world.validator.pubkey()
    assert outcome.events == [("RoundAborted", 0, key, SOL)]
    assert outcome.lines == [f"Round 0 aborted by validator {key}. Refunded {SOL} lamports"]
    assert world.round().status == 6
    assert refunded(world, before)


def test_a_round_in_seconds() -> None:
    """Short durations, as tests of the network use them, expire in as many seconds."""
    world = World(params=Params(validator_s=1, join_s=1, submit_s=1, validation_s=1))
    world.training()
    world.now += 2
    assert world.must("check_round").events == [("RoundExpired", 0, 2, SOL)]
