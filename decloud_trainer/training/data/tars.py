"""Published archives (.tar.gz), read in passing: nothing of them is unpacked to disk."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from decloud_trainer.training import damage
from decloud_trainer.training.data.split import Readable, read_exactly, unusable


class Member:
    """A file in an archive; it can be read until the next one is asked for.

    Attributes:
        name: its path in the archive.
        size: in bytes, as the archive says.
    """

    def __init__(self, archive: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        self._archive, self._tar, self._info = archive, tar, info
        self.name, self.size = info.name, info.size

    def read(self) -> bytes:
        """All of it; whoever asks has looked at the size.

        Raises:
            DatasetUnavailable: the archive is damaged.
        """
        try:
            content = self._tar.extractfile(self._info)
            data = read_exactly(content, self.size) if content else b""
        except damage.TAR as error:
            raise unusable(self._archive, "archive", f"damaged ({error})") from error
        if len(data) != self.size:
            raise unusable(self._archive, "archive", f"its {self.name[:80]} is cut off")
        return data


def members(archive: Path, most: int) -> Iterator[Member]:
    """The files in the archive, in its order.

    Raises:
        DatasetUnavailable: it is damaged, or unpacks to more than `most` bytes.
    """
    try:
        with (
            archive.open("rb") as raw,
            gzip.GzipFile(fileobj=raw) as plain,
            # A stream: members are read in passing, and sizes can't send us anywhere.
            tarfile.open(fileobj=_Bounded.stream(plain, archive, most), mode="r|") as tar,
        ):
            for info in tar:
                # Every member passed is remembered, which a long archive can't be allowed.
                tar.members = []  # type: ignore[attr-defined]
                if info.isreg():
                    yield Member(archive, tar, info)
    except damage.TAR as error:
        raise unusable(archive, "archive", f"damaged ({error})") from error


class _Bounded:
    """What comes out of an archive, up to a limit: a few bytes can pack many."""

    def __init__(self, stream: Readable, archive: Path, most: int) -> None:
        self._stream, self._archive, self._most = stream, archive, most
        self._left = most

    @classmethod
    def stream(cls, stream: Readable, archive: Path, most: int) -> IO[bytes]:
        """For `tarfile`, which only reads."""
        return cls(stream, archive, most)  # type: ignore[return-value]

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise unusable(self._archive, "archive", f"it unpacks to over {self._most:,} bytes")
        return data
