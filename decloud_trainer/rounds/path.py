"""Which step a state leads to. Each network generation declares its own path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from decloud_trainer.rounds.entry import State
from decloud_trainer.rounds.parts import Step


@dataclass(frozen=True, slots=True)
class Path:
    """Attributes:
    steps: the step of every state that isn't final. A generation without a join leaves JOINED
        out and gives FETCHED the training step.
    """

    steps: Mapping[State, Step]

    def __post_init__(self) -> None:
        needless = [state.value for state in self.steps if state.is_final]
        if needless:
            raise ValueError(f"final states have no step: {', '.join(needless)}")
