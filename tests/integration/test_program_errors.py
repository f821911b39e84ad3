"""Every error code of the contract, where and as it is due, and refusals change nothing."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from program_world import (
    CID,
    INSTRUCTIONS,
    PROGRAM,
    SOL,
    START,
    SYSTEM,
    Outcome,
    World,
    counter_address,
    image,
    le8,
    round_address,
    string,
    submission_address,
    vault_address,
)
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from decloud_trainer.localnet.program.image import Params

Refusal = Callable[[World], Outcome]


def results(*shares: int) -> bytes:
    rows = b"".join(struct.pack("<32sH", bytes(Pubkey.new_unique()), bps) for bps in shares)
    return le8(0) + struct.pack("<I", len(shares)) + rows


def submit(world: World, cid: str = CID) -> Outcome:
    return world.call("submit_gradients", le8(0) + string(cid))


def late(world: World, seconds: int) -> World:
    world.now += seconds
    return world


def full(world: World) -> World:
    world.waiting_trainers()
    for _ in range(10):
        world.must("join_round", trainer=world.wallet())
    return world


def two_in_training(world: World) -> World:
    return world.training(world.trainer, world.wallet())


def started(world: World) -> World:
    world.must("initialize")
    return world


def stranger(world: World, name: str, args: bytes | None = None) -> Outcome:
    return world.call(name, args, validator=world.wallet())


def start(world: World) -> Outcome:
    return world.call("start_training", le8(0) + bytes(4))


# error number, name, how it comes about, in the order of the numbers
REFUSALS: list[tuple[int, str, Refusal]] = [
    (6000, "InvalidCid", lambda w: started(w).create(cid="Q" * 45)),
    (6000, "InvalidCid", lambda w: started(w).create(cid="Q" * 65)),
    (6000, "InvalidCid", lambda w: started(w).create(cid="")),
    (6000, "InvalidCid", lambda w: submit(w.training(), "Q" * 45)),
    (6000, "InvalidCid", lambda w: submit(w.training(), "Q" * 65)),
    (6001, "ZeroReward", lambda w: started(w).create(reward=0)),
    (6002, "InvalidRoundId", lambda w: started(w).create(round_id=1)),
    (6003, "CannotCancel", lambda w: w.waiting_trainers().call("cancel_round")),
    (6003, "CannotCancel", lambda w: w.completed().call("cancel_round")),
    (6004, "RoundNotWaitingValidator", lambda w: w.waiting_trainers().call("claim_round")),
    (
        *(6005, "ValidatorDeadlinePassed"),
        lambda w: late(w.waiting_validator(), 3601).call("claim_round"),
    ),
    (6006, "RoundNotWaitingTrainers", lambda w: w.waiting_validator().call("join_round")),
    (
        *(6006, "RoundNotWaitingTrainers"),
        lambda w: w.training().call("join_round", trainer=w.wallet()),
    ),
    (6006, "RoundNotWaitingTrainers", lambda w: start(w.training())),
    (
        *(6007, "NotValidator"),
        lambda w: stranger(w.waiting_trainers(), "start_training", le8(0) + bytes(4)),
    ),
    (
        *(6007, "NotValidator"),
        lambda w: stranger(w.validating(), "set_contribution", le8(0) + b"\1\0"),
    ),
    (6007, "NotValidator", lambda w: stranger(w.validating(), "complete_validation")),
    (6007, "NotValidator", lambda w: stranger(w.validating(), "finalize_round", results(10_000))),
    (6007, "NotValidator", lambda w: stranger(w.completed(), "claim_validator_fee")),
    (6007, "NotValidator", lambda w: stranger(w.training(), "abort_round")),
    (6008, "NoTrainers", lambda w: start(w.waiting_trainers())),
    (6009, "JoinDeadlinePassed", lambda w: late(w.waiting_trainers(), 601).call("join_round")),
    (6010, "MaxTrainersReached", lambda w: full(w).call("join_round")),
    (6011, "RoundNotTraining", lambda w: submit(_joined(w))),
    (6011, "RoundNotTraining", lambda w: submit(w.validating())),
    (6012, "SubmitDeadlinePassed", lambda w: submit(late(w.training(), 3601))),
    (6013, "AlreadySubmitted", lambda w: [submit(two_in_training(w)), submit(w)][1]),
    (6014, "RoundNotCompleted", lambda w: w.validating().call("claim_reward")),
    (6014, "RoundNotCompleted", lambda w: w.validating().call("claim_validator_fee")),
    (6015, "NotSubmitted", lambda w: _completed_without_me(w).call("claim_reward")),
    (
        *(6016, "RewardAlreadyClaimed"),
        lambda w: [w.completed().must("claim_reward"), w.call("claim_reward")][1],
    ),
    (6017, "NoContribution", lambda w: w.completed((w.trainer, 0)).call("claim_reward")),
    (6018, "FeeAlreadyClaimed", lambda w: w.completed().call("claim_validator_fee")),
    (
        *(6019, "InvalidContributionSum"),
        lambda w: w.validating().call("finalize_round", results(5000, 4999)),
    ),
    (
        *(6019, "InvalidContributionSum"),
        lambda w: w.validating().call("finalize_round", results(65_535, 10_001)),
    ),
    (6019, "InvalidContributionSum", lambda w: w.validating().call("finalize_round", results())),
    (6020, "RoundNotValidating", lambda w: w.training().set_bps(1)),
    (6020, "RoundNotValidating", lambda w: w.completed().set_bps(1)),
    (6020, "RoundNotValidating", lambda w: w.training().call("complete_validation")),
    (6020, "RoundNotValidating", lambda w: w.training().call("finalize_round", results(10_000))),
    (6021, "InvalidTreasury", lambda w: w.completed().call("claim_reward", treasury=w.creator)),
    (
        *(6021, "InvalidTreasury"),
        lambda w: w.validating().call("complete_validation", treasury=w.creator),
    ),
    (
        *(6021, "InvalidTreasury"),
        lambda w: w.completed().call("claim_validator_fee", treasury=w.creator),
    ),
    (6022, "CannotAbort", lambda w: w.waiting_validator().call("abort_round")),
    (6022, "CannotAbort", lambda w: w.completed().call("abort_round")),
    (6023, "InvalidCreator", lambda w: w.training().call("abort_round", creator=w.wallet())),
]


def _joined(world: World) -> World:
    world.waiting_trainers().must("join_round")
    return world


def _completed_without_me(world: World) -> World:
    """Two joined, the other one submitted in time."""
    other = world.wallet()
    world.training(world.trainer, other)
    world.must("submit_gradients", le8(0) + string(CID), trainer=other)
    world.now += 3601
    world.must("check_round")
    world.must("complete_validation")
    return world


@pytest.mark.parametrize(
    ("number", "name", "refusal"),
    REFUSALS,
    ids=[f"{number}-{name}-{i}" for i, (number, name, _) in enumerate(REFUSALS)],
)
def test_refusals(number: int, name: str, refusal: Refusal) -> None:
    """The code as custom error, Anchor's line with name and number, no event."""
    outcome = refusal(World())
    assert outcome.code == number
    assert not outcome.events
    line = outcome.lines[0]
    start = (
        "AnchorError caused by account: treasury"
        if name == "InvalidTreasury"
        else "AnchorError occurred"
    )
    expected = f"{start}. Error Code: {name}. Error Number: {number}. Error Message: "
    assert line.startswith(expected)
    assert line.endswith(".")
    assert len(line) > len(expected) + 10
    assert outcome.logs[-1] == f"Program {PROGRAM} failed: custom program error: {number:#x}"


def test_every_code_of_the_contract_is_covered() -> None:
    """6000 to 6023, none left out."""
    assert sorted({number for number, _, _ in REFUSALS}) == list(range(6000, 6024))


REPEATS: list[tuple[str, Callable[[World], object], int | None]] = [
    ("initialize", lambda w: w, 0),
    ("create_round", lambda w: w.must("initialize"), 0),
    ("claim_round", lambda w: w.waiting_validator(), 6004),
    ("join_round", lambda w: w.waiting_trainers(), 0),
    ("start_training", lambda w: w.waiting_trainers().must("join_round"), 6006),
    ("submit_gradients", two_in_training, 6013),
    ("check_round", lambda w: w.training(), None),
    ("set_contribution", lambda w: w.validating(), None),
    ("complete_validation", lambda w: w.validating(), 6020),
    ("finalize_round", lambda w: w.validating(), 6020),
    ("claim_validator_fee", lambda w: w.validating().must("finalize_round", results(10_000)), 6018),
    ("claim_reward", lambda w: w.completed(), 6016),
    ("cancel_round", lambda w: w.waiting_validator(), 6003),
    ("abort_round", lambda w: w.training(), 6022),
]
ARGS = {
    "initialize": b"",
    "create_round": le8(0) + string(CID) + b"\x62" + le8(SOL),
    "start_training": le8(0) + bytes(4),
    "submit_gradients": le8(0) + string(CID),
    "set_contribution": le8(0) + struct.pack("<H", 10_000),
    "finalize_round": results(10_000),
}


@pytest.mark.parametrize(("name", "prepare", "code"), REPEATS, ids=[row[0] for row in REPEATS])
def test_a_replay(name: str, prepare: Callable[[World], object], code: int | None) -> None:
    """The same call a second time pays nothing and counts nothing: it is refused, or it is one
    of the two that may be repeated and leaves everything as it was."""
    world = World()
    prepare(world)
    world.must(name, ARGS.get(name))
    watched = [counter_address(), round_address(0), vault_address(0)]
    watched.append(submission_address(0, world.trainer.pubkey()))
    before = [world.svm.get_account(address) for address in watched]
    outcome = world.call(name, ARGS.get(name))
    assert (outcome.ok, outcome.code) == (code is None, code)
    assert [world.svm.get_account(address) for address in watched] == before
    if code == 0:
        assert any("already in use" in log for log in outcome.logs)


def test_replays_cover_every_instruction() -> None:
    """None left out."""
    assert {row[0] for row in REPEATS} == set(INSTRUCTIONS)


@pytest.mark.parametrize("name", [name for name in INSTRUCTIONS if name != "initialize"])
def test_arguments_that_end_early(name: str) -> None:
    """102 for every length short of the whole."""
    world = World()
    args = ARGS.get(name, le8(0))
    for size in {0, 7, len(args) - 1}:
        outcome = world.call(name, args[:size])
        assert outcome.code == 102
        (line,) = outcome.lines
        assert line == (
            "AnchorError occurred. Error Code: InstructionDidNotDeserialize. Error Number: 102. "
            "Error Message: The program could not deserialize the given instruction."
        )


def test_bytes_behind_the_arguments_are_ignored() -> None:
    """As Anchor does it."""
    world = World().waiting_validator()
    world.must("claim_round", le8(0) + b"anything")


def test_instruction_data_without_a_known_discriminator() -> None:
    """100 below eight bytes, 101 for eight unknown ones."""
    world = World()
    for data, code, name in (
        (b"", 100, "InstructionMissing"),
        (b"1234567", 100, "InstructionMissing"),
        (b"12345678", 101, "InstructionFallbackNotFound"),
    ):
        outcome = world.send(Instruction(PROGRAM, data, []))
        assert outcome.code == code
        assert f"Error Code: {name}. Error Number: {code}." in outcome.lines[0]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (string("Q" * 46) + b"\x63" + le8(1), 102),
        (string("Q" * 46) + b"\xff" + le8(1), 102),
        (struct.pack("<I", 0xFFFFFFFF) + b"Q" * 46 + b"\x00" + le8(1), 102),
        (string(b"Q" * 45 + b"\xff") + b"\x00" + le8(1), 102),
        (string(b"Q" * 45 + b"\xff") + b"\x00" + le8(0), 102),
        (string("é" * 23) + b"\x00" + le8(0), 6001),
    ],
    ids=["dataset-99", "dataset-255", "endless-string", "not-utf8", "not-utf8-first", "utf8"],
)
def test_values_out_of_range_do_not_decode(args: bytes, code: int) -> None:
    """Unknown dataset, a string longer than the data, a string that isn't UTF-8."""
    world = started(World())
    assert world.call("create_round", le8(0) + args).code == code


SEQUENCES = """
    7f 80 bf c0af c180 c280 c2 dfbf df c27f c2c0 e08080
    e09fbf e0a080 e0a0 efbfbf ed9fbf eda080 edbfbf ee8080 e18041 e14180 f0808080 f08fbfbf
    f0908080 f09080 f3a08080 f48fbfbf f4908080 f5808080 f8888080 ff feff e282ac c3a9 f09f9880
"""


@pytest.mark.parametrize("place", ["start", "end"])
def test_utf8_is_judged_as_rust_and_python_do(place: str) -> None:
    """Overlong forms, surrogates, cut and out-of-range sequences are no text."""
    world = started(World())
    for sequence in map(bytes.fromhex, SEQUENCES.split()):
        filler = b"Q" * (50 - len(sequence))
        text = sequence + filler if place == "start" else filler + sequence
        try:
            text.decode()
            code = 6001  # decodes, then fails for its reward of zero
        except UnicodeDecodeError:
            code = 102
        assert world.create(cid=text, reward=0).code == code, sequence.hex()


def test_another_program_id_is_refused() -> None:
    """4100: the program knows its own address."""
    world = World()
    other = Pubkey.new_unique()
    world.svm.add_program(other, image("v1.2", Params()))
    outcome = world.send(Instruction(other, bytes.fromhex("afaf6d1f0d989bed"), []))
    assert outcome.code == 4100


def test_accounts_behind_the_list_are_ignored() -> None:
    """More accounts than the instruction lists, new ones and repeated ones, do no harm."""
    world = World().waiting_trainers()
    call = world.instruction("join_round")
    extra = [AccountMeta(Pubkey.new_unique(), False, True) for _ in range(12)]
    extra += [AccountMeta(SYSTEM, False, False), call.accounts[0], extra[0]]
    outcome = world.send(Instruction(PROGRAM, bytes(call.data), [*call.accounts, *extra]))
    assert outcome.ok, outcome.logs
    assert world.round().trainers == 1


def test_a_poor_trainer_cannot_join() -> None:
    """The system program's own error 1: the rent must be there."""
    world = World().waiting_trainers()
    outcome = world.call("join_round", trainer=world.wallet(1_733_039))
    assert outcome.code == 1
    assert world.round().trainers == 0


def test_a_refused_call_leaves_no_account_behind() -> None:
    """The submission that Anchor creates before the rules are checked goes away with them."""
    world = late(World().waiting_trainers(), 601)
    assert world.call("join_round").code == 6009
    address = submission_address(0, world.trainer.pubkey())
    account = world.svm.get_account(address)
    assert account is None or account.lamports == 0
    assert world.now == START + 601
