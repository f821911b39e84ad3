"""The codec refuses whatever doesn't fit, and shows what it doesn't know."""

from __future__ import annotations

from typing import Any

import pytest

from decloud_trainer.chain.codec import Idl, Variant
from decloud_trainer.errors import LayoutError

IDL = Idl.load("v1.2")
KEY = "4wBqpZM9xaSheZzJSMawUKKwhdpChKbZ5eu5ky4Vigw"
KEY_BYTES = bytes(range(1, 33))
SUBMISSION: dict[str, Any] = {
    "round_id": 7,
    "trainer": KEY,
    "gradient_cid": "Qm",
    "submitted": True,
    "contribution_bps": 6000,
    "reward_claimed": False,
    "bump": 255,
}
SUBMISSION_BYTES = (
    bytes.fromhex("3ac29f9e4b66b2c5")
    + bytes([7, 0, 0, 0, 0, 0, 0, 0])
    + KEY_BYTES
    + bytes([2, 0, 0, 0])
    + b"Qm"
    + bytes([1, 0x70, 0x17, 0, 255])
)
LEN_AT, TEXT_AT, BOOL_AT = 48, 52, 54
CREATED: dict[str, Any] = {
    "round_id": 1,
    "creator": KEY,
    "model_cid": "",
    "dataset": Variant(3, "FashionMnist"),
    "reward_amount": 2**64 - 1,
    "validator_deadline": -1,
}


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def test_an_account_is_these_bytes() -> None:
    """Fields follow each other in the IDL's order, little-endian and without padding."""
    assert IDL.encode_account("Submission", SUBMISSION) == SUBMISSION_BYTES
    assert IDL.decode_account("Submission", SUBMISSION_BYTES) == SUBMISSION


def test_accounts_and_events_may_be_longer_than_their_fields() -> None:
    """Accounts are allocated larger than what is written; later events may have more fields."""
    assert IDL.decode_account("Submission", SUBMISSION_BYTES + bytes(62) + b"tail") == SUBMISSION
    event = IDL.encode_event("RoundCreated", CREATED)
    assert IDL.decode_event(event + b"more") == ("RoundCreated", CREATED)


def test_an_instruction_may_not_be_longer() -> None:
    """Bytes left over behind the arguments are refused."""
    data = IDL.encode_instruction("join_round", {"round_id": 1})
    assert IDL.decode_instruction(data) == ("join_round", {"round_id": 1})
    with pytest.raises(LayoutError, match="1 bytes left over"):
        IDL.decode_instruction(data + b"\0")


@pytest.mark.parametrize("length", range(len(SUBMISSION_BYTES)))
def test_nothing_shorter_decodes(length: int) -> None:
    """An account that is cut anywhere is refused."""
    with pytest.raises(LayoutError):
        IDL.decode_account("Submission", SUBMISSION_BYTES[:length])


@pytest.mark.parametrize(
    ("at", "new", "says"),
    [
        (0, b"\0", "not a Submission account: it begins with 00c29f9e4b66b2c5"),
        (LEN_AT, b"\xff\xff\xff\xff", "a length of 4294967295 goes beyond the data's end"),
        (LEN_AT, b"\x08\0\0\0", "a length of 8 goes beyond the data's end"),
        (TEXT_AT, b"\xff", "gradient_cid: not UTF-8"),
        (TEXT_AT, b"\xc0\x80", "gradient_cid: not UTF-8"),
        (BOOL_AT, b"\x02", "submitted: 2 is no bool"),
    ],
)
def test_impossible_bytes_are_refused(at: int, new: bytes, says: str) -> None:
    """The message names the field and what is wrong with it."""
    with pytest.raises(LayoutError, match=says):
        IDL.decode_account("Submission", changed(SUBMISSION_BYTES, at, new))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round_id", -1),
        ("round_id", 2**64),
        ("round_id", True),
        ("round_id", 1.0),
        ("round_id", "1"),
        ("round_id", None),
        ("contribution_bps", 65_536),
        ("bump", 256),
        ("submitted", 1),
        ("submitted", "yes"),
        ("gradient_cid", b"Qm"),
        ("gradient_cid", "\ud800"),
        ("trainer", KEY_BYTES),
        ("trainer", KEY[:-1]),
        ("trainer", "0" + KEY[1:]),
        ("trainer", ""),
    ],
)
def test_values_that_do_not_fit_are_not_encoded(field: str, value: Any) -> None:
    """Types aren't converted and numbers aren't cut."""
    with pytest.raises(LayoutError, match=f"Submission: {field}"):
        IDL.encode_account("Submission", SUBMISSION | {field: value})


@pytest.mark.parametrize("low_high", [("u8", 0, 255), ("i64", -(2**63), 2**63 - 1)])
def test_integers_reach_their_limits(low_high: tuple[str, int, int]) -> None:
    """The whole range of a type is available, and nothing more."""
    kind, low, high = low_high
    assert IDL.encode_value(kind, low, "n") != IDL.encode_value(kind, high, "n")
    for beyond in (low - 1, high + 1):
        with pytest.raises(LayoutError, match=f"doesn't fit into {kind}"):
            IDL.encode_value(kind, beyond, "n")


def test_exactly_the_fields_of_the_struct_are_encoded() -> None:
    """A missing or a misspelt field is refused, and so is no mapping at all."""
    for values in (
        {k: v for k, v in SUBMISSION.items() if k != "bump"},
        SUBMISSION | {"extra": 1},
    ):
        with pytest.raises(LayoutError, match="Submission takes"):
            IDL.encode_account("Submission", values)
    with pytest.raises(LayoutError, match="no mapping"):
        IDL.encode_instruction("finalize_round", {"round_id": 1, "results": [5]})


def test_an_unknown_index_of_an_enum_is_shown_as_such() -> None:
    """It is neither refused nor given another name, and it is encoded as it came."""
    data = IDL.encode_event("RoundCreated", CREATED | {"dataset": Variant(200, None)})
    _, fields = IDL.decode_event(data)
    assert fields["dataset"] == Variant(200, None)
    assert str(fields["dataset"]) == "Unknown(200)"
    assert str(CREATED["dataset"]) == "FashionMnist"
    assert IDL.encode_event("RoundCreated", fields) == data


@pytest.mark.parametrize(
    "dataset",
    ["Fashion", "fashionMnist", 3, Variant(3, "Mnist"), Variant(3, None), Variant(256, None)],
)
def test_an_enum_is_encoded_by_its_exact_name(dataset: Any) -> None:
    """A number, another spelling or a name with the wrong index is refused."""
    with pytest.raises(LayoutError, match="is no Dataset"):
        IDL.encode_event("RoundCreated", CREATED | {"dataset": dataset})


def test_an_enum_may_be_given_by_name() -> None:
    """The plain name says the same as the variant."""
    assert IDL.encode_event("RoundCreated", CREATED | {"dataset": "FashionMnist"}) == (
        IDL.encode_event("RoundCreated", CREATED)
    )


def test_a_huge_count_of_items_ends_at_once() -> None:
    """A length that the data can't hold is refused before anything is read."""
    data = bytes.fromhex("efa0fe0bfe903594") + bytes(8) + b"\xff\xff\xff\xff" + bytes(1000)
    with pytest.raises(LayoutError, match="results: a length of 4294967295"):
        IDL.decode_instruction(data)


@pytest.mark.parametrize("data", [b"", b"\0", bytes(7), bytes(8), bytes(300)])
def test_unknown_beginnings_are_refused(data: bytes) -> None:
    """What begins with no discriminator of the program is not decoded."""
    for decode in (IDL.decode_instruction, IDL.decode_event):
        with pytest.raises(LayoutError, match="begins with"):
            decode(data)


def test_unknown_names_are_refused() -> None:
    """An instruction, account or event that the program doesn't have is named in the error."""
    with pytest.raises(LayoutError, match=r"no instruction submit_gradient$"):
        IDL.encode_instruction("submit_gradient", {"round_id": 1})
    with pytest.raises(LayoutError, match="no Gradient"):
        IDL.decode_account("Gradient", bytes(100))
    with pytest.raises(LayoutError, match="no instruction abort_round"):
        Idl.load("v1.0").encode_instruction("abort_round", {"round_id": 1})
