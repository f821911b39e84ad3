"""A small honest training loop, for competitors and for the shipped model."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch.utils.data import DataLoader, Subset

from decloud_trainer.localnet.actors.images import IdxImages
from decloud_trainer.localnet.actors.scoring import STEP
from decloud_trainer.localnet.actors.simple_cnn import SimpleCNN

BATCH = 32


def train(
    base: SimpleCNN, split: IdxImages, *, seed: int, batches: int, learning_rate: float = 0.001
) -> SimpleCNN:
    """A copy of `base` after `batches` steps of Adam on shuffled batches of 32.

    Only as many images are read as the steps need; fewer images than that are gone through
    several times.
    """
    torch.manual_seed(seed)
    model = copy.deepcopy(base).train()
    wanted = torch.randperm(len(split))[: batches * BATCH].tolist()
    loader = DataLoader(Subset(split, wanted), batch_size=BATCH, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    steps_left = batches
    for _ in range(math.ceil(batches / max(len(loader), 1))):
        for images, labels in loader:
            if steps_left == 0:
                break
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps_left -= 1
    return model.eval()


def gradient_of(base: SimpleCNN, trained: SimpleCNN) -> dict[str, torch.Tensor]:
    """What makes the validator arrive at `trained`: (base - trained) / 0.1, per parameter."""
    after = dict(trained.named_parameters())
    with torch.no_grad():
        return {
            name: ((before - after[name]) / STEP).clone()
            for name, before in base.named_parameters()
        }
