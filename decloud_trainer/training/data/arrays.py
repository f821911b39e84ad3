"""NumPy arrays of images and labels: one or several .npz files, or pairs of .npy files.

Images are uint8 (N, S, S), (N, S, S, 1) or (N, S, S, 3), labels any whole numbers (N,) or (N, 1).
Arrays are called ``x_train`` and ``y_train``, or ``train_images`` and ``train_labels``, likewise
with ``test`` or ``val``; in a file ``train.npz`` plain ``images`` and ``labels`` will do. Arrays of
objects are pickles: they are refused.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
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
    unusable,
)

# In this order: validation data stand in for test data that aren't there.
SPLITS = {"train": ("train",), "test": ("test", "val")}
IMAGES = ("{}_images", "x_{}", "{}_x", "{}_data")
LABELS = ("{}_labels", "y_{}", "{}_y", "{}_targets")
_PLAIN = {"images": "images", "x": "images", "data": "images"} | {
    "labels": "labels",
    "y": "labels",
    "targets": "labels",
}
MAX_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class Array:
    """An array's place: a .npy file, or an entry of a .npz file."""

    file: Path
    entry: str = ""


@dataclass(frozen=True, slots=True)
class ArraySplit(ImageSplit):
    """A pair of arrays."""

    images: Array
    labels: Array

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys((self.images.file, self.labels.file)))

    @property
    def identity(self) -> str:
        return f"{self.images.entry} {self.labels.entry}".strip()

    def summary(self) -> Summary:
        shape = self._image_shape()
        labels = self._labels(shape[0])
        channels = shape[3] if len(shape) == 4 else 1
        return Summary(shape[0], int(labels.max()) + 1, side=shape[1], channels=channels)

    def read(self) -> tuple[Pixels, Labels]:
        shape = self._image_shape()
        labels = self._labels(shape[0])
        images = _read(self.images)
        return (images[..., 0] if shape[3:] == (1,) else images), labels

    def _image_shape(self) -> tuple[int, ...]:
        shape, dtype = _header(self.images)
        square = len(shape) in (3, 4) and shape[1] == shape[2] and 1 <= shape[1] <= MAX_SIDE
        if dtype != np.uint8 or not square or shape[3:] not in ((), (1,), (3,)):
            raise _bad(
                self.images,
                f"it is {dtype} {shape}, not uint8 (N, S, S) or (N, S, S, 3) with S up to"
                f" {MAX_SIDE}",
            )
        return shape

    def _labels(self, samples: int) -> Labels:
        shape, dtype = _header(self.labels)
        if dtype.kind not in "iu" or shape not in ((samples,), (samples, 1)):
            raise _bad(self.labels, f"it is {dtype} {shape}, not {samples} whole numbers")
        labels = _read(self.labels).reshape(-1)
        if labels.min() < 0 or labels.max() >= 2**31:
            raise _bad(self.labels, "it has labels that are no class numbers")
        return labels.astype(np.int64)


def find_splits(place: Path) -> dict[str, ArraySplit]:
    """The splits in the folder `place`, or in the .npz file that it is.

    Raises:
        DatasetUnavailable: an .npz file there is damaged.
    """
    arrays = _arrays(place)
    splits = {}
    for split, prefixes in SPLITS.items():
        for prefix in prefixes:
            images, labels = (
                next(
                    (arrays[key] for each in names if (key := each.format(prefix)) in arrays), None
                )
                for names in (IMAGES, LABELS)
            )
            if images and labels and split not in splits:
                splits[split] = ArraySplit(images, labels)
    return splits


def _arrays(place: Path) -> dict[str, Array]:
    """All arrays there, by name in lower case with underscores."""
    if place.is_dir():
        files = sorted(file for file in place.iterdir() if file.suffix in (".npy", ".npz"))
    else:
        files = [place] if place.suffix == ".npz" and place.is_file() else []
    found: dict[str, Array] = {}
    for file in files:
        stem = spelled(file.stem)
        if file.suffix == ".npy":
            found.setdefault(stem, Array(file))
            continue
        for entry in _entries(file):
            name = spelled(entry.removesuffix(".npy"))
            if name in _PLAIN:
                name = f"{stem}_{_PLAIN[name]}"
            found.setdefault(name, Array(file, entry))
    return found


def spelled(name: str) -> str:
    """A name as it is compared with those that are known."""
    return name.lower().replace("-", "_")


def _bad(array: Array, what: str) -> DatasetUnavailable:
    file = array.file / array.entry if array.entry else array.file
    return unusable(file, "array", what)


def _entries(file: Path) -> list[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except damage.ZIP as error:
        raise unusable(file, ".npz file", f"damaged ({error})") from error
    if len(names) > MAX_ENTRIES:
        raise unusable(file, ".npz file", f"it has {len(names)} entries")
    return names


def _header(array: Array) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with _opened(array) as stream:
        shape, dtype, _ = _checked_header(array, stream)
    return shape, dtype


def _read(array: Array) -> NDArray[Any]:
    with _opened(array) as stream:
        shape, dtype, in_columns = _checked_header(array, stream)
        expected = math.prod(shape) * dtype.itemsize
        data = read_exactly(stream, expected)
        if len(data) != expected or stream.read(1):
            raise _bad(array, f"its bytes are not the {expected:,} that its header states")
    flat = np.frombuffer(data, dtype=dtype)
    return flat.reshape(shape, order="F" if in_columns else "C")


@contextmanager
def _opened(array: Array) -> Iterator[IO[bytes]]:
    try:
        if not array.entry:
            with array.file.open("rb") as stream:
                yield stream
            return
        with zipfile.ZipFile(array.file) as archive, archive.open(array.entry) as entry:
            yield entry
    except damage.ZIP as error:
        raise _bad(array, f"damaged ({error})") from error


def _checked_header(array: Array, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """(shape, dtype, column order): numbers only, of a size that can be."""
    try:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise _bad(array, f"it has version {version} of the format")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, in_columns, dtype = read(stream)
    except damage.NPY_HEADER as error:
        raise _bad(array, f"damaged ({error})") from error
    if dtype.hasobject or dtype.kind not in "iuf" or not shape or min(shape) < 1:
        raise _bad(array, f"it is {dtype} {shape}, no plain array of numbers")
    if math.prod(shape) * dtype.itemsize > MAX_BYTES:
        raise _bad(array, f"its header claims more than {MAX_BYTES:,} bytes")
    return shape, dtype, in_columns
