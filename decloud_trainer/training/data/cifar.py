"""CIFAR-10 and CIFAR-100: the python and the binary version, extracted or as the .tar.gz."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decloud_trainer.training.data.cifar_pickle import ROW_BYTES, read_batch
from decloud_trainer.training.data.split import (
    ImageSplit,
    Labels,
    Pixels,
    Summary,
    read_exactly,
    unreadable,
    unusable,
)
from decloud_trainer.training.data.tars import members

# CIFAR-100's training set has 155 MB, a whole archive 186 MB.
MAX_MEMBER_BYTES = 256 * 1024**2
MAX_ARCHIVE_BYTES = 512 * 1024**2


@dataclass(frozen=True, slots=True)
class Layout:
    """One published version.

    Attributes:
        dataset: whose.
        folder: its folder, also inside its archive.
        archive: the archive's name.
        members: split -> file names.
        label_key: the key of the labels in a pickled batch; empty for the binary version.
        label_bytes: the bytes before each binary image; the last one is the label.
    """

    dataset: str
    folder: str
    archive: str
    members: dict[str, tuple[str, ...]]
    label_key: str = ""
    label_bytes: int = 0


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
LAYOUTS = (
    Layout(
        "cifar10",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        {"train": _BATCHES, "test": ("test_batch",)},
        label_key="labels",
    ),
    Layout(
        "cifar100",
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        {"train": ("train",), "test": ("test",)},
        label_key="fine_labels",
    ),
    Layout(
        "cifar10",
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        {"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)},
        label_bytes=1,
    ),
    Layout(
        "cifar100",
        "cifar-100-binary",
        "cifar-100-binary.tar.gz",
        {"train": ("train.bin",), "test": ("test.bin",)},
        label_bytes=2,
    ),
)


class Archive:
    """A .tar.gz whose members are unpacked once for all splits and questions. They stay in memory
    until they are taken for decoding, at most as long as a split of theirs lives."""

    def __init__(self, file: Path, layout: Layout) -> None:
        self._file, self._layout = file, layout
        self._members: dict[str, bytes] = {}

    def member(self, name: str, *, take: bool) -> bytes:
        """Its bytes; `take` for the last time. Raises like `read_archive`."""
        if name not in self._members:
            names = [each for split in self._layout.members.values() for each in split]
            self._members = read_archive(self._file, self._layout, names)
        return self._members.pop(name) if take else self._members[name]


@dataclass(frozen=True, slots=True)
class CifarSplit(ImageSplit):
    """The batches of a split, in `place`: their folder, or the archive with it."""

    layout: Layout
    place: Path
    names: tuple[str, ...]
    archive: Archive | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        if self.place.is_dir():
            return tuple(self.place / name for name in self.names)
        return (self.place,)

    @property
    def identity(self) -> str:
        return " ".join((self.layout.folder, *self.names))

    def summary(self) -> Summary:
        labels = np.concatenate([labels for _, labels in self._batches(take=False)])
        return Summary(len(labels), int(labels.max()) + 1, side=32, channels=3)

    def read(self) -> tuple[Pixels, Labels]:
        batches = list(self._batches(take=True))
        rows = np.concatenate([rows for rows, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        # Each row is a plane of red, one of green, one of blue.
        images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), labels

    def _batches(self, *, take: bool) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
        for name in self.names:
            file = self.place / name
            data = self.archive.member(name, take=take) if self.archive else _read_file(file)
            yield self._batch(data, file)

    def _batch(self, data: bytes, file: Path) -> tuple[NDArray[np.uint8], Labels]:
        if self.layout.label_bytes:
            return _binary_batch(data, self.layout.label_bytes, file)
        try:
            return read_batch(data, self.layout.label_key)
        except ValueError as error:
            raise unusable(file, "CIFAR batch", str(error)) from error


def find_splits(folder: Path, name: str = "") -> dict[str, CifarSplit]:
    """The splits in `folder`, which is or holds a CIFAR folder or archive, or is such an archive.

    Where there are several, that of the dataset `name` comes first.

    Raises:
        DatasetUnavailable: some of a split's batches are missing.
    """
    for layout in sorted(LAYOUTS, key=lambda layout: layout.dataset != name):
        for place in (folder / layout.folder, folder):
            if place.is_dir() and (splits := _in_folder(place, layout)):
                return splits
        for archive in (folder / layout.archive, folder):
            if archive.is_file() and archive.name == layout.archive:
                packed = Archive(archive, layout)
                return {
                    split: CifarSplit(layout, archive, names, packed)
                    for split, names in layout.members.items()
                }
    return {}


def _in_folder(place: Path, layout: Layout) -> dict[str, CifarSplit]:
    splits = {}
    for split, names in layout.members.items():
        missing = [name for name in names if not (place / name).is_file()]
        if missing and len(missing) < len(names):
            raise unusable(place, "CIFAR folder", f"it lacks {', '.join(missing)}")
        if not missing:
            splits[split] = CifarSplit(layout, place, names)
    return splits


def _binary_batch(data: bytes, label_bytes: int, file: Path) -> tuple[NDArray[np.uint8], Labels]:
    record = label_bytes + ROW_BYTES
    if not data or len(data) % record:
        raise unusable(file, "CIFAR batch", f"{len(data):,} bytes are no records of {record}")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
    return records[:, label_bytes:], records[:, label_bytes - 1].astype(np.int64)


def _read_file(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = read_exactly(stream, MAX_MEMBER_BYTES + 1)
    except OSError as error:
        raise unreadable(file, error) from error
    if len(data) > MAX_MEMBER_BYTES:
        raise unusable(file, "CIFAR batch", f"it has more than {MAX_MEMBER_BYTES:,} bytes")
    return data


def read_archive(file: Path, layout: Layout, names: Collection[str]) -> dict[str, bytes]:
    """The members `names` of an archive, by name; nothing is written to disk.

    Raises:
        DatasetUnavailable: one is missing, or the archive is damaged or too large.
    """
    found: dict[str, bytes] = {}
    for member in members(file, MAX_ARCHIVE_BYTES):
        folder, _, name = member.name.removeprefix("./").partition("/")
        if folder == layout.folder and name in names:
            if member.size > MAX_MEMBER_BYTES:
                raise unusable(file, "archive", f"its {member.name} has {member.size:,} bytes")
            found[name] = member.read()
    if missing := [name for name in names if name not in found]:
        raise unusable(file, "archive", f"it lacks {layout.folder}/{', '.join(missing)}")
    return found
