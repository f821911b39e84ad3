"""What the validator says about a round that it has scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TrainerReport:
    """One submission's score.

    Attributes:
        before, after: accuracy in percent on the held-out split, without and with it; None where
            nothing could be scored.
        improvement: percentage points; -100 for a submission that could not be scored.
        bps: its share of the trainers' pool in basis points.
        error: why it could not be scored, or "".
    """

    trainer: str
    before: float | None
    after: float | None
    improvement: float
    bps: int
    error: str


@dataclass(frozen=True, slots=True)
class RoundReport:
    """A scored round.

    Attributes:
        samples: size of the held-out split.
        settled: False when no submission could be scored: the round is left to its time-out.
        error: why the round as such could not be scored (then all share equally), or "".
    """

    round_id: int
    baseline: float | None
    samples: int
    settled: bool
    error: str
    trainers: tuple[TrainerReport, ...]

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> RoundReport:
        """From the validator's ``scored`` event."""
        baseline = event["baseline"]
        return cls(
            round_id=event["round_id"],
            baseline=baseline,
            samples=event["samples"],
            settled=event["settled"],
            error=event["error"],
            trainers=tuple(TrainerReport(before=baseline, **score) for score in event["scores"]),
        )

    def of(self, trainer: str) -> TrainerReport | None:
        """The score of that trainer, None if it submitted nothing."""
        return next((report for report in self.trainers if report.trainer == trainer), None)
