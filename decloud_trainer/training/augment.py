"""Small changes to training images that their classes survive, made to whole batches at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from decloud_trainer.names import dataset_key


@dataclass(frozen=True, slots=True)
class Changes:
    """What may be done to an image of 32 x 32.

    Attributes:
        flip: half of the images are mirrored, left to right.
        shift: each is moved by up to so many pixels both ways; what comes in at a border is the
            border's pixel again.
    """

    flip: bool
    shift: int


NOTHING = Changes(flip=False, shift=0)
# Nothing is known of a stranger's images: mirrored writing would be another letter.
UNKNOWN = Changes(flip=False, shift=1)
# Digits and letters have a left and a right; clothes, animals and vehicles don't mind.
KNOWN = {
    "digits": UNKNOWN,
    "mnist": UNKNOWN,
    "emnist": UNKNOWN,
    "kmnist": UNKNOWN,
    "svhn": Changes(flip=False, shift=2),
    "fashionmnist": Changes(flip=True, shift=1),
    "cifar10": Changes(flip=True, shift=2),
    "cifar100": Changes(flip=True, shift=2),
}


def changes_for(augment: str, dataset: str) -> Changes:
    """What a strategy's ``augment`` means for a dataset's images."""
    return KNOWN.get(dataset_key(dataset), UNKNOWN) if augment == "light" else NOTHING


def augment(images: Tensor, changes: Changes, generator: torch.Generator) -> Tensor:
    """A changed copy, each image by its own draw; the same tensor when there is nothing to change.

    Args:
        images: (B, H, W) or (B, H, W, C), any dtype; on any device.
        generator: on the CPU, so that every device sees the same changes. It is drawn from equally
            often for every batch of B images; seed it by (seed, epoch, batch) and a resumed run
            sees what the uninterrupted one saw.
    """
    if changes == NOTHING:
        return images
    count, height, width = images.shape[:3]
    moved = torch.randint(-changes.shift, changes.shift + 1, (2, count, 1), generator=generator)
    mirrored = torch.randint(0, 2, (count, 1), generator=generator, dtype=torch.bool)
    rows = (torch.arange(height) + moved[0]).clamp_(0, height - 1)  # (B, H)
    columns = (torch.arange(width) + moved[1]).clamp_(0, width - 1)  # (B, W)
    if changes.flip:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    sources = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H * W)
    sources += torch.arange(count)[:, None] * (height * width)
    flat = images.flatten(0, 2)  # (B * H * W[, C])
    return flat[sources.flatten().to(images.device, non_blocking=True)].view(images.shape)
