"""What every on-disk format of data gives: splits that are summed up or read whole.

Files may come from strangers. Nothing in them is run, a stated size is believed only as far as
there are bytes, and everything has a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.spec import Modality

MAX_SIDE = 512
MAX_BYTES = 1024**3
PIECE_BYTES = 1 << 24

Inputs: TypeAlias = NDArray[Any]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Summary:
    """A split in numbers.

    Attributes:
        samples: how many.
        classes: the highest label plus one.
        modality: what an input is.
        side: of the images, in pixels; 0 for images of several sizes.
        channels: of the images, 1 or 3.
        columns: the names of the columns that inputs are made of, for text and tables.
        labels: the classes' names in the order of their numbers, where the files tell them.
    """

    samples: int
    classes: int
    modality: Modality = "image"
    side: int = 0
    channels: int = 0
    columns: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class Split(Protocol):
    """One split's files on disk. Both methods raise DatasetUnavailable for files that are damaged
    or don't fit together."""

    @property
    def modality(self) -> Modality: ...

    @property
    def transform(self) -> str:
        """Names what is stored of it, and how it was made: a part of the cache's file names.
        Changed whenever the decoding changes."""

    @property
    def files(self) -> Sequence[Traversable]:
        """All files that it is read from, in a fixed order."""

    @property
    def identity(self) -> str:
        """What decides the content besides the files' bytes, such as the names of folders."""

    def summary(self) -> Summary: ...

    def read(self) -> tuple[Inputs, Labels]:
        """Inputs and labels (N,). Images come as they lie on disk, uint8 (N, S, S) or
        (N, S, S, 3); text and tables as they're stored."""


class ImageSplit:
    """What all splits of images have in common."""

    __slots__ = ()

    @property
    def modality(self) -> Modality:
        return "image"

    @property
    def transform(self) -> str:
        """32x32 by PIL's bilinear filter; the rest is done on whole batches."""
        return "32-bilinear-2"


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unusable(file: Traversable, kind: str, what: str) -> DatasetUnavailable:
    return DatasetUnavailable(
        f"{file} is no usable {kind}: {what}", hint="replace it by a fresh copy"
    )


def unreadable(file: Traversable, error: OSError) -> DatasetUnavailable:
    return DatasetUnavailable(
        f"can't read {file}: {error.strerror or error}",
        hint="see that it is there, and that this user may read it",
    )


def read_exactly(stream: Readable, count: int) -> bytes:
    """`count` bytes, fewer only at the end; memory grows with what really comes."""
    pieces, missing = [], count
    while missing and (piece := stream.read(min(missing, PIECE_BYTES))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
