"""The v1 program's accounts as values of a round, and the filters that find them.

Other generations of the network have accounts with the same discriminators and other layouts.
What is decoded here has therefore passed more than the codec: the stored bumps are those of the
addresses that the stored ids lead to, times and lengths are plausible, and the address is the
right one where the caller knows it. Anything else is a LayoutError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import base58
from solders.pubkey import Pubkey

from decloud_trainer.chain.codec import Idl
from decloud_trainer.chain.v1_addresses import (
    PROGRAM_ID,
    Key,
    as_pubkey,
    counter_address,
    le8,
    round_address,
    submission_address,
    vault_address,
)
from decloud_trainer.errors import LayoutError
from decloud_trainer.rounds.model import Dataset, Round, RoundStatus, Submission

_IDL = Idl.load("v1.2")  # the accounts are the same in all v1 generations

DATASETS = _IDL.variants("Dataset")
"""The network's spelling of each dataset, by index."""

CID_LENGTHS = (46, 59)
"""Bytes of the two usual kinds of CID: Qm... and bafy.../bafk... in base32."""

SUBMISSION_BYTES = 121
"""What a submission's account has room for: the rent depends on it."""

_CID_BYTES = range(46, 65)
SUBMITTED_LENGTHS = (0, *_CID_BYTES)
"""Bytes that the CID in a submission may have: none until something is submitted."""

_STATUSES = tuple(RoundStatus(name) for name in _IDL.variants("RoundStatus"))
_EARLIEST, _LATEST = 1_700_000_000, 2_500_000_000  # unix seconds: late 2023 to 2049
_NOBODY = "1" * 32
_SAME_IN_BOTH = (
    "validator_fee_bps",
    "baseline_score",
    "created_at",
    "validator_deadline",
    "join_deadline",
    "submit_deadline",
    "trainers_count",
    "submissions_count",
)


@dataclass(frozen=True, slots=True)
class Filter:
    """A memcmp filter of getProgramAccounts: `data` stands at `offset` in the account."""

    offset: int
    data: bytes

    @property
    def base58(self) -> str:
        """The bytes as the RPC method takes them."""
        return base58.b58encode(self.data).decode("ascii")


def round_filters(
    *, status: RoundStatus | None = None, cid_length: int | None = None
) -> list[Filter]:
    """Filters for rounds; the status needs the CID's length, since it stands behind the CID."""
    filters = [Filter(0, _IDL.accounts["Round"])]
    if cid_length is not None:
        filters.append(Filter(48, cid_length.to_bytes(4, "little")))
    if status is not None:
        if cid_length is None:
            raise ValueError("the status can only be filtered for one length of the CID")
        filters.append(Filter(61 + cid_length, bytes([_STATUSES.index(status)])))
    return filters


def submission_filters(
    trainer: Key | None = None,
    round_id: int | None = None,
    *,
    claimed: bool | None = None,
    cid_length: int | None = None,
) -> list[Filter]:
    """Filters for the submissions of a trainer, in a round, or both; whether the reward was claimed
    needs the CID's length, since it stands behind the CID."""
    filters = [Filter(0, _IDL.accounts["Submission"])]
    if round_id is not None:
        filters.append(Filter(8, le8(round_id)))
    if trainer is not None:
        filters.append(Filter(16, bytes(as_pubkey(trainer))))
    if cid_length is not None:
        filters.append(Filter(48, cid_length.to_bytes(4, "little")))
    if claimed is not None:
        if cid_length is None:
            raise ValueError("what is claimed can only be filtered for one length of the CID")
        filters.append(Filter(55 + cid_length, bytes([claimed])))
    return filters


def decode_round(data: bytes, *, address: Key | None = None, program: Key = PROGRAM_ID) -> Round:
    """A round from its account's bytes; `address` is the account's, when known."""
    fields = _IDL.decode_account("Round", data)
    what = f"round {fields['id']}"
    _expect(len(fields["model_cid"].encode()) in _CID_BYTES, what, "the CID's length is impossible")
    _expect(_EARLIEST <= fields["created_at"] <= _LATEST, what, "it was created at no known time")
    _expect(fields["validator_fee_bps"] <= 10_000, what, "the validator's fee exceeds the reward")
    found = round_address(fields["id"], program)
    _expect_address(found, fields["bump"], address, what)
    _expect_address(vault_address(fields["id"], program), fields["vault_bump"], None, what)
    status = fields["status"]
    return Round(
        id=fields["id"],
        creator=fields["creator"],
        model_cid=fields["model_cid"],
        dataset=Dataset(fields["dataset"].index, fields["dataset"].name),
        reward_lamports=fields["reward_amount"],
        status=_STATUSES[status.index] if status.name else RoundStatus.UNKNOWN,
        status_index=status.index,
        validator=None if fields["validator"] == _NOBODY else fields["validator"],
        **{name: fields[name] for name in _SAME_IN_BOTH},
    )


def decode_submission(
    data: bytes, *, address: Key | None = None, program: Key = PROGRAM_ID
) -> Submission:
    """A trainer's submission from its account's bytes; `address` is the account's, when known."""
    fields = _IDL.decode_account("Submission", data)
    bump = fields.pop("bump")
    what = f"the submission of {fields['trainer']} to round {fields['round_id']}"
    length = len(fields["gradient_cid"].encode())
    possible = length in _CID_BYTES or (length == 0 and not fields["submitted"])
    _expect(possible, what, "the CID's length is impossible")
    found = submission_address(fields["round_id"], fields["trainer"], program)
    _expect_address(found, bump, address, what)
    return Submission(**fields)


def decode_counter(data: bytes, *, program: Key = PROGRAM_ID) -> int:
    """The id that the next round gets, from the counter's bytes."""
    fields = _IDL.decode_account("RoundCounter", data)
    _expect_address(counter_address(program), fields["bump"], None, "the round counter")
    count: int = fields["count"]
    return count


def _expect(holds: bool, what: str, otherwise: str) -> None:
    if not holds:
        raise LayoutError(f"{what}: {otherwise}", hint=_HINT)


def _expect_address(derived: tuple[Pubkey, int], bump: Any, address: Key | None, what: str) -> None:
    _expect(bump == derived[1], what, f"the bump is {bump} and should be {derived[1]}")
    if address is not None:
        _expect(as_pubkey(address) == derived[0], what, f"it is at {address}, not {derived[0]}")


_HINT = "The account belongs to another generation of the network, or to another program."
