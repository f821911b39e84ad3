"""Accuracy, counted as the scoring side counts it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


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
