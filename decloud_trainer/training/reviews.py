"""IMDB's movie reviews as published: the folder aclImdb, or the archive aclImdb_v1.tar.gz.

The archive is read in passing; nothing of it is unpacked to disk. Negative reviews are class 0,
positive ones class 1.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.rows import MAX_ROWS, Row
from decloud_trainer.training.split import Bounded, read_exactly, unusable

FOLDER, ARCHIVE = "aclImdb", "aclImdb_v1.tar.gz"
CLASSES = {"neg": "0", "pos": "1"}
MAX_REVIEW_BYTES = 1 << 20
# 340 MB as published; half of that are reviews without a label.
MAX_ARCHIVE_BYTES = 1024**3
_DAMAGE = (gzip.BadGzipFile, zlib.error, EOFError, OSError, tarfile.TarError, UnicodeError)


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
        return (CLASSES[file.parent.name] for file in self.files)

    def rows(self) -> Iterator[Row]:
        for file in self.files:
            try:
                with file.open("rb") as stream:
                    data = stream.read(MAX_REVIEW_BYTES + 1)
            except OSError as error:
                raise DatasetUnavailable(f"can't read {file}: {error.strerror}") from error
            yield (_text(data, file, file.name),), CLASSES[file.parent.name]


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
        return (label for _, label in self.rows())

    def rows(self) -> Iterator[Row]:
        wanted = re.compile(rf"(?:\./)?{FOLDER}/{self.split}/(neg|pos)/[^/]+\.txt")
        try:
            with (
                self.archive.open("rb") as raw,
                gzip.GzipFile(fileobj=raw) as plain,
                # A stream: members are read in passing, and sizes can't send us anywhere.
                tarfile.open(
                    fileobj=Bounded.stream(plain, self.archive, MAX_ARCHIVE_BYTES), mode="r|"
                ) as tar,
            ):
                for member in tar:
                    # Every member passed is remembered, which a long archive can't be allowed.
                    tar.members = []  # type: ignore[attr-defined]
                    found = wanted.fullmatch(member.name)
                    if found and member.isreg():
                        yield (self._review(tar, member),), CLASSES[found[1]]
        except _DAMAGE as error:
            raise unusable(self.archive, "archive", f"damaged ({error})") from error

    def _review(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
        content = tar.extractfile(member)
        size = min(member.size, MAX_REVIEW_BYTES + 1)
        data = read_exactly(content, size) if content else b""
        if len(data) != size:
            raise unusable(self.archive, "archive", f"its {member.name[:80]} is cut off")
        return _text(data, self.archive, member.name)


def find(place: Path) -> dict[str, ReviewFiles | ReviewArchive]:
    """The splits of the folder, or of the archive that `place` is or holds."""
    if place.is_dir():
        for folder in (place, place / FOLDER):
            splits = {split: _files(folder / split) for split in ("train", "test")}
            if all((folder / split / kind).is_dir() for split in splits for kind in CLASSES):
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
    for kind in CLASSES:
        if (folder / kind).is_dir():
            found += sorted((folder / kind).glob("*.txt"), key=lambda file: file.name)
    if len(found) > MAX_ROWS:
        raise unusable(folder, "folder of reviews", f"it holds more than {MAX_ROWS:,}")
    return tuple(found)


def _text(data: bytes, file: Path, name: str) -> str:
    if len(data) > MAX_REVIEW_BYTES:
        raise unusable(file, "review", f"{name[:80]} has more than {MAX_REVIEW_BYTES:,} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise unusable(file, "review", f"{name[:80]} is not UTF-8 text") from error
