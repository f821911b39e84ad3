"""SVHN's ``train_32x32.mat`` and ``test_32x32.mat``: MATLAB 5 files with an array of bytes.

Only what these files need is read: two real arrays of numbers, ``X`` (32, 32, 3, N) and ``y``
(N, 1). The format: MathWorks, "MAT-File Format", chapter 1 (Level 5).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from decloud_trainer.training.data.split import (
    MAX_BYTES,
    ImageSplit,
    Labels,
    Pixels,
    Readable,
    Summary,
    read_exactly,
    unreadable,
    unusable,
)

FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
HEADER_BYTES = 128
MAX_SAMPLES = 1_000_000
MAX_VARIABLES = 16
_MATRIX, _COMPRESSED = 14, 15
_INT8, _INT32, _UINT32 = 1, 5, 6
_COMPLEX_FLAG = 0x0800
# The types of stored numbers, little-endian.
_DTYPES = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 9: "<f8"}


@dataclass(frozen=True, slots=True)
class SvhnSplit(ImageSplit):
    """A split's file."""

    file: Path
    identity: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.file,)

    def summary(self) -> Summary:
        found = read_mat(self.file, with_values_of={"y"})
        samples, labels = _samples(self.file, found), _labels(self.file, found)
        return Summary(samples, int(labels.max()) + 1, side=32, channels=3)

    def read(self) -> tuple[Pixels, Labels]:
        found = read_mat(self.file, with_values_of={"X", "y"})
        _samples(self.file, found)
        _, values = found["X"]
        if values is None or values.dtype != np.uint8:
            raise unusable(self.file, "SVHN file", "its X holds no bytes")
        images = values.reshape(found["X"][0], order="F").transpose(3, 0, 1, 2)
        return np.ascontiguousarray(images), _labels(self.file, found)


Variable = tuple[tuple[int, ...], "np.ndarray | None"]


def find_splits(folder: Path) -> dict[str, SvhnSplit]:
    """The splits whose files lie in `folder`."""
    files = {split: folder / name for split, name in FILES.items()}
    return {split: SvhnSplit(file) for split, file in files.items() if file.is_file()}


def _samples(file: Path, found: dict[str, Variable]) -> int:
    for name in ("X", "y"):
        if name not in found:
            raise unusable(file, "SVHN file", f"it has no {name}")
    shape, labels = found["X"][0], math.prod(found["y"][0])
    if len(shape) != 4 or shape[:3] != (32, 32, 3) or not 1 <= shape[3] <= MAX_SAMPLES:
        raise unusable(file, "SVHN file", f"its X has the shape {shape}, not (32, 32, 3, N)")
    if labels != shape[3]:
        raise unusable(file, "SVHN file", f"it has {labels} labels for {shape[3]} images")
    return shape[3]


def _labels(file: Path, found: dict[str, Variable]) -> Labels:
    values = found["y"][1]
    if values is None or not np.isin(values, np.arange(11)).all():
        raise unusable(file, "SVHN file", "its labels are not from 0 to 10")
    # The files call the digit 0 "10"; its class is 0, as in torchvision.
    return values.astype(np.int64) % 10


def read_mat(file: Path, with_values_of: set[str]) -> dict[str, Variable]:
    """The numeric arrays of a MATLAB 5 file: name -> (shape, values in the file's order or None).

    Raises:
        DatasetUnavailable: it is no such file, is damaged or too large.
    """
    try:
        with file.open("rb") as stream:
            size = file.stat().st_size
            header = stream.read(HEADER_BYTES)
            if len(header) != HEADER_BYTES or header[124:] != b"\x00\x01IM":
                raise ValueError("it is no MATLAB 5 file of a little-endian machine")
            return dict(_variables(stream, size, with_values_of))
    except OSError as error:
        raise unreadable(file, error) from error
    except (ValueError, struct.error, zlib.error) as error:
        raise unusable(file, "SVHN file", str(error)) from error


def _variables(
    stream: IO[bytes], size: int, with_values_of: set[str]
) -> Iterator[tuple[str, Variable]]:
    count = 0
    while (position := stream.tell()) < size:
        count += 1
        if count > MAX_VARIABLES:
            raise ValueError(f"it has more than {MAX_VARIABLES} variables")
        kind, length = struct.unpack("<II", stream.read(8))
        if position + 8 + length > size:
            raise ValueError("it is cut off")
        if kind == _COMPRESSED:
            inner: Readable = _Inflating(stream, length)
            kind, _ = struct.unpack("<II", read_exactly(inner, 8))
        else:
            inner = stream
        if kind != _MATRIX:
            raise ValueError(f"it holds an element of type {kind}, no array")
        yield _variable(inner, with_values_of)
        stream.seek(position + 8 + length)


class _Inflating:
    """What a compressed element unpacks to, piece by piece, no more than is asked for."""

    def __init__(self, stream: IO[bytes], length: int) -> None:
        self._stream = stream
        self._left = length
        self._inflate = zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        data = self._inflate.unconsumed_tail
        while True:
            if not data and self._left:
                data = self._stream.read(min(self._left, 1 << 20))
                self._left = self._left - len(data) if data else 0
            found = self._inflate.decompress(data, size)
            if found or self._inflate.eof or not (self._left or self._inflate.unconsumed_tail):
                return found
            data = self._inflate.unconsumed_tail


def _variable(stream: Readable, with_values_of: set[str]) -> tuple[str, Variable]:
    flags = _element(stream, {_UINT32}, 8)[1]
    if int.from_bytes(flags[:4], "little") & _COMPLEX_FLAG:
        raise ValueError("it holds complex numbers")
    raw_shape = _element(stream, {_INT32}, 64)[1]
    shape = struct.unpack(f"<{len(raw_shape) // 4}i", raw_shape)
    name = _element(stream, {_INT8}, 64)[1].decode("latin-1")
    if name not in with_values_of:
        return name, (shape, None)
    if any(side < 1 for side in shape) or math.prod(shape) > MAX_BYTES:
        raise ValueError(f"its {name} claims the shape {shape}")
    kind, data = _element(stream, set(_DTYPES), math.prod(shape) * 8)
    values = np.frombuffer(data, dtype=_DTYPES[kind])
    if len(values) != math.prod(shape):
        raise ValueError(f"its {name} has {len(values):,} values for the shape {shape}")
    return name, (shape, values)


def _element(stream: Readable, kinds: set[int], max_bytes: int) -> tuple[int, bytes]:
    """(type, data) of the next element, with its padding read."""
    kind, size = struct.unpack("<II", read_exactly(stream, 8))
    if kind >> 16:  # up to four bytes lie within the tag
        kind, size, data = kind & 0xFFFF, kind >> 16, struct.pack("<I", size)[: kind >> 16]
    else:
        if size > min(max_bytes, MAX_BYTES):
            raise ValueError(f"it claims an element of {size:,} bytes")
        data = read_exactly(stream, size)
        read_exactly(stream, -size % 8)
    if kind not in kinds or len(data) != size:
        raise ValueError(f"it is cut off, or has an element of type {kind} where none belongs")
    return kind, data
