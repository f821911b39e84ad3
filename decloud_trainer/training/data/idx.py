"""MNIST-family IDX files, plain or gzipped: found by name, read strictly, bounded in size.

A file is a magic number (0, 0, type 8 = uint8, dimensions), the dimensions as big-endian uint32,
then exactly that many bytes. Two files make a split: images (N, H, W) and labels (N).
"""

from __future__ import annotations

import contextlib
import gzip
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training import damage
from decloud_trainer.training.data.split import (
    MAX_BYTES,
    MAX_SIDE,
    ImageSplit,
    Labels,
    Pixels,
    Summary,
    read_exactly,
    unreadable,
    unusable,
)

# EMNIST has six ways to split its letters and digits; the network's is "balanced".
SPLITS = {
    "train": ("train", "emnist-balanced-train"),
    "test": ("t10k", "test", "emnist-balanced-test"),
}


@dataclass(frozen=True, slots=True)
class IdxSplit(ImageSplit):
    """The two files of a split. They may lie in a folder or inside the package."""

    images: Traversable
    labels: Traversable
    identity: str = ""

    @property
    def files(self) -> tuple[Traversable, ...]:
        return self.images, self.labels

    def summary(self) -> Summary:
        samples, side = self._checked_shape()
        return Summary(samples, int(read_labels(self.labels).max()) + 1, side=side, channels=1)

    def read(self) -> tuple[Pixels, Labels]:
        self._checked_shape()
        return read_images(self.images), read_labels(self.labels).astype(np.int64)

    def _checked_shape(self) -> tuple[int, int]:
        """(samples, side) of two files that fit together."""
        samples, side, _ = shape_of(self.images, 3)
        (labels,) = shape_of(self.labels, 1)
        if samples != labels:
            raise bad(self.labels, f"it has {labels} labels for {samples} images")
        return samples, side


def find_splits(folder: Traversable) -> dict[str, IdxSplit]:
    """The splits (``train``, ``test``) that `folder` itself holds; a lone file is no split."""
    if not folder.is_dir():
        return {}
    files = {entry.name: entry for entry in folder.iterdir() if entry.is_file()}
    found = {}
    for split, prefixes in SPLITS.items():
        for prefix in prefixes:
            images = _named(files, prefix, "images", 3)
            labels = _named(files, prefix, "labels", 1)
            if images and labels and split not in found:
                found[split] = IdxSplit(images, labels)
    return found


def _named(
    files: dict[str, Traversable], prefix: str, what: str, dimensions: int
) -> Traversable | None:
    for separator in ("-", "."):
        for suffix in ("", ".gz"):
            name = f"{prefix}-{what}{separator}idx{dimensions}-ubyte{suffix}"
            if name in files:
                return files[name]
    return None


def read_images(file: Traversable) -> NDArray[np.uint8]:
    """uint8 (N, side, side).

    Raises:
        DatasetUnavailable: it is no such file, or is damaged.
    """
    return _read(file, 3)


def read_labels(file: Traversable) -> NDArray[np.uint8]:
    """uint8 (N,). Raises like `read_images`."""
    return _read(file, 1)


def shape_of(file: Traversable, dimensions: int) -> tuple[int, ...]:
    """The shape that the header states, checked; reads nothing more."""
    with _open(file) as stream:
        return _header(file, stream, dimensions)


def bad(file: Traversable, what: str) -> DatasetUnavailable:
    return unusable(file, "IDX file", what)


@contextlib.contextmanager
def _open(file: Traversable) -> Iterator[IO[bytes]]:
    try:
        stream = file.open("rb")
    except OSError as error:
        raise unreadable(file, error) from error
    with stream:  # a GzipFile doesn't close what it was given
        if file.name.endswith(".gz"):
            yield cast(IO[bytes], gzip.GzipFile(fileobj=stream))
        else:
            yield stream


def _take(file: Traversable, stream: IO[bytes], count: int) -> bytes:
    try:
        return read_exactly(stream, count)
    except damage.GZIP as error:
        raise bad(file, f"damaged ({error})") from error


def _header(file: Traversable, stream: IO[bytes], dimensions: int) -> tuple[int, ...]:
    magic = _take(file, stream, 4)
    if magic != bytes((0, 0, 8, dimensions)):
        raise bad(file, f"it starts with {magic.hex() or 'nothing'}, not 000008{dimensions:02x}")
    raw = _take(file, stream, 4 * dimensions)
    if len(raw) != 4 * dimensions:
        raise bad(file, "its header is cut off")
    shape = struct.unpack(f">{dimensions}I", raw)
    if shape[0] == 0:
        raise bad(file, "it holds nothing")
    if dimensions == 3 and (shape[1] != shape[2] or not 1 <= shape[1] <= MAX_SIDE):
        raise bad(
            file, f"its images have {shape[1]}x{shape[2]} pixels, not square up to {MAX_SIDE}"
        )
    if np.prod(shape, dtype=np.float64) > MAX_BYTES:
        raise bad(file, f"its header claims more than {MAX_BYTES:,} bytes")
    return shape


def _read(file: Traversable, dimensions: int) -> NDArray[np.uint8]:
    with _open(file) as stream:
        shape = _header(file, stream, dimensions)
        expected = int(np.prod(shape))
        data = _take(file, stream, expected)
        if len(data) < expected:
            raise bad(file, f"it ends {expected - len(data):,} bytes before its {expected:,}")
        if _take(file, stream, 1):
            raise bad(file, f"it goes on after its {expected:,} bytes")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
