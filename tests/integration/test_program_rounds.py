"""Every instruction of the program does what the contract says, to the byte."""

from __future__ import annotations

import struct

import pytest
from program_world import (
    CID,
    CID_V0,
    PROGRAM,
    SOL,
    START,
    TREASURY,
    World,
    counter_address,
    le8,
    round_address,
    string,
    submission_address,
    vault_address,
)
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from decloud_trainer.localnet.program.image import Params

ZERO = Pubkey.default()


@pytest.fixture
def world() -> World:
    return World()


def test_the_published_addresses_are_used() -> None:
    """Addresses of the contract's test vectors."""
    assert str(counter_address()) == "ALmune6fB173KqtLpGAiGPnQsPWK3voHdvd6KmeL2mgu"
    assert str(round_address(42)) == "2KPP2Xs4tmZ6iNe37oj26EjhUs7bPYzjL61gAcoe4EpU"
    assert str(vault_address(42)) == "BwFLVaSnBWWtmwWhbxu7hMZoqLv2BVc6JaJo6kaMtDAA"
    trainer = Pubkey.from_bytes(bytes(range(1, 33)))
    assert str(submission_address(42, trainer)) == "6JTibHkJFEYn4exWAAuPe3j6yHcBH6WawuSjKxVGJ1M1"


def test_initialize_creates_the_counter(world: World) -> None:
    """49 bytes: count 0, the signer as authority, the canonical bump; rent-exempt, ours."""
    before = world.balance(world.authority)
    outcome = world.must("initialize")
    account = world.svm.get_account(counter_address())
    assert account is not None
    assert account.owner == PROGRAM
    assert bytes(account.data) == (
        bytes.fromhex("f402a5f0a80a01ee") + le8(0) + bytes(world.authority.pubkey()) + bytes([253])
    )
    assert account.lamports == (128 + 49) * 6960 == before - world.balance(world.authority)
    assert "Program log: Instruction: Initialize" in outcome.logs


def test_create_round_stores_the_round_and_moves_the_reward(world: World) -> None:
    """The creator pays reward and rent; the counter goes up; event and line tell all fields."""
    world.must("initialize")
    before = world.balance(world.creator)
    outcome = world.create(reward=50_000_000, dataset=3)
    assert outcome.ok
    state = world.round()
    assert (state.id, state.creator, state.cid) == (0, world.creator.pubkey(), CID)
    assert (state.dataset, state.reward, state.status) == (3, 50_000_000, 0)
    assert (state.validator, state.fee_bps, state.baseline) == (ZERO, 1000, 0)
    assert (state.created_at, state.validator_deadline) == (START, START + 3600)
    assert (state.join_deadline, state.submit_deadline) == (0, 0)
    assert (state.trainers, state.submissions) == (0, 0)
    assert state.bump == Pubkey.find_program_address([b"round", le8(0)], PROGRAM)[1]
    assert state.vault_bump == Pubkey.find_program_address([b"vault", le8(0)], PROGRAM)[1]
    assert (state.fee_taken, state.validation_deadline) == (False, 0)
    rent = (128 + 208) * 6960
    assert world.balance(round_address(0)) == rent
    assert world.balance(vault_address(0)) == 50_000_000
    assert before - world.balance(world.creator) == 50_000_000 + rent
    assert world.data(counter_address())[8:16] == le8(1)
    assert outcome.events == [
        ("RoundCreated", 0, world.creator.pubkey(), CID, 3, 50_000_000, START + 3600)
    ]
    assert outcome.lines == [
        f"Round 0 created. Model: {CID}, Dataset: FashionMnist, Reward: 50000000 lamports"
    ]


def test_ids_follow_the_counter(world: World) -> None:
    """The second round has id 1, and each round has a vault of its own."""
    world.waiting_validator()
    assert world.create(reward=2 * SOL, cid=CID_V0, round_id=1).ok
    assert world.round(1).cid == CID_V0
    assert world.balance(vault_address(0)) == SOL
    assert world.balance(vault_address(1)) == 2 * SOL


@pytest.mark.parametrize("size", [46, 64])
def test_a_cid_of_any_allowed_length_fits(world: World, size: int) -> None:
    """The shortest and the longest CID go through a round from creation to claim."""
    cid = "Q" * size
    world.must("initialize")
    assert world.create(cid=cid).ok
    world.must("claim_round")
    world.must("join_round")
    world.must("start_training", le8(0) + bytes(4))
    world.must("submit_gradients", le8(0) + string(cid))
    assert world.set_bps(10_000).ok
    world.must("complete_validation")
    world.must("claim_reward")
    assert (world.round().cid, world.submission().cid) == (cid, cid)


@pytest.mark.parametrize(
    ("index", "name"), [(0, "Cifar10"), (50, "SpeechCommands"), (98, "Custom")]
)
def test_the_log_line_names_the_dataset(world: World, index: int, name: str) -> None:
    """Validators that read only log lines learn the dataset's variant name."""
    world.must("initialize")
    assert f", Dataset: {name}, Reward:" in world.create(dataset=index).lines[0]


def test_claim_round_binds_the_validator(world: World) -> None:
    """The signer becomes the round's validator and the join window opens."""
    world.waiting_validator()
    world.now += 3600  # the last second that counts
    outcome = world.must("claim_round")
    state = world.round()
    key = world.validator.pubkey()
    assert (state.status, state.validator) == (1, key)
    assert state.join_deadline == START + 3600 + 600
    assert outcome.events == [("ValidatorClaimed", 0, key, START + 4200)]
    assert outcome.lines == [f"Round 0 claimed by validator {key}. Join deadline: {START + 4200}"]


def test_join_round_creates_a_submission(world: World) -> None:
    """121 bytes, empty, paid by the trainer: 1,733,040 lamports."""
    world.waiting_trainers()
    world.now += 600
    before = world.balance(world.trainer)
    outcome = world.must("join_round")
    key = world.trainer.pubkey()
    state = world.submission()
    assert (state.round_id, state.trainer, state.cid) == (0, key, "")
    assert (state.submitted, state.bps, state.claimed) == (False, 0, False)
    bump = Pubkey.find_program_address([b"submission", le8(0), bytes(key)], PROGRAM)[1]
    assert state.bump == bump
    assert before - world.balance(world.trainer) == 1_733_040
    assert world.balance(submission_address(0, key)) == 1_733_040
    assert (world.round().trainers, world.round().status) == (1, 1)
    assert outcome.events == [("TrainerJoined", 0, key, 1)]
    assert outcome.lines == [f"Trainer {key} joined round 0. Total trainers: 1"]


def test_start_training_stores_the_baseline(world: World) -> None:
    """It needs no deadline to have passed: one trainer is enough."""
    world.waiting_trainers().must("join_round")
    outcome = world.must("start_training", le8(0) + struct.pack("<I", 4_000_000_000))
    state = world.round()
    assert (state.status, state.baseline) == (2, 4_000_000_000)
    assert state.submit_deadline == START + 3600
    assert outcome.events == [("TrainingStarted", 0, 4_000_000_000, START + 3600, 1)]
    assert outcome.lines == [
        f"Training started for round 0. Baseline: 4000000000, Submit deadline: {START + 3600}"
    ]


def test_the_last_submission_starts_validation(world: World) -> None:
    """Until then the round stays in training; with it, TrainingEnded and the other line."""
    other = world.wallet()
    world.training(world.trainer, other)
    world.now += 3600
    first = world.must("submit_gradients", le8(0) + string(CID))
    key = world.trainer.pubkey()
    assert first.events == [("GradientsSubmitted", 0, key, CID, 1)]
    assert first.lines == [f"Trainer {key} submitted gradients for round 0. CID: {CID}"]
    assert world.round().status == 2
    assert (world.submission().cid, world.submission().submitted) == (CID, True)

    last = world.must("submit_gradients", le8(0) + string(CID_V0), trainer=other)
    assert last.events == [
        ("GradientsSubmitted", 0, other.pubkey(), CID_V0, 2),
        ("TrainingEnded", 0, 2),
    ]
    assert last.lines == [
        f"Trainer {other.pubkey()} submitted gradients for round 0. CID: {CID_V0}",
        "All 2 trainers submitted. Moving to validation.",
    ]
    state = world.round()
    assert (state.status, state.submissions) == (3, 2)
    assert state.validation_deadline == START + 3600 + 3600
    assert world.submission(other).cid == CID_V0


def test_set_contribution_changes_only_the_submission(world: World) -> None:
    """The value is stored as given and may be set again."""
    world.validating()
    before = world.data(round_address(0))
    outcome = world.set_bps(9_999)
    assert (outcome.ok, outcome.events, outcome.lines) == (True, [], [])
    assert world.submission().bps == 9_999
    assert world.set_bps(1).ok
    assert world.submission().bps == 1
    assert world.data(round_address(0)) == before


def test_complete_validation_pays_the_validator(world: World) -> None:
    """10 % of the reward less the platform's 2 % of it; the fee counts as claimed."""
    world.validating()
    before = world.balance(world.validator)
    outcome = world.must("complete_validation")
    key = world.validator.pubkey()
    assert (world.round().status, world.round().fee_taken) == (4, True)
    assert world.balance(world.validator) - before == 98_000_000
    assert outcome.events == [
        ("ValidationCompleted", 0),
        ("ValidatorFeeClaimed", 0, key, 100_000_000, 2_000_000, 0),
    ]
    assert outcome.lines == [
        "Round 0 validation completed",
        f"Validator {key} claimed 100000000 lamports fee from round 0",
    ]


def test_finalize_round_is_the_other_way_to_complete(world: World) -> None:
    """No money moves; the event carries the results; the fee is claimed by a call of its own."""
    other = world.wallet()
    world.validating(world.trainer, other)
    for trainer, bps in ((world.trainer, 6000), (other, 4000)):
        assert world.set_bps(bps, trainer).ok
    a, b = world.trainer.pubkey(), other.pubkey()
    results = struct.pack("<I32sH32sH", 2, bytes(a), 6000, bytes(b), 4000)
    outcome = world.must("finalize_round", le8(0) + results)
    assert outcome.events == [
        ("RoundFinalized", 0, 100_000_000, 900_000_000, [(a, 6000), (b, 4000)])
    ]
    assert outcome.lines[0].startswith("Round 0 validation completed")
    assert (world.round().status, world.round().fee_taken) == (4, False)
    assert world.balance(vault_address(0)) == SOL

    before = world.balance(world.validator)
    claimed = world.must("claim_validator_fee")
    assert world.balance(world.validator) - before == 98_000_000
    key = world.validator.pubkey()
    assert claimed.events == [("ValidatorFeeClaimed", 0, key, 100_000_000, 2_000_000, 0)]
    assert claimed.lines == [f"Validator {key} claimed 100000000 lamports fee from round 0"]
    assert world.round().fee_taken

    world.must("claim_reward")
    world.must("claim_reward", trainer=other)
    assert world.balance(vault_address(0)) == 0


def test_finalize_round_takes_ten_results(world: World) -> None:
    """A full round's results fit in one transaction."""
    world.validating()
    keys = [Pubkey.new_unique() for _ in range(10)]
    rows = b"".join(struct.pack("<32sH", bytes(key), 1000) for key in keys)
    outcome = world.must("finalize_round", le8(0) + struct.pack("<I", 10) + rows)
    assert outcome.events[0][4] == [(key, 1000) for key in keys]


def test_claim_reward_pays_the_trainer(world: World) -> None:
    """The whole pool less 2 %; the submission is marked; the round may be read-only."""
    world.completed()
    before, treasury = world.balance(world.trainer), world.balance(TREASURY)
    outcome = world.must("claim_reward")
    key = world.trainer.pubkey()
    assert world.balance(world.trainer) - before == 882_000_000
    assert world.balance(TREASURY) - treasury == 18_000_000
    assert world.balance(vault_address(0)) == 0
    assert world.submission().claimed
    assert outcome.events == [("RewardClaimed", 0, key, 900_000_000, 18_000_000, 0)]
    assert outcome.lines == [f"Trainer {key} claimed 900000000 lamports from round 0"]


def test_start_parameters_take_effect() -> None:
    """Durations, fee and crowd come from the patched block, in both generations."""
    params = Params(
        validator_s=11, join_s=12, submit_s=13, validation_s=14, fee_bps=250, max_trainers=2
    )
    for generation in ("v1.0", "v1.2"):
        world = World(generation, params)
        other = world.wallet()
        world.validating(world.trainer, other)
        state = world.round()
        assert state.validator_deadline == START + 11
        assert state.join_deadline == START + 12
        assert state.submit_deadline == START + 13
        assert state.validation_deadline == START + 14
        assert state.fee_bps == 250


def test_v1_0_has_the_shorter_lists_and_events() -> None:
    """No treasury, no referrer, no platform fee; both payout events end after the amount."""
    world = World("v1.0").validating()
    assert world.set_bps(10_000).ok
    validator, trainer = world.validator.pubkey(), world.trainer.pubkey()
    before = world.balance(validator), world.balance(trainer), world.balance(TREASURY)
    completed = world.must("complete_validation")
    claimed = world.must("claim_reward")
    assert completed.events[1] == ("ValidatorFeeClaimed", 0, validator, 100_000_000)
    assert claimed.events == [("RewardClaimed", 0, trainer, 900_000_000)]
    after = world.balance(validator), world.balance(trainer), world.balance(TREASURY)
    assert [b - a for a, b in zip(before, after, strict=True)] == [100_000_000, 900_000_000, 0]


def test_v1_0_knows_no_abort() -> None:
    """The instruction came with v1.2."""
    assert World("v1.0").waiting_trainers().call("abort_round").code == 101


def test_account_lists_of_the_wrong_generation_fail() -> None:
    """A v1.0 claim lacks two accounts for v1.2; a v1.2 claim has a stranger where v1.0 wants
    the trainer's signature."""
    new, old = World("v1.2").completed(), World("v1.0").completed()
    new.generation, old.generation = "v1.0", "v1.2"
    assert new.call("claim_reward").code == 3005
    assert old.call("claim_reward").code == 3010


def test_keys_with_leading_zeros_are_printed_right(world: World) -> None:
    """Base58 in log lines: one leading 1 for each leading zero byte."""
    seeds = (number.to_bytes(32, "little") for number in range(100_000))
    key = next(k for k in map(Keypair.from_seed, seeds) if bytes(k.pubkey())[0] == 0)
    world.svm.airdrop(key.pubkey(), SOL)
    world.waiting_trainers()
    outcome = world.must("join_round", trainer=key)
    assert str(key.pubkey()).startswith("1")
    assert outcome.lines == [f"Trainer {key.pubkey()} joined round 0. Total trainers: 1"]


def test_a_log_to_the_letter(world: World) -> None:
    """What a log subscriber reads for a claim, with fixed keys."""
    world.validator = Keypair.from_seed(bytes([7]) * 32)
    world.svm.airdrop(world.validator.pubkey(), SOL)
    world.waiting_validator()
    logs = world.must("claim_round").logs
    event = "kGfwwZe37z0AAAAAAAAAAOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIsWHrnaAAAAAA="
    key = "GmaDrppBC7P5ARKV8g3djiwP89vz1jLK23V2GBjuAEGB"
    assert logs[:4] == [
        "Program HvQ8c3BBCsibJpH74UDXbvqEidJymzFYyGjNjRn7MYwC invoke [1]",
        "Program log: Instruction: ClaimRound",
        f"Program log: Round 0 claimed by validator {key}. Join deadline: 1760000600",
        f"Program data: {event}",
    ]


def test_a_round_costs_little_compute(world: World) -> None:
    """Every call stays far below the 200,000 units that a transaction has without asking."""
    world.must("initialize")
    units = [world.create().units, world.must("claim_round").units, world.must("join_round").units]
    units.append(world.must("start_training", le8(0) + bytes(4)).units)
    units.append(world.must("submit_gradients", le8(0) + string(CID)).units)
    assert world.set_bps(10_000).ok
    referrer = world.wallet()
    units.append(world.must("complete_validation", referrer=referrer.pubkey()).units)
    units.append(world.must("claim_reward", referrer=referrer.pubkey()).units)
    assert max(units) < 60_000
