"""Addresses and instructions of the v1 program against vectors from a standard library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from solders.instruction import Instruction
from solders.pubkey import Pubkey

from decloud_trainer.chain import v1
from decloud_trainer.chain.codec import GENERATIONS, Idl
from decloud_trainer.errors import LayoutError, SettingsError

T = "4wBqpZM9xaSheZzJSMawUKKwhdpChKbZ5eu5ky4Vigw"
K = "FzuCxi65QyFXAGbHcXB28RXqyBZSZ5KXLQxeofx1P9K2"
OTHER = "2KPP2Xs4tmZ6iNe37oj26EjhUs7bPYzjL61gAcoe4EpU"
CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
CID_HEX = (
    "3b00000062616679626569676479727a74357366703775646d37687537367568377932366e6633656675796c"
    "71616266336f636c67747179353566627a6469"
)
PROGRAM = "HvQ8c3BBCsibJpH74UDXbvqEidJymzFYyGjNjRn7MYwC"
COUNTER = "ALmune6fB173KqtLpGAiGPnQsPWK3voHdvd6KmeL2mgu"
ROUND = "2KPP2Xs4tmZ6iNe37oj26EjhUs7bPYzjL61gAcoe4EpU"
VAULT = "BwFLVaSnBWWtmwWhbxu7hMZoqLv2BVc6JaJo6kaMtDAA"
SUBMISSION = "6JTibHkJFEYn4exWAAuPe3j6yHcBH6WawuSjKxVGJ1M1"
SYSTEM = "11111111111111111111111111111111"
ID_HEX = "2a00000000000000"


def accounts(instruction: Instruction) -> list[tuple[str, str]]:
    return [
        (str(a.pubkey), ("w" if a.is_writable else "r") + ("s" if a.is_signer else ""))
        for a in instruction.accounts
    ]


def test_addresses_are_the_networks() -> None:
    """Each derived address and its bump for round 42 and the key T."""
    assert str(v1.PROGRAM_ID) == PROGRAM
    assert str(v1.TREASURY) == K
    assert v1.counter_address() == (Pubkey.from_string(COUNTER), 253)
    assert v1.round_address(42) == (Pubkey.from_string(ROUND), 255)
    assert v1.vault_address(42) == (Pubkey.from_string(VAULT), 255)
    assert v1.submission_address(42, T) == (Pubkey.from_string(SUBMISSION), 253)
    assert v1.submission_address(42, Pubkey.from_string(T)) == v1.submission_address(42, T)


def test_addresses_depend_on_the_program() -> None:
    """Another deployment has accounts of its own, whose id may be given as text."""
    other = Pubkey.from_string(K)
    assert v1.round_address(42, other) != v1.round_address(42)
    assert v1.round_address(42, other) == v1.round_address(42, K)


@pytest.mark.parametrize("round_id", [-1, 2**64])
def test_an_impossible_round_id_has_no_address(round_id: int) -> None:
    """Ids are unsigned 64-bit numbers."""
    with pytest.raises(SettingsError, match="no round id"):
        v1.round_address(round_id)


@pytest.mark.parametrize("key", ["", "abc", "0" * 44, T + "11"])
def test_text_that_is_no_key_is_refused(key: str) -> None:
    """A mistyped key is an error of the settings, not a crash."""
    with pytest.raises(SettingsError, match="no public key"):
        v1.join_round(1, key)


# Each instruction for round 42, its whole data, and its accounts in order with flags.
EXPECTED: list[tuple[Callable[[], Instruction], str, list[tuple[str, str]]]] = [
    (
        lambda: v1.initialize(T),
        "afaf6d1f0d989bed",
        [(COUNTER, "w"), (T, "ws"), (SYSTEM, "r")],
    ),
    (
        lambda: v1.create_round(42, CID, 98, 100_000_000, T),
        f"e5daeca9e7508670{ID_HEX}{CID_HEX}6200e1f50500000000",
        [(COUNTER, "w"), (ROUND, "w"), (VAULT, "w"), (T, "ws"), (SYSTEM, "r")],
    ),
    (
        lambda: v1.cancel_round(42, T),
        f"524686362e609408{ID_HEX}",
        [(ROUND, "w"), (VAULT, "w"), (T, "ws"), (SYSTEM, "r")],
    ),
    (
        lambda: v1.claim_round(42, T),
        f"b4491763bacd0ec8{ID_HEX}",
        [(ROUND, "w"), (T, "ws")],
    ),
    (
        lambda: v1.join_round(42, T),
        f"bfde5619eaae9df9{ID_HEX}",
        [(ROUND, "w"), (SUBMISSION, "w"), (T, "ws"), (SYSTEM, "r")],
    ),
    (
        lambda: v1.start_training(42, 7_500, K),
        f"c8dc0b1bb3b473c0{ID_HEX}4c1d0000",
        [(ROUND, "w"), (K, "ws")],
    ),
    (
        lambda: v1.submit_gradients(42, CID, T),
        f"1c8b3fd1fbddef36{ID_HEX}{CID_HEX}",
        [(ROUND, "w"), (SUBMISSION, "w"), (T, "ws")],
    ),
    (
        lambda: v1.check_round(42, T),
        f"951f46dd890522d8{ID_HEX}",
        [(ROUND, "w"), (VAULT, "w"), (T, "w"), (SYSTEM, "r")],
    ),
    (
        lambda: v1.set_contribution(42, T, 6_000, K),
        f"e5b117aef2b4b4f2{ID_HEX}7017",
        [(ROUND, "r"), (SUBMISSION, "w"), (K, "rs")],
    ),
    (
        lambda: v1.finalize_round(42, [(T, 6_000), (K, 4_000)], T),
        (
            f"efa0fe0bfe903594{ID_HEX}02000000"
            "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f207017"
            "ded8c0ba424aafa1ff9435a23d18d8a9ba456f7164c184a913f273fb07691185a00f"
        ),
        [(ROUND, "w"), (T, "rs")],
    ),
    (
        lambda: v1.abort_round(42, T, K),
        f"0fa52fc66ccf96d0{ID_HEX}",
        [(ROUND, "w"), (VAULT, "w"), (T, "w"), (K, "ws"), (SYSTEM, "r")],
    ),
]


@pytest.mark.parametrize(("build", "data", "metas"), EXPECTED)
def test_instructions_are_these_bytes_and_accounts(
    build: Callable[[], Instruction], data: str, metas: list[tuple[str, str]]
) -> None:
    """The bytes on the wire, and the account list that the program expects."""
    instruction = build()
    assert instruction.data.hex() == data
    assert accounts(instruction) == metas
    assert str(instruction.program_id) == PROGRAM


PAYOUTS: list[tuple[Callable[..., Instruction], str, list[tuple[str, str]]]] = [
    (v1.claim_reward, "955fb5f25e5a9ea2", [(ROUND, "r"), (SUBMISSION, "w"), (VAULT, "w")]),
    (v1.claim_validator_fee, "106394573c39fa91", [(ROUND, "w"), (VAULT, "w")]),
    (v1.complete_validation, "76fcfd313e15f38c", [(ROUND, "w"), (VAULT, "w")]),
]
END = [(T, "ws"), (SYSTEM, "r")]


@pytest.mark.parametrize(("build", "data", "first"), PAYOUTS)
def test_payouts_name_treasury_and_referrer_from_v1_1_on(
    build: Callable[..., Instruction], data: str, first: list[tuple[str, str]]
) -> None:
    """v1.0 has neither; no referrer is the program's own id, read-only."""
    assert accounts(build(42, T, generation="v1.0")) == first + END
    for generation in ("v1.1", "v1.2"):
        alone = build(42, T, generation=generation)
        assert accounts(alone) == [*first, (K, "w"), (PROGRAM, "r"), *END]
        referred = build(42, T, generation=generation, referrer=OTHER)
        assert accounts(referred) == [*first, (K, "w"), (OTHER, "w"), *END]
        assert alone.data == referred.data == bytes.fromhex(data + ID_HEX)


def test_v1_0_pays_no_referrers() -> None:
    """A referrer that would be ignored is refused instead."""
    with pytest.raises(SettingsError, match="pays no referrers"):
        v1.claim_reward(42, T, generation="v1.0", referrer=K)


def test_without_a_referrer_the_slot_holds_the_program_in_use() -> None:
    """Anchor's sign for an absent account is the id of the program that is called."""
    instruction = v1.claim_reward(42, T, generation="v1.2", program=OTHER)
    assert accounts(instruction)[4] == (OTHER, "r")
    assert str(instruction.program_id) == OTHER
    assert accounts(instruction)[1][0] == str(v1.submission_address(42, T, OTHER)[0])


@pytest.mark.parametrize("index", [99, 255, 256])
def test_a_round_needs_a_dataset_that_the_program_knows(index: int) -> None:
    """An instruction that the program can't read is not built."""
    with pytest.raises(LayoutError, match=f"no dataset of index {index}"):
        v1.create_round(1, CID, index, 1, T)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: v1.set_contribution(1, T, 65_536, K), "contribution_bps: 65536"),
        (lambda: v1.start_training(1, -1, K), "baseline_score: -1"),
        (lambda: v1.create_round(1, CID, 0, 2**64, K), "reward_amount"),
    ],
)
def test_arguments_out_of_range_are_refused(build: Callable[[], Any], says: str) -> None:
    """A number is never cut to fit."""
    with pytest.raises(LayoutError, match=says):
        build()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_same_builders_serve_all_generations(generation: str) -> None:
    """Apart from payouts, an instruction is the same in every generation that has it."""
    idl, newest = Idl.load(generation), Idl.load("v1.2")
    payouts = {"claim_reward", "claim_validator_fee", "complete_validation"}
    for name in idl.instructions.keys() - payouts:
        assert idl.instructions[name] == newest.instructions[name]
