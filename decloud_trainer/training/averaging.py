"""A running mean of the weights: less noisy than the last step's, good at any moment."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from decloud_trainer.training.strategy import Strategy

# The mean spans about the last 1/(SHARPNESS + 1) of the steps so far, however many these are: a
# fixed decay would either keep the beginning of a short run or forget most of a long one.
SHARPNESS = 12
# Later on neighbours are alike, and every so many steps will do.
ALL_BEFORE, EVERY = 256, 4


class Average:
    """The mean of a model's parameters over its latest steps, on the model's device.

    It costs one pass over the parameters in each of the first steps and in every fourth later on,
    and as much memory as they take; nothing waits for the device. Buffers are not averaged: a
    network's running statistics are measured anew for the weights that are handed in.
    """

    def __init__(self, model: nn.Module, strategy: Strategy) -> None:
        self._latest: dict[str, Tensor] = {}
        if strategy.averaging == "ema":
            self._latest = {
                name: value.detach()  # the same memory, in which the optimiser changes it
                for name, value in model.named_parameters()
                if value.requires_grad
            }
        self._mean = {
            name: value.to(_precise(value.dtype), copy=True) for name, value in self._latest.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after one step; `step` is its number in the run, from 0."""
        since = 1 if step < ALL_BEFORE else EVERY
        if not self._mean or step % since:
            return
        # The first step's weights count wholly.
        share = since * (SHARPNESS + 1) / (step + SHARPNESS + 1)
        latest = [self._latest[name].to(mean.dtype) for name, mean in self._mean.items()]
        torch._foreach_lerp_(list(self._mean.values()), latest, share)

    def weights(self) -> dict[str, Tensor]:
        """The mean, to be laid over the model's state by name; empty when nothing is averaged.

        These are the tensors that `update` changes: copy what shall stay.
        """
        return dict(self._mean)

    def state(self) -> dict[str, Tensor]:
        """What `load` needs to go on from here, by the parameters' names."""
        return dict(self._mean)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`.

        Raises:
            KeyError: it lacks a parameter.
        """
        for name, mean in self._mean.items():
            mean.copy_(state[name])


def _precise(dtype: torch.dtype) -> torch.dtype:
    """A mean of half-precision numbers needs more digits than they have."""
    return torch.promote_types(dtype, torch.float32)
