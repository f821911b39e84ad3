"""What a run needs from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from decloud_trainer.training.checkpoint import Checkpoints
from decloud_trainer.training.results import Progress


@dataclass(frozen=True, slots=True)
class Hooks:
    """The caller's side of a run.

    Attributes:
        clock: unix seconds.
        progress: called about once a second.
        should_stop: asked before every batch.
        checkpoints: where the state is kept, so that a run may go on after a crash; None = nowhere.
    """

    clock: Callable[[], float]
    progress: Callable[[Progress], None] = lambda _: None
    should_stop: Callable[[], bool] = lambda: False
    checkpoints: Checkpoints | None = None
