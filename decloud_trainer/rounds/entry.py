"""The journal's values: where we stand with each round, and what we know of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from decloud_trainer.rounds.model import Intent, Outcome, Round


class State(enum.Enum):
    """How far we are with a round. The next step of each is in `path.py`."""

    SEEN = "seen"  # on chain; not decided yet
    WATCHING = "watching"  # taken; its model is not here yet
    FETCHED = "fetched"  # model verified and recognised; not joined yet
    JOINED = "joined"  # our submission account exists
    TRAINED = "trained"  # the artefact is on disk, its score previewed
    PINNED = "pinned"  # the artefact's CID is public
    SUBMITTED = "submitted"  # the CID is on chain
    CLAIMABLE = "claimable"  # completed, and a share is ours
    SKIPPED = "skipped"  # not taken; decided again while it can be joined
    CLAIMED = "claimed"  # final: the reward is in the wallet
    LOST = "lost"  # final: nothing will come of it
    FAILED = "failed"  # final: we failed it

    @property
    def is_final(self) -> bool:
        return self in (State.CLAIMED, State.LOST, State.FAILED)

    @property
    def is_in_work(self) -> bool:
        """We take part in the round, or are about to."""
        return not self.is_final and self not in (State.SEEN, State.SKIPPED)

    @property
    def holds_slot(self) -> bool:
        """Counts against max_concurrent_rounds: from being taken until it is submitted."""
        return self in (
            State.WATCHING,
            State.FETCHED,
            State.JOINED,
            State.TRAINED,
            State.PINNED,
        )


# A row in this time's future is due only when its round changes or a user asks.
NEVER = 1e12


@dataclass(frozen=True, slots=True)
class RowKey:
    """A round as one wallet sees it: ids repeat across clusters, programs, local networks."""

    genesis: str
    program: str
    wallet: str
    round_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the steps found out; each field is set once by the step named."""

    asked_join: bool = False  # a user's request: filters and slots don't apply
    asked_train: bool = False
    asked_claim: bool = False
    epochs: int | None = None  # a user's choice for this round
    max_batches: int | None = None
    commits: dict[str, Any] | None = None  # a user's, as `TrainingPlan.commits`; empty: none
    adopted: bool = False  # joined by another run or machine
    idle: bool = False  # train: joined, but others hold it up or work on it: holds no slot
    refused: str = ""  # fetch, join: why this round is never taken, unless a user asks for it
    train_on: str = ""  # fetch: dataset key that training uses
    data_samples: int | None = None  # fetch: number of training samples
    model_sha256: str = ""  # fetch
    architecture: str = ""  # fetch
    classes: int = 0  # fetch
    parameters: int = 0  # fetch
    samples_per_s: float | None = None  # fetch: measured on this machine
    artifact: str = ""  # train: path of the artefact
    artifact_sha256: str = ""  # train
    preview_before: float | None = None  # train: percent
    preview_after: float | None = None
    gradient_cid: str = ""  # pin
    contribution_bps: int | None = None  # complete
    unpaid_since: float | None = None  # complete: since when the chain shows no share of ours

    @property
    def improvement(self) -> float | None:
        """Previewed accuracy after minus before, percentage points."""
        if self.preview_before is None or self.preview_after is None:
            return None
        return self.preview_after - self.preview_before


NOTHING_KNOWN = Facts()


def takes_slot(state: State, facts: Facts) -> bool:
    return state.holds_slot and not facts.idle


@dataclass(frozen=True, slots=True)
class Entry:
    """A row as it was read.

    Attributes:
        round: the round as last seen; it may be stale.
        not_before: unix seconds; no step runs earlier.
        failures: steps that failed in a row, for back-off.
    """

    row: int
    key: RowKey
    state: State
    reason: str
    facts: Facts
    round: Round | None
    not_before: float
    failures: int
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Event:
    at: float
    round_id: int
    kind: str
    from_state: str
    to_state: str
    text: str


@dataclass(frozen=True, slots=True)
class SentIntent:
    """An intent with what became of it; `outcome` is None while that is open."""

    round_id: int
    intent: Intent
    created_at: float
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Request:
    """What a command asked of the daemon: to `join`, `train` or `claim` a round."""

    id: int
    kind: str
    key: RowKey
    args: dict[str, Any]

    @property
    def round_id(self) -> int:
        return self.key.round_id
