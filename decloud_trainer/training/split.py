"""What every on-disk format of image data gives: splits that are summed up or read whole.

Files may come from strangers. Nothing in them is run, a stated size is believed only as far as
there are bytes, and everything has a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from decloud_trainer.errors import DatasetUnavailable

MAX_SIDE = 512
MAX_BYTES = 1024**3
PIECE_BYTES = 1 << 24

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Summary:
    """A split in numbers. `side` is 0 for images of several sizes; `channels` is 1 or 3;
    `classes` is the highest label plus one."""

    samples: int
    side: int
    channels: int
    classes: int


class Split(Protocol):
    """One split's files on disk. Both methods raise DatasetUnavailable for files that are damaged
    or don't fit together."""

    @property
    def files(self) -> Sequence[Traversable]:
        """All files that it is read from, in a fixed order."""

    @property
    def identity(self) -> str:
        """What decides the content besides the files' bytes, such as the names of folders."""

    def summary(self) -> Summary: ...

    def read(self) -> tuple[Pixels, Labels]:
        """Images (N, H, W) or (N, H, W, 3), labels (N,)."""


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unusable(file: Traversable, kind: str, what: str) -> DatasetUnavailable:
    return DatasetUnavailable(
        f"{file} is no usable {kind}: {what}", hint="replace it by a fresh copy"
    )


def read_exactly(stream: Readable, count: int) -> bytes:
    """`count` bytes, fewer only at the end; memory grows with what really comes."""
    pieces, missing = [], count
    while missing and (piece := stream.read(min(missing, PIECE_BYTES))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
