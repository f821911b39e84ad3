"""The learning rate over a run, as a factor of its peak: pure arithmetic on the step's number."""

from __future__ import annotations

import math

from decloud_trainer.training.strategy import Strategy

# The last part of a trapezoidal run, in which the rate falls.
FALL = 0.3
# After the planned steps, when a run goes on because it hasn't improved on its base yet: enough to
# learn, and no return to the peak.
RATE_BEYOND = 0.1


def rate(strategy: Strategy, step: int, total_steps: int) -> float:
    """The factor of the peak rate for one step, above 0 and at most 1.

    It rises evenly during the warm-up, and then falls: ``cosine`` along half a wave,
    ``triangular`` along a line, ``trapezoidal`` along one that begins late; all to nearly nothing
    at the last step. ``constant`` stays.

    Args:
        step: from 0.
        total_steps: how many are planned, at least 1. Whoever learns during a run how many there
            will be may change it: the factor is that of the new plan's same step.
    """
    if step >= total_steps:
        return 1.0 if strategy.schedule == "constant" else RATE_BEYOND
    rising = strategy.warmup * total_steps
    # The middle of the step's share of the run: neither the first step nor the last has no rate.
    now = step + 0.5
    if now < rising:
        return now / rising
    left = (total_steps - now) / (total_steps - rising)
    if strategy.schedule == "cosine":
        return 0.5 * (1.0 - math.cos(math.pi * left))
    if strategy.schedule == "triangular":
        return left
    if strategy.schedule == "trapezoidal":
        return min(1.0, (total_steps - now) / (FALL * total_steps))
    return 1.0
