"""A strategy's optimiser for a model."""

from __future__ import annotations

import torch
from torch import nn

from decloud_trainer.training.device import Device
from decloud_trainer.training.strategy import Strategy

MOMENTUM = 0.9


def make_optimizer(
    strategy: Strategy, model: nn.Module, learning_rate: float, device: Device
) -> torch.optim.Optimizer:
    """Adam, AdamW, or SGD with Nesterov momentum, fused where the device has it.

    Weight decay is kept from biases and normalisations (tensors of one dimension): pulling them to
    zero only costs accuracy.
    """
    decayed = [value for value in model.parameters() if value.dim() > 1]
    others = [value for value in model.parameters() if value.dim() <= 1]
    groups = [
        {"params": part, "weight_decay": decay}
        for part, decay in ((decayed, strategy.weight_decay), (others, 0.0))
        if part
    ]
    # torch's fused optimisers take real parameters only.
    real = all(value.is_floating_point() for value in model.parameters())
    fused = real and device.torch.type in ("cpu", "cuda")
    if strategy.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=learning_rate, momentum=MOMENTUM, nesterov=True, fused=fused
        )
    kind = torch.optim.AdamW if strategy.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=learning_rate, fused=fused)
