"""Decoded data, as training sees it, and what is told of data that isn't decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data.split import Inputs
from decloud_trainer.training.results import DataInfo
from decloud_trainer.training.spec import Modality

SIDE = 32  # of the images that every round's network gets, in pixels


@dataclass(frozen=True, slots=True)
class Samples:
    """One split, mapped from disk; every sample can be addressed by its number.

    Attributes:
        inputs: images uint8 (N, 32, 32) grey or (N, 32, 32, 3) in colour; text int32 or int64
            token ids (N, L); tabular float32 (N, columns).
        labels: int64 (N,).
    """

    inputs: Inputs
    labels: NDArray[np.int64]
    modality: Modality = "image"

    def __len__(self) -> int:
        return len(self.labels)


def check_shapes(samples: Samples) -> None:
    """Inputs and labels are what their modality says, and as many.

    Raises:
        ValueError: they aren't.
    """
    inputs, labels = samples.inputs, samples.labels
    if labels.dtype != np.int64 or labels.ndim != 1:
        raise ValueError(f"labels are {labels.dtype} {labels.shape}, not int64 (N,)")
    if len(inputs) != len(labels):
        raise ValueError(f"there are {len(labels)} labels for {len(inputs)} inputs")
    kind, shape = inputs.dtype, inputs.shape[1:]
    good = {
        "image": kind == np.uint8 and shape in ((SIDE, SIDE), (SIDE, SIDE, 3)),
        "text": kind in (np.int32, np.int64) and len(shape) == 1,
        "tabular": kind == np.float32 and len(shape) == 1,
    }
    if not good[samples.modality]:
        raise ValueError(f"{samples.modality} inputs are {kind} {inputs.shape}")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A decoded dataset. A split that isn't there is None."""

    name: str
    info: DataInfo
    train: Samples | None
    test: Samples | None

    def split(self, which: str) -> Samples:
        """The split ``train`` or ``test``.

        Raises:
            DatasetUnavailable: the data has no such split.
        """
        samples = self.train if which == "train" else self.test
        if samples is None:
            raise DatasetUnavailable(
                f"Dataset not found: {self.name} has no {which} split here",
                hint=f"add its {which} files to its folder; as IDX files they are called "
                f"{'t10k' if which == 'test' else which}-images-... and -labels-...",
            )
        return samples


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds, told from its files without decoding. Absent splits count 0; the other
    fields are those of `split.Summary`."""

    format: str
    train: int
    test: int
    classes: int
    modality: Modality
    side: int
    channels: int
    columns: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def inputs(self) -> str:
        """What an input is, for people."""
        if self.modality == "image":
            size = f"{self.side}x{self.side}" if self.side else "any size"
            return f"images of {size}{' in colour' if self.channels == 3 else ''}"
        if self.modality == "text":
            return f"texts from {', '.join(self.columns)}" if self.columns else "texts"
        return f"rows of {len(self.columns)} numbers ({', '.join(self.columns[:6])}" + (
            ", ...)" if len(self.columns) > 6 else ")"
        )
