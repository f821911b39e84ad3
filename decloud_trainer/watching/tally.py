"""What only this session knows: how far trainings are, and how many steps failed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from decloud_trainer.rounds.engine import Told
from decloud_trainer.rounds.parts import Progress


@dataclass(slots=True)
class Running:
    """The latest words of a round's child.

    Attributes:
        done: 0 to 1; None where that isn't told.
    """

    done: float | None
    samples_per_s: float | None
    loss: float | None


@dataclass(slots=True)
class Tally:
    """Kept up to date by whoever hears the daemon's events."""

    failures: Counter[str] = field(default_factory=Counter)  # by the state whose step failed
    running: dict[int, Running] = field(default_factory=dict)  # by round id

    def event(self, told: Told) -> None:
        if told.problem:
            self.failures[told.entry.state.value] += 1
        if told.moved:
            self.running.pop(told.entry.key.round_id, None)

    def progress(self, told: Progress, done: float | None) -> None:
        values = told.values
        self.running[told.round_id] = Running(
            done, _number(values, "samples_per_s"), _number(values, "loss")
        )


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
