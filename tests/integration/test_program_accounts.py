"""Every account of every instruction is checked: wrong, unsigned, read-only, missing, forged."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from program_world import (
    CID,
    INSTRUCTIONS,
    PROGRAM,
    SOL,
    Outcome,
    World,
    counter_address,
    le8,
    round_address,
    string,
    submission_address,
    vault_address,
)
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey


def _initialized(world: World) -> World:
    world.must("initialize")
    return world


def _finalized(world: World) -> World:
    world.validating()
    assert world.set_bps(10_000).ok
    world.must("finalize_round", le8(0) + FULL_SHARE)
    return world


FULL_SHARE = struct.pack("<I32sH", 1, bytes(32), 10_000)
# The state in which the call succeeds, and its arguments.
READY: dict[str, tuple[Callable[[World], World], bytes | None]] = {
    "initialize": (lambda w: w, b""),
    "create_round": (_initialized, le8(0) + string(CID) + b"\x62" + le8(SOL)),
    "claim_round": (World.waiting_validator, None),
    "join_round": (World.waiting_trainers, None),
    "start_training": (lambda w: _joined(w), le8(0) + bytes(4)),
    "submit_gradients": (World.training, le8(0) + string(CID)),
    "check_round": (lambda w: _late(w.waiting_validator()), None),
    "set_contribution": (World.validating, le8(0) + struct.pack("<H", 1)),
    "complete_validation": (World.validating, None),
    "finalize_round": (World.validating, le8(0) + FULL_SHARE),
    "claim_validator_fee": (_finalized, None),
    "claim_reward": (World.completed, None),
    "cancel_round": (World.waiting_validator, None),
    "abort_round": (World.training, None),
}
CREATED = {("initialize", "round_counter"), ("create_round", "round"), ("join_round", "submission")}
OWNED = ("round_counter", "round", "submission")


def _joined(world: World) -> World:
    world.waiting_trainers().must("join_round")
    return world


def _late(world: World) -> World:
    world.now += 3601
    return world


def slots(flag: str = "") -> list[tuple[str, str]]:
    """(instruction, role) for all accounts of all instructions, or those with that flag."""
    found = []
    for name, (_, accounts) in INSTRUCTIONS.items():
        for entry in accounts.split():
            role, flags = entry.split(":")
            if flag in flags:
                found.append((name, role))
    return found


def owned_slots() -> list[tuple[str, str]]:
    """Those that hold a decoded account which must exist before the call."""
    return [slot for slot in slots() if slot[1] in OWNED and slot not in CREATED]


def ready(name: str, generation: str = "v1.2") -> World:
    return READY[name][0](World(generation))


def call(world: World, name: str, **actors: Keypair | Pubkey) -> Outcome:
    return world.call(name, READY[name][1], **actors)


def with_meta(world: World, name: str, role: str, **change: bool) -> Outcome:
    """The call with other flags on one account."""
    instruction = world.instruction(name, READY[name][1])
    index = [entry.split(":")[0] for entry in INSTRUCTIONS[name][1].split()].index(role)
    metas = list(instruction.accounts)
    old = metas[index]
    metas[index] = AccountMeta(
        old.pubkey, change.get("signer", old.is_signer), change.get("writable", old.is_writable)
    )
    return world.send(Instruction(PROGRAM, bytes(instruction.data), metas))


@pytest.mark.parametrize("name", INSTRUCTIONS)
@pytest.mark.parametrize("generation", ["v1.0", "v1.2"])
def test_the_ready_states_are_right(name: str, generation: str) -> None:
    """Each call succeeds in its state, so that the failures below have no other reason."""
    if generation == "v1.0" and name == "abort_round":
        return
    world = ready(name, generation)
    outcome = call(world, name)
    assert outcome.ok, outcome.logs


# What a wrong account gives; strangers are funded system accounts, signing where a signer is due.
STRANGER = {
    "vault": 2006,
    "treasury": 6021,
    "system": 3008,
    ("initialize", "round_counter"): 2006,
    ("create_round", "round"): 2006,
    ("join_round", "submission"): 2006,
    ("check_round", "creator"): 2001,
    ("cancel_round", "creator"): 2001,
    ("abort_round", "creator"): 6023,
    "validator": 6007,
    ("submit_gradients", "trainer"): 2006,
    ("claim_reward", "trainer"): 2006,
    "round_counter": 3007,
    "round": 3007,
    "submission": 3007,
}
# Where any account will do: who signs takes part, and anyone may be a referrer.
FREE = {
    ("initialize", "authority"),
    ("create_round", "creator"),
    ("claim_round", "validator"),
    ("complete_validation", "referrer"),
    ("claim_validator_fee", "referrer"),
    ("claim_reward", "referrer"),
}


@pytest.mark.parametrize(("name", "role"), slots())
def test_a_stranger_in_any_slot(name: str, role: str) -> None:
    """The error that Anchor's check of that slot gives."""
    world = ready(name)
    stranger = world.wallet()
    actors: dict[str, Keypair | Pubkey] = {role: stranger}
    if role == "trainer":
        actors["submission"] = submission_address(0, world.trainer.pubkey())
    outcome = call(world, name, **actors)
    if (name, role) in FREE:
        assert outcome.ok, outcome.logs
    elif (name, role) == ("join_round", "trainer"):
        assert outcome.code == 2006
    else:
        assert outcome.code == STRANGER.get((name, role), STRANGER.get(role)), outcome.logs


@pytest.mark.parametrize(("name", "role"), owned_slots())
def test_an_account_that_does_not_exist(name: str, role: str) -> None:
    """3012, with the account's name in the log."""
    world = ready(name)
    outcome = call(world, name, **{role: Pubkey.new_unique()})
    assert outcome.code == 3012
    (line,) = outcome.lines
    assert line == (
        f"AnchorError caused by account: {role}. Error Code: AccountNotInitialized. "
        "Error Number: 3012. Error Message: The program expected this account to be already "
        "initialized."
    )


@pytest.mark.parametrize(("name", "role"), owned_slots())
def test_the_right_bytes_at_another_address(name: str, role: str) -> None:
    """2006: a copy of the true account, owned by the program, but not at its address."""
    world = ready(name)
    true = {
        "round": round_address(0),
        "round_counter": counter_address(),
        "submission": submission_address(0, world.trainer.pubkey()),
    }[role]
    copy = round_address(7)
    world.put(copy, world.data(true), PROGRAM)
    outcome = call(world, name, **{role: copy})
    assert outcome.code == 2006
    assert outcome.lines[0].startswith(
        f"AnchorError caused by account: {role}. Error Code: ConstraintSeeds. Error Number: 2006."
    )
    assert outcome.lines[1:] == ["Left:", str(copy), "Right:", str(true)]


@pytest.mark.parametrize(("name", "role"), owned_slots())
def test_forged_accounts(name: str, role: str) -> None:
    """Another owner 3007, another type 3002, too short 3001, damaged 3003."""
    world = ready(name)
    place = Pubkey.new_unique()
    good = world.data(
        {
            "round": round_address(0),
            "round_counter": counter_address(),
            "submission": submission_address(0, world.trainer.pubkey()),
        }[role]
    )
    other = "round" if role != "round" else "round_counter"
    kinds = {"round": "577fa533494e74ae", "round_counter": "f402a5f0a80a01ee"}
    for data, owner, code in (
        (good, Pubkey.new_unique(), 3007),
        (bytes.fromhex(kinds[other]) + good[8:], PROGRAM, 3002),
        (bytes(len(good)), PROGRAM, 3002),
        (b"", PROGRAM, 3001),
        (good[:7], PROGRAM, 3001),
        (good[:8], PROGRAM, 3003),
        (good[:48], PROGRAM, 3003),
    ):
        world.put(place, data, owner)
        assert call(world, name, **{role: place}).code == code


@pytest.mark.parametrize(
    "change",
    [
        (48, struct.pack("<I", 0xFFFFFFFF)),
        (48, struct.pack("<I", 65)),
        (52, b"\xff"),
        (52 + 59, b"\x63"),
        (61 + 59, b"\x07"),
    ],
    ids=["endless-cid", "cid-of-65", "cid-not-text", "dataset-99", "status-7"],
)
def test_a_damaged_round_does_not_decode(change: tuple[int, bytes]) -> None:
    """3003 for a value that the layout doesn't know."""
    world = World().waiting_validator()
    data = bytearray(world.data(round_address(0)))
    data[change[0] : change[0] + len(change[1])] = change[1]
    world.put(round_address(0), bytes(data), PROGRAM)
    assert world.call("claim_round").code == 3003


@pytest.mark.parametrize("offset", [52 + 59, 55 + 59], ids=["submitted", "claimed"])
def test_a_damaged_submission_does_not_decode(offset: int) -> None:
    """3003 for a truth value that is neither 0 nor 1."""
    world = World().completed()
    address = submission_address(0, world.trainer.pubkey())
    data = bytearray(world.data(address))
    data[offset] = 2
    world.put(address, bytes(data), PROGRAM)
    assert world.call("claim_reward").code == 3003


@pytest.mark.parametrize(("name", "role"), slots("s"))
def test_a_missing_signature(name: str, role: str) -> None:
    """3010, for the right account without its signature."""
    outcome = with_meta(ready(name), name, role, signer=False)
    assert outcome.code == 3010
    (line,) = outcome.lines
    assert line == (
        f"AnchorError caused by account: {role}. Error Code: AccountNotSigner. "
        "Error Number: 3010. Error Message: The given account did not sign."
    )


@pytest.mark.parametrize(("name", "role"), slots("w"))
def test_a_read_only_account(name: str, role: str) -> None:
    """2000 where a writable account is due; the runtime itself refuses for a new account."""
    world = ready(name)
    if role == "referrer":
        referrer = AccountMeta(world.wallet().pubkey(), False, False)
        metas = world.metas(name)
        metas[[m.pubkey for m in metas].index(PROGRAM)] = referrer
        outcome = world.send(
            Instruction(PROGRAM, bytes.fromhex(INSTRUCTIONS[name][0]) + le8(0), metas)
        )
    else:
        outcome = with_meta(world, name, role, writable=False)
    pays_for_new = any(created[0] == name for created in CREATED)
    if (name, role) in CREATED or (pays_for_new and role in ("authority", "creator", "trainer")):
        assert "PrivilegeEscalation" in outcome.error
    else:
        assert outcome.code == 2000, outcome.logs


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_too_few_accounts(name: str) -> None:
    """3005 for every shorter list."""
    world = ready(name)
    whole = world.instruction(name, READY[name][1])
    for count in range(len(whole.accounts)):
        outcome = world.send(Instruction(PROGRAM, bytes(whole.data), whole.accounts[:count]))
        assert outcome.code == 3005
        assert "Error Code: AccountNotEnoughKeys." in outcome.lines[-1]


def test_another_trainers_submission_cannot_be_claimed() -> None:
    """Neither for oneself, nor for the other without their signature."""
    world = World()
    other = world.wallet()
    world.completed((world.trainer, 5000), (other, 5000))
    theirs = submission_address(0, other.pubkey())
    assert world.call("claim_reward", submission=theirs).code == 2006
    claim = world.instruction("claim_reward", trainer=other)
    unsigned = [AccountMeta(m.pubkey, False, m.is_writable) for m in claim.accounts]
    assert world.send(Instruction(PROGRAM, bytes(claim.data), unsigned)).code == 3010
    assert not world.submission(other).claimed


def test_a_submission_of_another_round() -> None:
    """2006: a contribution or claim can't be moved between rounds."""
    world = World().validating()
    assert world.create(round_id=1).ok
    world.must("claim_round", le8(1), 1)
    world.must("join_round", le8(1), 1)
    elsewhere = submission_address(1, world.trainer.pubkey())
    args = le8(0) + struct.pack("<H", 10_000)
    assert world.call("set_contribution", args, submission=elsewhere).code == 2006
    assert world.set_bps(10_000).ok
    world.must("complete_validation")
    assert world.call("claim_reward", submission=elsewhere).code == 2006
    assert world.call("claim_reward", vault=vault_address(1)).code == 2006
    assert world.call("claim_reward", le8(1), round=round_address(0)).code == 2006


def test_new_accounts_at_addresses_that_hold_lamports() -> None:
    """A stranger can't block a round or a join by sending lamports to its address first."""
    world = World()
    sizes = {counter_address(): 49, round_address(0): 208}
    sizes[submission_address(0, world.trainer.pubkey())] = 121
    for address, size in sizes.items():
        world.svm.airdrop(address, (128 + size) * 6960 if size == 121 else 890_880)
    before = world.balance(world.trainer)
    world.waiting_trainers().must("join_round")
    for address, size in sizes.items():
        account = world.svm.get_account(address)
        assert account is not None
        assert (account.owner, len(account.data)) == (PROGRAM, size)
        assert account.lamports == (128 + size) * 6960
        assert account.lamports == world.svm.minimum_balance_for_rent_exemption(size)
    assert world.balance(world.trainer) == before
    assert world.call("join_round").code == 0


@pytest.mark.parametrize("name", ["submit_gradients", "claim_reward"])
def test_a_submission_names_its_trainer(name: str) -> None:
    """2001: at the right address, but with another trainer inside."""
    world = ready(name)
    address = submission_address(0, world.trainer.pubkey())
    data = bytearray(world.data(address))
    other = Pubkey.new_unique()
    data[16:48] = bytes(other)
    world.put(address, bytes(data), PROGRAM)
    outcome = call(world, name)
    assert outcome.code == 2001
    assert outcome.lines[0] == (
        "AnchorError caused by account: submission. Error Code: ConstraintHasOne. "
        "Error Number: 2001. Error Message: A has one constraint was violated."
    )
    assert outcome.lines[1:] == ["Left:", str(other), "Right:", str(world.trainer.pubkey())]
