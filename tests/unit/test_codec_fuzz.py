"""100,000 random and mutated buffers: refused, or decoded to what their bytes really say."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

import base58
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from decloud_trainer.chain import v1
from decloud_trainer.chain.codec import GENERATIONS, Idl, Variant
from decloud_trainer.errors import LayoutError

EXAMPLES, BUFFERS_PER_EXAMPLE = 500, 200
IDLS = [Idl.load(generation) for generation in GENERATIONS]
NEWEST = Idl.load("v1.2")
STRINGS = ("", "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o", "b" * 59, "é" * 30, "x" * 64)
KEYS = [str(Pubkey(random.Random(number).randbytes(32))) for number in range(100)]


@pytest.fixture(autouse=True, scope="module")
def remembered() -> Iterator[None]:
    """Base58 is remembered here: its arithmetic would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("b58encode", "b58decode"):
            patch.setattr(base58, name, functools.lru_cache(10_000)(getattr(base58, name)))
        yield


def random_value(idl: Idl, kind: Any, rng: random.Random) -> Any:
    match kind:
        case "bool":
            return rng.random() < 0.5
        case "string":
            return rng.choice(STRINGS)
        case "pubkey":
            return rng.choice(KEYS)
        case {"vec": item}:
            return [random_value(idl, item, rng) for _ in range(rng.randrange(4))]
        case {"defined": {"name": "TrainerResult" as name}}:
            return random_struct(idl, name, rng)
        case {"defined": {"name": name}}:
            return idl.variant(name, rng.choice([0, 1, rng.randrange(256)]))
    bits = int(kind[1:])
    low = 0 if kind[0] == "u" else -(2 ** (bits - 1))
    return rng.choice([low, low + 2**bits - 1, low + rng.getrandbits(bits)])


def random_struct(idl: Idl, name: str, rng: random.Random) -> dict[str, Any]:
    return {n: random_value(idl, kind, rng) for n, kind in idl.fields(name)}


def random_account(idl: Idl, rng: random.Random) -> bytes:
    name = rng.choice(list(idl.accounts))
    return idl.encode_account(name, random_struct(idl, name, rng)) + bytes(rng.randrange(70))


def random_event(idl: Idl, rng: random.Random) -> bytes:
    name = rng.choice(list(idl.events))
    return idl.encode_event(name, random_struct(idl, name, rng))


def random_instruction(idl: Idl, rng: random.Random) -> bytes:
    name, layout = rng.choice(list(idl.instructions.items()))
    args = {n: random_value(idl, kind, rng) for n, kind in layout.fields}
    return idl.encode_instruction(name, args)


def good_round(rng: random.Random, round_id: int) -> bytes:
    """A round as the program could have written it."""
    values = random_struct(NEWEST, "Round", rng) | {
        "id": round_id,
        "model_cid": rng.choice(STRINGS[1:3]),
        "validator_fee_bps": rng.randrange(10_001),
        "created_at": rng.randrange(1_700_000_000, 2_500_000_000),
        "bump": v1.round_address(round_id)[1],
        "vault_bump": v1.vault_address(round_id)[1],
    }
    return NEWEST.encode_account("Round", values).ljust(208, b"\0")


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Up to three of: a changed byte, a cut, an insertion, a copied stretch, a new length."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(out)) if out else 0
        match rng.randrange(5):
            case 0 if out:
                out[at] = rng.choice([0, 1, 2, 127, 255, rng.randrange(256)])
            case 1:
                del out[at : at + rng.choice([1, 4, 8, 1_000])]
            case 2:
                out[at:at] = rng.randbytes(rng.choice([1, 2, 8, 32]))
            case 3:
                out[at : at + 8] = out[:8]
            case _:
                out[at : at + 4] = rng.choice([0, 46, 59, 64, 65, 2**31, 2**32 - 1]).to_bytes(
                    4, "little"
                )
    return bytes(out)


def random_buffer(rng: random.Random) -> bytes:
    idl = rng.choice(IDLS)
    make = rng.choice([random_account, random_event, random_instruction])
    match rng.randrange(4):
        case 0:
            return rng.randbytes(rng.randrange(300))
        case 1:  # a true beginning and noise behind it
            return make(idl, rng)[:8] + rng.randbytes(rng.randrange(300))
        case 2:
            return mutated(good_round(rng, rng.randrange(50)), rng)
        case _:
            return mutated(make(idl, rng), rng)


def decodes_truly(idl: Idl, data: bytes) -> None:
    """Each decoder refuses, or what it says encodes to the same bytes again."""
    for name in idl.accounts:
        with_refusal(
            lambda name=name: idl.encode_account(name, idl.decode_account(name, data)), data
        )
    with_refusal(lambda: idl.encode_event(*idl.decode_event(data)), data)
    again = with_refusal(lambda: idl.encode_instruction(*idl.decode_instruction(data)), data)
    assert again in (None, data)


def with_refusal(decode_and_encode: Callable[[], bytes], data: bytes) -> bytes | None:
    try:
        again = decode_and_encode()
    except LayoutError:
        return None
    assert data.startswith(again)
    return again


def decodes_plausibly(data: bytes) -> None:
    """v1's own decoders refuse, or the value is one that the program could have written."""
    for decode, account in (
        (v1.decode_round, "Round"),
        (v1.decode_submission, "Submission"),
        (v1.decode_counter, "RoundCounter"),
    ):
        try:
            value: Any = decode(data)
        except LayoutError:
            continue
        fields = NEWEST.decode_account(account, data)
        if account == "Round":
            assert len(value.model_cid.encode()) in range(46, 65)
            assert v1.round_address(value.id)[1] == fields["bump"]
            assert v1.vault_address(value.id)[1] == fields["vault_bump"]
            assert (value.id, value.reward_lamports) == (fields["id"], fields["reward_amount"])
        elif account == "Submission":
            assert v1.submission_address(value.round_id, value.trainer)[1] == fields["bump"]


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**64))
def test_one_hundred_thousand_buffers(seed: int) -> None:
    """No buffer crashes a decoder, and none is decoded to something it doesn't say."""
    rng = random.Random(seed)
    for _ in range(BUFFERS_PER_EXAMPLE):
        data = random_buffer(rng)
        decodes_truly(rng.choice(IDLS), data)
        decodes_plausibly(data)


@settings(max_examples=1_000, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([d for i in IDLS for d in (*i.accounts.values(), *i.events.values())]),
    st.binary(max_size=250),
)
def test_whatever_follows_a_discriminator(discriminator: bytes, tail: bytes) -> None:
    """Bytes of hypothesis' own choice, behind each beginning of the program."""
    decodes_truly(NEWEST, discriminator + tail)
    decodes_plausibly(discriminator + tail)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**64))
def test_a_damaged_round_is_never_another_round(seed: int) -> None:
    """With the address at hand, no damage makes a round pass for one of another id."""
    rng = random.Random(seed)
    round_id = rng.randrange(1_000)
    data = good_round(rng, round_id)
    address, _ = v1.round_address(round_id)
    assert v1.decode_round(data, address=address).id == round_id
    for _ in range(20):
        try:
            found = v1.decode_round(mutated(data, rng), address=address)
        except LayoutError:
            continue
        assert found.id == round_id


@pytest.mark.parametrize("generation", GENERATIONS)
def test_all_that_is_encoded_decodes_to_the_same(generation: str) -> None:
    """Every instruction, account and event of the generation survives the round trip."""
    idl, rng = Idl.load(generation), random.Random(generation)
    for name in [*idl.accounts] * 20:
        values = random_struct(idl, name, rng)
        assert idl.decode_account(name, idl.encode_account(name, values)) == values
    for name in [*idl.events] * 20:
        values = random_struct(idl, name, rng)
        assert idl.decode_event(idl.encode_event(name, values)) == (name, values)
    for name in [*idl.instructions] * 20:
        args = {n: random_value(idl, k, rng) for n, k in idl.instructions[name].fields}
        assert idl.decode_instruction(idl.encode_instruction(name, args)) == (name, args)


def test_the_buffers_are_worth_decoding() -> None:
    """A fair part of them passes a decoder, so the fuzzing reaches behind the first check."""
    rng, passed = random.Random(0), {"Round": 0, "v1": 0, "unknown status": 0}
    for _ in range(3_000):
        data = random_buffer(rng)
        try:
            status = NEWEST.decode_account("Round", data)["status"]
            passed["Round"] += 1
            passed["unknown status"] += status == Variant(status.index, None)
            v1.decode_round(data)
            passed["v1"] += 1
        except LayoutError:
            continue
    assert all(count > 50 for count in passed.values()), passed
