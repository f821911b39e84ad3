"""The nouns of a round: frozen values, free of any wire format.

Public keys are base58 text, money is int lamports, times are unix seconds (int) as the chain
keeps them; accuracies are percent (float) and the chain's baseline is hundredths of a percent.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from decloud_trainer.errors import RoundError
from decloud_trainer.names import dataset_key


class RoundStatus(enum.Enum):
    """Where a round stands on chain. Values are the network's spellings."""

    WAITING_VALIDATOR = "WaitingValidator"
    WAITING_TRAINERS = "WaitingTrainers"
    TRAINING = "Training"
    VALIDATING = "Validating"
    COMPLETED = "Completed"
    EXPIRED = "Expired"
    CANCELLED = "Cancelled"
    UNKNOWN = "Unknown"
    """A status index that this version doesn't know: nothing is ever done with such a round."""

    @property
    def is_over(self) -> bool:
        """No trainer can earn anything more by it, except by claiming when COMPLETED."""
        return self in (RoundStatus.COMPLETED, RoundStatus.EXPIRED, RoundStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class Dataset:
    """The dataset that a round names.

    Attributes:
        index: the number on the wire, 0-255.
        name: the network's spelling (``FashionMnist``), or None for an index without a name.
    """

    index: int
    name: str | None

    @property
    def key(self) -> str:
        """The normalised spelling, e.g. ``fashionmnist``; ``unknown200`` without a name."""
        return dataset_key(self.name) if self.name else f"unknown{self.index}"

    def __str__(self) -> str:
        return self.name or f"Unknown({self.index})"


@dataclass(frozen=True, slots=True)
class Round:
    """A round account. Times that are not set yet are 0, as on the chain."""

    id: int
    creator: str
    model_cid: str
    dataset: Dataset
    reward_lamports: int
    status: RoundStatus
    status_index: int
    validator: str | None
    validator_fee_bps: int
    baseline_score: int
    created_at: int
    validator_deadline: int
    join_deadline: int
    submit_deadline: int
    trainers_count: int
    submissions_count: int

    @property
    def trainers_pool_lamports(self) -> int:
        """What all trainers share, before the platform fee."""
        return self.reward_lamports - self.reward_lamports * self.validator_fee_bps // 10_000


def existing(round: Round | None, round_id: int, where: str = "chain") -> Round:
    """The round of that id as it was read.

    Raises:
        RoundError: there is none.
    """
    if round is None:
        raise RoundError(
            f"round {round_id} is not on {where}",
            hint="`decloud-trainer list` shows the rounds there are",
        )
    return round


@dataclass(frozen=True, slots=True)
class Submission:
    """A trainer's own account in a round: made by joining, filled by submitting."""

    round_id: int
    trainer: str
    gradient_cid: str
    submitted: bool
    contribution_bps: int
    reward_claimed: bool


class ActionKind(enum.Enum):
    JOIN = "join"
    SUBMIT = "submit"
    CLAIM = "claim"
    TRANSFER = "transfer"  # of what exceeds the float, to the user's cold address: of no round


NO_ROUND = -1
"""The round of an action that is of none."""


@dataclass(frozen=True, slots=True)
class Tip:
    """The priority fee that a transaction may pay on top of the base fee, to land sooner.

    Attributes:
        most_lamports: for the whole transaction; 0: none is paid.
        percentile: of what others paid in the last slots, 0-100.
    """

    most_lamports: int = 0
    percentile: int = 50


NO_TIP = Tip()


@dataclass(frozen=True, slots=True)
class Action:
    """What a transaction is to do; `cid` is set for SUBMIT alone.

    Attributes:
        to, lamports: of a TRANSFER, whose round is NO_ROUND.
        tip: what it may pay to be early; no part of what it does.
    """

    kind: ActionKind
    round_id: int
    cid: str = ""
    tip: Tip = field(default=NO_TIP, compare=False)
    to: str = ""
    lamports: int = 0

    def __str__(self) -> str:
        if self.kind is ActionKind.TRANSFER:
            return f"transfer {self.lamports} lamports to {self.to}"
        return f"{self.kind.value} round {self.round_id}"


@dataclass(frozen=True, slots=True)
class Intent:
    """A signed transaction, recorded before it is sent for the first time.

    Attributes:
        signature: base58; known before sending, so the outcome can always be looked up.
        raw: the signed bytes: what is rebroadcast after a crash is this, never a new one.
        last_valid_height: the block height after which the chain can't accept it any more.
    """

    action: Action
    signature: str
    raw: bytes
    last_valid_height: int


class OutcomeState(enum.Enum):
    LANDED = "landed"
    REJECTED = "rejected"  # never broadcast, or executed with an error: it moved at most a fee
    EXPIRED = "expired"  # not on chain and its last height has passed at finalized


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an intent; final in every state.

    Attributes:
        slot: where it landed, successful or not; None if it never did.
        fee_lamports: what the network charged (0 if it never landed).
        wallet_change_lamports: balance after minus before, the fee included.
        error_name, error_number, error: of the program error that refused it, if one did.
    """

    state: OutcomeState
    slot: int | None = None
    fee_lamports: int = 0
    wallet_change_lamports: int = 0
    error_name: str = ""
    error_number: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Costs:
    """What taking part costs.

    Attributes:
        join_rent_lamports: never comes back.
        fee_lamports: of one transaction.
        priority_lamports: what others pay on top of that at the moment; a transaction without it
            lands as well, later.
    """

    join_rent_lamports: int
    fee_lamports: int
    priority_lamports: int = 0
