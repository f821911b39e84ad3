"""Small datasets in the published on-disk formats, for tests."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def colour(count: int, seed: int = 0, side: int = 32) -> tuple[Pixels, NDArray[np.int64]]:
    """Images (N, side, side, 3) and labels below ten."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    images[0], images[-1] = 0, 255
    return images, np.arange(count, dtype=np.int64) % 10


def idx_images(images: Pixels) -> bytes:
    """A file of the MNIST family: (N, side, side)."""
    return struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes()


def idx_labels(labels: Pixels) -> bytes:
    return struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + labels.tobytes()


def rows(images: Pixels) -> Pixels:
    """As CIFAR stores them: the red plane, the green, the blue."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def batch_of_python_2(images: Pixels, labels: NDArray[np.int64], key: str) -> bytes:
    """The bytes that Python 2's cPickle wrote: the form that was published."""

    def text(value: bytes) -> bytes:
        if len(value) < 256:
            return b"U" + bytes((len(value),)) + value
        return b"T" + struct.pack("<I", len(value)) + value

    def number(value: int) -> bytes:
        return b"K" + bytes((value,)) if 0 <= value < 256 else b"J" + struct.pack("<i", value)

    data = rows(images)
    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R("
    kind += number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    array += number(0) + b"\x85" + text(b"b") + b"\x87R("
    array += number(1) + number(len(data)) + number(data.shape[1]) + b"\x86" + kind + b"\x89"
    array += text(data.tobytes()) + b"tb"
    numbers = b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    name = text(b"batch_label") + b"q\x01" + text(b"training batch 1 of 5") + b"q\x02"
    items = name + text(b"data") + array + text(key.encode()) + numbers
    return b"\x80\x02}q\x00(" + items + b"u."


def batch_of_python_3(images: Pixels, labels: NDArray[np.int64], key: str, protocol: int) -> bytes:
    batch = {b"data": rows(images), key.encode(): [int(label) for label in labels]}
    return pickle.dumps(batch, protocol=protocol)


def write_cifar10(folder: Path, per_batch: int = 4) -> Path:
    """cifar-10-batches-py in `folder`: five batches to train on and one to test."""
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        (place / name).write_bytes(batch_of_python_2(*colour(per_batch, number), "labels"))
    return place


def write_cifar100(folder: Path) -> Path:
    place = folder / "cifar-100-python"
    place.mkdir(parents=True)
    for name, count in (("train", 20), ("test", 10)):
        images, labels = colour(count, count)
        batch = batch_of_python_2(images, labels + 90, "fine_labels")
        (place / name).write_bytes(batch)
    return place


def packed(place: Path, archive: Path) -> Path:
    """A published archive: the folder `place` in a .tar.gz."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(place, place.name)
    return archive


def mat_element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def mat_variable(name: str, shape: tuple[int, ...], data: bytes, zipped: bool = True) -> bytes:
    """An array of bytes, as MATLAB stores it: the first index runs fastest."""
    short_name = struct.pack("<HH", 1, len(name)) + name.encode().ljust(4, b"\0")
    inner = mat_element(6, struct.pack("<II", 9, 0))
    inner += mat_element(5, struct.pack(f"<{len(shape)}i", *shape))
    matrix = mat_element(14, inner + short_name + mat_element(2, data))
    if not zipped:
        return matrix
    small = zlib.compress(matrix)
    return struct.pack("<II", 15, len(small)) + small


MAT_HEADER = b"MATLAB 5.0 MAT-file".ljust(116) + bytes(8) + b"\x00\x01IM"


def svhn_file(images: Pixels, labels: NDArray[np.int64], zipped: bool = True) -> bytes:
    """As published; the digit 0 is called 10."""
    pixels = images.transpose(1, 2, 3, 0).tobytes(order="F")
    named = np.where(labels == 0, 10, labels).astype(np.uint8)
    shape = (32, 32, 3, len(images))
    return (
        MAT_HEADER
        + mat_variable("X", shape, pixels, zipped)
        + mat_variable("y", (len(images), 1), named.tobytes(), zipped)
    )


def npy(array: NDArray[np.generic]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
