"""A curve drawn in text, for terminals and logs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from decloud_trainer.cli.output import shows_signs

HEIGHT = 10
WIDEST = 8
# A character cell is as many of these high as there are signs behind the blank.
EIGHTHS = " ▁▂▃▄▅▆▇█"
PLAIN = " #"


def columns_plot(values: Sequence[float], width: int, height: int = HEIGHT) -> list[str]:
    """Lines of a column chart, the highest value's line first, with the scale on the left.

    More values than columns are averaged into columns, and few are drawn wider; all values are
    finite, at least one.
    """
    signs = EIGHTHS if shows_signs() else PLAIN
    low, high = min(values), max(values)
    scale = max(len(f"{value:.4g}") for value in (low, high))
    room = max(1, width - scale - 2)
    shown = _averaged(values, room)
    wide = min(WIDEST, room // len(shown))
    steps = len(signs) - 1
    span = high - low or 1.0
    # The lowest value has one step too, or it would not be seen.
    heights = [1 + round((value - low) / span * (height * steps - 1)) for value in shown]
    lines = []
    for row in range(height - 1, -1, -1):
        label = f"{high:.4g}" if row == height - 1 else f"{low:.4g}" if row == 0 else ""
        cells = (signs[max(0, min(steps, filled - row * steps))] * wide for filled in heights)
        lines.append(f"{label:>{scale}} |{''.join(cells)}".rstrip())
    return lines


def _averaged(values: Sequence[float], most: int) -> list[float]:
    if len(values) <= most:
        return list(values)
    edges = [number * len(values) // most for number in range(most + 1)]
    parts = [values[start:end] for start, end in itertools.pairwise(edges)]
    return [sum(part) / len(part) for part in parts]
