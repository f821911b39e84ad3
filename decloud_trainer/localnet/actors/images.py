"""The MNIST family as the v1 validator reads it: IDX files through torchvision's transforms."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.localnet.actors.datasets import IMAGES, LABELS, find_idx

BATCH = 64

# What the network's validator does to a grey image.
TRANSFORM = transforms.Compose(
    [
        transforms.Grayscale(3),
        transforms.Resize((32, 32)),
        transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ]
)


class IdxImages(Dataset[Any]):
    """One split of an MNIST-like folder.

    Items are ((3, 32, 32) float32 in -1..1, label).

    Args:
        folder: where the four IDX files are, plain or gzipped, in torchvision's layout or flat.
        split: ``train`` or ``test``.

    Raises:
        DatasetUnavailable: no such files, or files that aren't IDX.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.images = read_idx(find_idx(folder, split, IMAGES), dimensions=3)
        self.labels = read_idx(find_idx(folder, split, LABELS), dimensions=1)
        if len(self.images) != len(self.labels):
            raise DatasetUnavailable(
                f"{folder}: {len(self.images)} {split} images but {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.images[index])  # mode "L"
        return TRANSFORM(image), int(self.labels[index])


def batches(split: IdxImages) -> DataLoader[Any]:
    """The whole split in its order, 64 at a time."""
    return DataLoader(split, batch_size=BATCH, shuffle=False)


def read_idx(path: Path, *, dimensions: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The uint8 array of an IDX file, gzipped or not."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        zero, kind, rank = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
        if (zero, kind, rank) != (0, 8, dimensions):
            raise ValueError(f"its header is {raw[:4].hex()}")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape).copy()
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise DatasetUnavailable(f"{path} is not an IDX file of bytes: {error}") from error
