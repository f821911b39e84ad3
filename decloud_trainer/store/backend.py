"""Where a chain's bytes lie: the port, and the folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import filelock

from decloud_trainer import files
from decloud_trainer.errors import ConflictError, CorruptionError, StoreUnavailable
from decloud_trainer.store.seal import damaged

T = TypeVar("T")
Buffer = bytes | memoryview

RETRY_WAITS_S = (1.0, 2.0, 4.0)
LOCK_TIMEOUT_S = 60.0
MAX_RECORD_BYTES = 16 * 1024**2
"""Of whatever is no content: a record of 100,000 pieces has half of that."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A key with the size of its bytes and when they were written (unix seconds)."""

    key: str
    size: int
    modified: float


class Backend(Protocol):
    """Bytes by key, and one compare-and-swap. Keys are ours: relative, parts between slashes.

    Every method may be called again after it raised StoreUnavailable, which says nothing about
    whether its effect took place.
    """

    @property
    def keeps_others_out(self) -> bool:
        """Whether `exclusive` does."""

    def read(self, key: str, most: int = MAX_RECORD_BYTES) -> bytes | None:
        """The key's bytes; None if there are none. Raises CorruptionError for more than `most`."""

    def write(self, key: str, data: Buffer) -> None:
        """Durable when it returns; a reader sees the old bytes or the new ones, never a part."""

    def write_all(self, wanted: MutableMapping[str, Buffer]) -> None:
        """Write each, in any order. Takes out of `wanted` what is durable: all when it returns."""

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        """Write `new` if the key still has `old` (None: nothing); whether it did. Of several at
        once, one wins."""

    def list(self, prefix: str) -> Iterator[Stored]:
        """All keys that begin so, in no order."""

    def delete(self, key: str) -> None:
        """A key that isn't there is fine."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other writers out, where that is possible; where not, `swap` alone decides."""


class Folder:
    """A chain in a folder, for any number of processes of one machine.

    Raises:
        ConflictError: other writers held the chain for a minute.
        StoreUnavailable: the file system refuses; says why.
    """

    keeps_others_out = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = filelock.FileLock(path / ".lock", mode=0o600)

    def read(self, key: str, most: int = MAX_RECORD_BYTES) -> bytes | None:
        try:
            # A chain may lie where a training child writes.
            with files.open_plain(self.path / key) as file:
                data = file.read(most + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(key, error) from error
        if len(data) > most:
            raise too_long(str(self.path / key), most)
        return data

    def write(self, key: str, data: Buffer) -> None:
        self.write_all({key: data})

    def write_all(self, wanted: MutableMapping[str, Buffer]) -> None:
        paths = {self.path / key: data for key, data in wanted.items()}
        try:
            for folder in {path.parent for path in paths}:
                if not folder.exists():
                    files.make_private_dir(folder)
                    files.sync_dir(folder.parent)
            files.write_together(paths)
        except OSError as error:
            raise self._unavailable(next(iter(wanted)), error) from error
        wanted.clear()

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        with self.exclusive():
            if self.read(key) != old:
                return False
            self.write(key, new)
            return True

    def list(self, prefix: str) -> Iterator[Stored]:
        for parent, _, names in os.walk(self.path / os.path.dirname(prefix)):
            for name in names:
                path = Path(parent, name)
                key = path.relative_to(self.path).as_posix()
                if not key.startswith(prefix) or name.startswith("."):
                    continue
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    found = path.stat()
                    yield Stored(key, found.st_size, found.st_mtime)

    def delete(self, key: str) -> None:
        try:
            (self.path / key).unlink(missing_ok=True)
        except OSError as error:
            raise self._unavailable(key, error) from error

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """May be entered again by the thread that is in it."""
        files.make_private_dir(self.path)
        try:
            self._lock.acquire(timeout=LOCK_TIMEOUT_S, poll_interval=0.01)
        except filelock.Timeout as error:
            raise ConflictError(
                f"other writers have held the chain {self.path} for {LOCK_TIMEOUT_S:.0f} s",
                hint="see which program uses it, then try again",
            ) from error
        except OSError as error:
            raise self._unavailable(".lock", error) from error
        try:
            yield
        finally:
            self._lock.release()

    def _unavailable(self, key: str, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.path / key}: {error.strerror}",
            hint="check the folder's owner and the free space",
        )


def too_long(where: str, most: int) -> CorruptionError:
    """For a key that has more bytes than it ever had."""
    return damaged(f"{where} has more than {most:,} bytes")


class Retrying:
    """Another backend, patiently: what is unavailable is tried again after 1, 2 and 4 seconds."""

    def __init__(self, inner: Backend, sleep: Callable[[float], None] = time.sleep) -> None:
        self._inner = inner
        self._sleep = sleep

    @property
    def keeps_others_out(self) -> bool:
        return self._inner.keeps_others_out

    def read(self, key: str, most: int = MAX_RECORD_BYTES) -> bytes | None:
        return self._patiently(lambda: self._inner.read(key, most))

    def write(self, key: str, data: Buffer) -> None:
        self._patiently(lambda: self._inner.write(key, data))

    def write_all(self, wanted: MutableMapping[str, Buffer]) -> None:
        self._patiently(lambda: self._inner.write_all(wanted))

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        return self._patiently(lambda: self._swapped(key, old, new))

    def _swapped(self, key: str, old: bytes | None, new: bytes) -> bool:
        # A try before this one may have got through without our hearing of it.
        return self._inner.swap(key, old, new) or self._inner.read(key) == new

    def list(self, prefix: str) -> Iterator[Stored]:
        return iter(self._patiently(lambda: tuple(self._inner.list(prefix))))

    def delete(self, key: str) -> None:
        self._patiently(lambda: self._inner.delete(key))

    def exclusive(self) -> AbstractContextManager[None]:
        return self._inner.exclusive()

    def _patiently(self, work: Callable[[], T]) -> T:
        for wait_s in RETRY_WAITS_S:
            try:
                return work()
            except StoreUnavailable:
                self._sleep(wait_s)
        return work()
