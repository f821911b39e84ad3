"""What the training loop knows of the thing that it trains."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor, nn

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Step:
    """One batch's outcome; the tensors stay on the device, so that no step waits for it.

    Attributes:
        loss: scalar, the mean over the batch's samples; carries the gradient.
        samples: how many samples the batch had.
        sums: scalars to be summed over an epoch and read by `Task.metrics`; no gradient.
    """

    loss: Tensor
    samples: int
    sums: Mapping[str, Tensor]


class Task(Protocol[Batch]):
    """A model, its data and its loss. `train` knows nothing else of them.

    `batches(epoch)` gives the same batches in the same order whenever it is called with the same
    epoch, wherever it starts: that is what makes a run repeatable and resumable. What is drawn at
    random for a batch is drawn from its epoch and number, or from torch's own generators, whose
    state a checkpoint holds.
    """

    @property
    def model(self) -> nn.Module:
        """On its device, in the memory format that it trains best in."""

    @property
    def batches_per_epoch(self) -> int: ...

    def batches(self, epoch: int, start: int = 0) -> Iterable[Batch]:
        """The epoch's batches from number `start` on; both count from where a run begins, the
        epochs from 1 and the batches from 0."""

    def step(self, batch: Batch) -> Step:
        """Forward pass and loss. The loop does the backward pass."""

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        """The batch in at most so many parts, none smaller than what the model can train on; a
        batch that can't be split comes back whole."""

    def metrics(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        """The epoch's figures (e.g. ``accuracy`` in percent) from the sums of its steps."""

    def extra_state(self) -> dict[str, Tensor]:
        """What besides the model's own state a result needs; often nothing. A checkpoint holds
        it, too, and gives it back by copying into these very tensors."""


def seed_for(seed: int, epoch: int, purpose: str) -> int:
    """A 63-bit seed for one use in one epoch.

    Each epoch is seeded anew, so that it depends on nothing that happens between two of them.
    """
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
