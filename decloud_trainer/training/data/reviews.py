"""IMDB's movie reviews as published: the folder aclImdb, or the archive aclImdb_v1.tar.gz.

The archive is read in passing; nothing of it is unpacked to disk. Negative reviews are class 0,
positive ones class 1.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data.rows import MAX_ROWS, Row
from decloud_trainer.training.data.split import unreadable, unusable
from decloud_trainer.training.data.tars import Member, members

FOLDER, ARCHIVE = "aclImdb", "aclImdb_v1.tar.gz"
_REVIEW = re.compile(rf"(?:\./)?{FOLDER}/(train|test)/(neg|pos)/[^/]+\.txt")
KINDS = ("neg", "pos")  # the alphabet gives them their numbers
MAX_REVIEW_BYTES = 1 << 20
# 340 MB as published; half of that are reviews without a label.
MAX_ARCHIVE_BYTES = 1024**3


@dataclass(frozen=True, slots=True)
class ReviewFiles:
    """One file per review: neg/*.txt and pos/*.txt."""

    folder: Path
    files: tuple[Path, ...]

    @property
    def identity(self) -> str:
        return repr([f"{file.parent.name}/{file.name}" for file in self.files])

    @property
    def columns(self) -> tuple[str, ...]:
        return ("review",)

    def labels(self) -> Iterator[str]:
        return (file.parent.name for file in self.files)

    def rows(self) -> Iterator[Row]:
        for file in self.files:
            try:
                with file.open("rb") as stream:
                    data = stream.read(MAX_REVIEW_BYTES + 1)
            except OSError as error:
                raise unreadable(file, error) from error
            yield (_text(data, file, file.name),), file.parent.name


@dataclass(frozen=True, slots=True)
class ReviewArchive:
    """One split of the archive, in the order of its members."""

    archive: Path
    split: str

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.archive,)

    @property
    def identity(self) -> str:
        return self.split

    @property
    def columns(self) -> tuple[str, ...]:
        return ("review",)

    def labels(self) -> Iterator[str]:
        try:
            seen = self.archive.stat()
        except OSError as error:
            raise unreadable(self.archive, error) from error
        return iter(_labels(self.archive, (seen.st_mtime_ns, seen.st_size))[self.split])

    def rows(self) -> Iterator[Row]:
        for member, split, kind in _reviews(self.archive):
            if split == self.split:
                yield (_text(member.read(), self.archive, member.name),), kind


@functools.lru_cache(maxsize=2)
def _labels(archive: Path, _: tuple[int, int]) -> dict[str, tuple[str, ...]]:
    """Split -> labels, in one pass, which takes seconds. A changed file has a new time or size."""
    found: dict[str, list[str]] = {"train": [], "test": []}
    for _member, split, kind in _reviews(archive):
        found[split].append(kind)
    return {split: tuple(labels) for split, labels in found.items()}


def _reviews(archive: Path) -> Iterator[tuple[Member, str, str]]:
    """(member, split, kind) of each review that has a label, in passing."""
    for member in members(archive, MAX_ARCHIVE_BYTES):
        if found := _REVIEW.fullmatch(member.name):
            if member.size > MAX_REVIEW_BYTES:
                raise _too_long(archive, member.name)
            yield member, found[1], found[2]


def find(place: Path) -> dict[str, ReviewFiles | ReviewArchive]:
    """The splits of the folder, or of the archive that `place` is or holds."""
    if place.is_dir():
        for folder in (place, place / FOLDER):
            splits = {split: _files(folder / split) for split in ("train", "test")}
            if all((folder / split / kind).is_dir() for split in splits for kind in KINDS):
                return {
                    split: ReviewFiles(folder, files) for split, files in splits.items() if files
                }
        place = place / ARCHIVE
    if place.name == ARCHIVE and place.is_file():
        return {split: ReviewArchive(place, split) for split in ("train", "test")}
    return {}


def _files(folder: Path) -> tuple[Path, ...]:
    """All reviews of a split, in an order that doesn't depend on the disk."""
    found: list[Path] = []
    for kind in KINDS:
        if (folder / kind).is_dir():
            found += sorted((folder / kind).glob("*.txt"), key=lambda file: file.name)
    if len(found) > MAX_ROWS:
        raise unusable(folder, "folder of reviews", f"it holds more than {MAX_ROWS:,}")
    return tuple(found)


def _too_long(file: Path, name: str) -> DatasetUnavailable:
    return unusable(file, "review", f"{name[:80]} has more than {MAX_REVIEW_BYTES:,} bytes")


def _text(data: bytes, file: Path, name: str) -> str:
    if len(data) > MAX_REVIEW_BYTES:
        raise _too_long(file, name)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise unusable(file, "review", f"{name[:80]} is not UTF-8 text") from error
