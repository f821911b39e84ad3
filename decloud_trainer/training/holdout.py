"""A part of the training data held out of the training, to choose the best state by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hold_out(
    labels: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(indices to train on, indices held out), each ascending, together all of `labels` (N,).

    Every class gives the same part, rounded; one that would give all it has keeps one. The same
    labels, fraction and seed make the same split on every machine and with every release of numpy.

    Args:
        fraction: from 0 (nothing is held out) to below 1.
        seed: any non-negative number.
    """
    # The legacy generator's stream is promised never to change.
    random = np.random.RandomState(seed % 2**32)
    order = random.permutation(len(labels))
    grouped = order[np.argsort(labels[order], kind="stable")]
    held = []
    for members in np.split(grouped, np.cumsum(np.unique(labels, return_counts=True)[1])[:-1]):
        wanted = min(int(fraction * len(members) + 0.5), len(members) - 1)
        held.append(members[: max(wanted, 0)])
    validation = np.sort(np.concatenate(held)).astype(np.int64)
    kept = np.ones(len(labels), dtype=bool)
    kept[validation] = False
    return np.flatnonzero(kept).astype(np.int64), validation
