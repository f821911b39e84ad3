"""Accounts of v1 become values, and those of other generations are refused."""

from __future__ import annotations

import random
from typing import Any

import pytest

from decloud_trainer.chain import v1
from decloud_trainer.chain.codec import Idl, Variant
from decloud_trainer.errors import LayoutError
from decloud_trainer.rounds.model import Dataset, Round, RoundStatus, Submission

IDL = Idl.load("v1.2")
T = "4wBqpZM9xaSheZzJSMawUKKwhdpChKbZ5eu5ky4Vigw"
K = "FzuCxi65QyFXAGbHcXB28RXqyBZSZ5KXLQxeofx1P9K2"
CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
V0_CID = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"
NOBODY = "11111111111111111111111111111111"
ROUND: dict[str, Any] = {
    "id": 42,
    "creator": K,
    "model_cid": CID,
    "dataset": "FashionMnist",
    "reward_amount": 100_000_000,
    "status": "WaitingTrainers",
    "validator": T,
    "validator_fee_bps": 1_000,
    "baseline_score": 1_234,
    "created_at": 1_767_225_600,
    "validator_deadline": 1_767_229_200,
    "join_deadline": 1_767_230_000,
    "submit_deadline": 0,
    "trainers_count": 3,
    "submissions_count": 1,
    "bump": 255,
    "vault_bump": 255,
}
SUBMISSION: dict[str, Any] = {
    "round_id": 42,
    "trainer": T,
    "gradient_cid": V0_CID,
    "submitted": True,
    "contribution_bps": 6_000,
    "reward_claimed": False,
    "bump": 253,
}


def round_bytes(**changes: Any) -> bytes:
    """As the program allocates it: 200 bytes for the longest CID, and a few hidden ones."""
    return IDL.encode_account("Round", ROUND | changes).ljust(200, b"\0") + b"\x01" + bytes(7)


def submission_bytes(**changes: Any) -> bytes:
    return IDL.encode_account("Submission", SUBMISSION | changes).ljust(121, b"\0")


def test_a_round_is_read_as_a_value() -> None:
    """Every field arrives, and the address of the account is confirmed."""
    address, _ = v1.round_address(42)
    assert v1.decode_round(round_bytes(), address=address) == Round(
        id=42,
        creator=K,
        model_cid=CID,
        dataset=Dataset(3, "FashionMnist"),
        reward_lamports=100_000_000,
        status=RoundStatus.WAITING_TRAINERS,
        status_index=1,
        validator=T,
        validator_fee_bps=1_000,
        baseline_score=1_234,
        created_at=1_767_225_600,
        validator_deadline=1_767_229_200,
        join_deadline=1_767_230_000,
        submit_deadline=0,
        trainers_count=3,
        submissions_count=1,
    )


@pytest.mark.parametrize("index", range(7))
def test_every_status_of_the_network_has_its_own(index: int) -> None:
    """The numbers on the wire mean the statuses in the network's order."""
    statuses = list(RoundStatus)
    assert (
        v1.decode_round(round_bytes(status=IDL.variant("RoundStatus", index))).status
        is (statuses[index])
    )


def test_unknown_numbers_are_shown_and_never_mapped() -> None:
    """A dataset or a status of a later version is no reason to go blind."""
    found = v1.decode_round(round_bytes(dataset=Variant(126, None), status=Variant(7, None)))
    assert found.dataset == Dataset(126, None)
    assert str(found.dataset) == "Unknown(126)"
    assert found.status is RoundStatus.UNKNOWN
    assert found.status_index == 7


def test_a_round_without_a_validator_has_none() -> None:
    """The zero key stands for nobody."""
    assert v1.decode_round(round_bytes(validator=NOBODY)).validator is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_cid": ""}, "CID's length"),
        ({"model_cid": "Q" * 45}, "CID's length"),
        ({"model_cid": "Q" * 65}, "CID's length"),
        ({"created_at": 0}, "created at no known time"),
        ({"created_at": 1_767_225_600_000}, "created at no known time"),
        ({"created_at": -1}, "created at no known time"),
        ({"validator_fee_bps": 10_001}, "fee exceeds the reward"),
        ({"bump": 254}, "the bump is 254 and should be 255"),
        ({"vault_bump": 0}, "the bump is 0 and should be 255"),
    ],
)
def test_an_implausible_round_is_refused(changes: dict[str, Any], says: str) -> None:
    """What no v1 program could have written is taken for another layout."""
    with pytest.raises(LayoutError, match=f"round 42: .*{says}"):
        v1.decode_round(round_bytes(**changes))


def test_a_round_at_another_rounds_address_is_refused() -> None:
    """The id inside must lead to the address that was read."""
    with pytest.raises(LayoutError, match="round 42: it is at"):
        v1.decode_round(round_bytes(), address=v1.round_address(41)[0])


def test_a_round_of_another_program_is_refused() -> None:
    """With a program id of one's own, addresses and bumps are that program's."""
    program = v1.TREASURY
    address, bump = v1.round_address(42, program)
    data = round_bytes(bump=bump, vault_bump=v1.vault_address(42, program)[1])
    assert v1.decode_round(data, address=address, program=program).id == 42
    with pytest.raises(LayoutError):
        v1.decode_round(data, address=address)


def v2_round(kind: str, cid: bytes, random_: random.Random) -> bytes:
    """A round of the v2 generations, whose discriminator is the same."""
    rating = random_.randbytes(2) if kind == "v2.5" else b""
    consensus = b"" if kind == "v2.0" else random_.randbytes(8)
    return (
        bytes.fromhex("577fa533494e74ae")
        + (42).to_bytes(8, "little")
        + random_.randbytes(32)
        + cid.ljust(64, b"\0")
        + bytes([len(cid), random_.randrange(99)])
        + random_.randbytes(8)
        + rating
        + (1_768_000_000).to_bytes(8, "little")
        + bytes([random_.randrange(3)])
        + random_.randbytes(20)
        + consensus
        + bytes([255, 255])
    )


@pytest.mark.parametrize(("kind", "length"), [("v2.0", 153), ("v2.1", 161), ("v2.5", 163)])
def test_v2_rounds_are_never_taken_for_v1(kind: str, length: int) -> None:
    """Not even when their CID was made to look like the length and the bytes of a v1 CID."""
    random_ = random.Random(kind)
    for _ in range(300):
        disguised = random_.randrange(65).to_bytes(4, "little") + CID.encode()
        cid = random_.choice([CID.encode(), V0_CID.encode(), disguised])
        data = v2_round(kind, cid, random_)
        assert len(data) == length
        with pytest.raises(LayoutError):
            v1.decode_round(data)


def test_a_submission_is_read_as_a_value() -> None:
    """Every field arrives, and the address of the account is confirmed."""
    address, _ = v1.submission_address(42, T)
    assert v1.decode_submission(submission_bytes(), address=address) == Submission(
        round_id=42,
        trainer=T,
        gradient_cid=V0_CID,
        submitted=True,
        contribution_bps=6_000,
        reward_claimed=False,
    )


def test_a_fresh_submission_is_empty() -> None:
    """Joining leaves an empty CID and nothing submitted."""
    joined = v1.decode_submission(submission_bytes(gradient_cid="", submitted=False))
    assert (joined.gradient_cid, joined.submitted) == ("", False)


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_cid": ""},
        {"gradient_cid": "Qm"},
        {"gradient_cid": "Q" * 65},
        {"bump": 252},
        {"trainer": K},
        {"round_id": 43},
    ],
)
def test_an_implausible_submission_is_refused(changes: dict[str, Any]) -> None:
    """Key, round and bump must belong together, and the CID's length be possible."""
    with pytest.raises(LayoutError, match="the submission of"):
        v1.decode_submission(submission_bytes(**changes))


def test_a_submission_at_another_address_is_refused() -> None:
    """What an endpoint returns for one account can't be another's."""
    with pytest.raises(LayoutError, match="it is at"):
        v1.decode_submission(submission_bytes(), address=v1.submission_address(42, K)[0])


def test_the_counter_gives_the_next_id() -> None:
    """v2's counter, shorter under the same discriminator, is refused."""
    data = IDL.encode_account("RoundCounter", {"count": 7, "authority": K, "bump": 253})
    assert len(data) == 49
    assert v1.decode_counter(data) == 7
    with pytest.raises(LayoutError):
        v1.decode_counter(data[:16] + b"\xfd")
    with pytest.raises(LayoutError, match="the bump is 252"):
        v1.decode_counter(data[:-1] + b"\xfc")


@pytest.mark.parametrize("cid", [CID, V0_CID])
def test_filters_find_the_status_behind_the_cid(cid: str) -> None:
    """Applied as an endpoint would, they keep rounds of the status and CID length alone."""
    filters = v1.round_filters(status=RoundStatus.WAITING_TRAINERS, cid_length=len(cid))

    def kept(data: bytes) -> bool:
        return all(data[f.offset : f.offset + len(f.data)] == f.data for f in filters)

    assert kept(round_bytes(model_cid=cid))
    assert not kept(round_bytes(model_cid=cid, status="Training"))
    assert not kept(round_bytes(model_cid=cid + "x"))
    assert not kept(submission_bytes())
    assert len(filters) <= 4  # what endpoints accept


def test_filters_are_these() -> None:
    """Offsets and bytes as they go to the endpoint."""
    assert [(f.offset, f.base58) for f in v1.round_filters()] == [(0, "Fdr5W8SQEA9")]
    assert [(f.offset, f.base58) for f in v1.submission_filters(T)] == [
        (0, "Aq3nWp1xyd6"),
        (16, T),
    ]
    assert [(f.offset, f.data.hex()) for f in v1.submission_filters(round_id=42)] == [
        (0, "3ac29f9e4b66b2c5"),
        (8, "2a00000000000000"),
    ]
    unclaimed = v1.submission_filters(T, claimed=False, cid_length=46)
    assert [(f.offset, f.data.hex()) for f in unclaimed[2:]] == [(48, "2e000000"), (101, "00")]
    assert len(unclaimed) <= 4
    with pytest.raises(ValueError, match="length of the CID"):
        v1.round_filters(status=RoundStatus.TRAINING)
    with pytest.raises(ValueError, match="length of the CID"):
        v1.submission_filters(T, claimed=True)
