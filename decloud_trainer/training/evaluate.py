"""Accuracy, counted as the scoring side counts it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


def count_correct(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    each: Callable[[int], None] = lambda batch: None,
) -> tuple[int, int]:
    """(correct, total) of the highest logits over (inputs, labels) batches, in eval mode.

    In float32 without autocast: a preview is worth something only if the scoring side, which
    computes so, arrives at the same number. `each` is called with the number of batches done.
    """
    model.eval()
    correct = torch.zeros((), dtype=torch.int64)
    total = 0
    with torch.inference_mode():
        for number, (inputs, labels) in enumerate(batches, start=1):
            correct += (model(inputs).argmax(dim=1) == labels).sum().cpu()
            total += len(labels)
            each(number)
    return int(correct), total


def percent(correct: int, total: int) -> float:
    """100 x correct / total; 0 for nothing."""
    return 100.0 * correct / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a network does on labelled samples.

    Attributes:
        accuracy: in percent.
        loss: mean cross-entropy.
        predicted, present: how many classes it names, and how many there are among the labels.
    """

    accuracy: float
    loss: float
    predicted: int
    present: int

    @property
    def is_flat(self) -> bool:
        """Does it give one answer to everything, where there are several?"""
        return self.predicted < 2 <= self.present


def judge(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Verdict:
    """The verdict over (inputs, labels) batches, in eval mode and the caller's precision.

    Reads figures back from the device once, at the end.
    """
    model.eval()
    correct: Tensor | float = 0.0
    loss: Tensor | float = 0.0
    seen: list[Tensor] = []
    with torch.inference_mode():
        for inputs, labels in batches:
            logits = model(inputs).float()
            loss = loss + functional.cross_entropy(logits, labels, reduction="sum")
            answers = logits.argmax(dim=1)
            correct = correct + (answers == labels).sum()
            seen.append(torch.stack([answers, labels]))
    if not seen:
        raise ValueError("nothing to judge by")
    answers, labels = torch.cat(seen, dim=1)
    total = len(labels)
    return Verdict(
        percent(int(correct), total),
        float(loss) / total,
        len(answers.unique()),
        len(labels.unique()),
    )
