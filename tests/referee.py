"""The scoring side, written down once more: torch's own loader, torchvision's own transforms."""

from __future__ import annotations

import functools
import importlib.resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from decloud_trainer.training.data import idx

GREY = transforms.Compose(
    [
        transforms.Grayscale(num_output_channels=3),
        transforms.Resize(32),
        transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ]
)


@functools.cache
def held_out_digits() -> tuple[Tensor, Tensor]:
    """The packaged digits' test split: (N, 3, 32, 32) and labels (N,)."""
    split = idx.find_splits(importlib.resources.files("decloud_trainer.data") / "digits")["test"]
    images = torch.stack([GREY(Image.fromarray(each)) for each in idx.read_images(split.images)])
    return images, torch.from_numpy(idx.read_labels(split.labels).astype(np.int64))


def accuracy(network: nn.Module) -> float:
    """In percent, on these."""
    images, labels = held_out_digits()
    network.eval()
    with torch.no_grad():
        pairs = zip(images.split(64), labels.split(64), strict=True)
        correct = sum((network(part).argmax(1) == wanted).sum().item() for part, wanted in pairs)
    return 100.0 * correct / len(labels)


def scored(
    network: nn.Module, base: Path, gradient: Path, convention: str = "descent-0.1"
) -> tuple[float, float]:
    """Accuracy of the base and with the gradient applied, by either published rule."""
    network.load_state_dict(torch.load(base, weights_only=True))
    update = torch.load(gradient, weights_only=True)
    before = accuracy(network)
    with torch.no_grad():
        if convention == "descent-0.1":
            for name, parameter in network.named_parameters():
                parameter -= 0.1 * update[name]
        else:
            state = network.state_dict()
            for name in update:
                state[name] += 1.0 * update[name]
            network.load_state_dict(state)
    return before, accuracy(network)
