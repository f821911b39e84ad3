"""A chain of versions: commit, read, tag.

HEAD holds the newest version's record itself. A commit first writes its pieces and files the record
that it replaces under its number; once all of that is durable it swaps HEAD. So a version is there
with one swap or not at all, and a filed record is always one that was accepted.

A garbage collection must not meet a commit that counts on what it is about to remove. In a folder
a lock keeps the two apart; in a bucket the collection marks HEAD first, whereupon every commit
that is under way loses its swap and a new one is refused until the mark is gone.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from decloud_trainer.errors import ConflictError, DecloudError, SettingsError
from decloud_trainer.store.backend import Backend, Buffer, Retrying
from decloud_trainer.store.seal import damaged, sealed, unsealed
from decloud_trainer.store.version import (
    MAX_MESSAGE,
    Piece,
    Version,
    checked_metrics,
    counter_of,
    version_name,
)

HEAD = "HEAD"
TAGS = "tags.json"
_COLLECTING = b"collecting "
# Neighbours smaller than this share a blob: a file or a request each would cost more than they do.
SMALL_PIECE = 128 * 1024
MAX_JOINED = 1024 * 1024
# So much is written together; what is committed piece by piece is never in memory as a whole.
TOGETHER_BYTES = 64 * 1024 * 1024
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True, slots=True)
class Hashed:
    """A part of a content with its SHA-256, 64 hex digits."""

    data: Buffer
    sha256: str

    @classmethod
    def of(cls, data: Buffer) -> Hashed:
        return cls(data, hashlib.sha256(data).hexdigest())


class Store:
    """One chain. Safe to use from several threads, processes and, on S3, machines at once.

    Args:
        where: the chain's name for messages.
        now: aware UTC.
    """

    def __init__(
        self,
        backend: Backend,
        where: str,
        *,
        now: Callable[[], datetime.datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.backend: Backend = Retrying(backend, sleep)
        self.where = where
        self.now = now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is held open; every commit was complete when it returned."""

    def get_head(self) -> Version | None:
        """The newest version; None for an empty chain.

        Raises:
            CorruptionError, StoreUnavailable.
        """
        data = self.backend.read(HEAD)
        return None if data is None else self._version(data, HEAD)

    def get_version(self, name: str | int) -> Version:
        """The version with this counter, name (``v0000000005``) or tag.

        Raises:
            DecloudError: there is none.
            SettingsError: `name` can't be one's name.
            CorruptionError, StoreUnavailable.
        """
        counter = self._counter(name)
        head = self.get_head()
        if head is None or not 0 <= counter <= head.counter:
            there = "it is empty" if head is None else f"its newest is {head.name}"
            raise DecloudError(
                f"{self.where} has no version {name}: {there}",
                hint="`decloud-trainer store list` shows those that there are",
            )
        return head if counter == head.counter else self.filed(counter)

    def filed(self, counter: int) -> Version:
        """A version before HEAD, from its record."""
        key = record_key(counter)
        data = self.backend.read(key)
        if data is None:
            raise damaged(f"the record of {version_name(counter)} is missing from {self.where}")
        version = self._version(data, key)
        if version.counter != counter:
            raise damaged(f"{key} of {self.where} is the record of {version.name}")
        return version

    def log(self) -> Iterator[Version]:
        """All versions, newest first."""
        head = self.get_head()
        if head is not None:
            yield head
            for counter in range(head.counter - 1, -1, -1):
                yield self.filed(counter)

    def commit(
        self,
        pieces: Iterable[Buffer | Hashed],
        commit_message: str,
        *,
        metrics: Mapping[str, float] | None = None,
        onto: Version | Literal["head"] | None = "head",
    ) -> Version:
        """Append a version whose content is these pieces, one after the other.

        Pieces that the version before has too are not stored again.

        Args:
            pieces: large ones that come with their hash are not hashed once more.
            onto: what HEAD must be; None: the chain must be empty; ``head``: whatever it is.

        Raises:
            ConflictError: HEAD is another version; nothing was appended.
            SettingsError: the message or the metrics can't be stored.
            CorruptionError, StoreUnavailable.
        """
        if len(commit_message) > MAX_MESSAGE:
            raise SettingsError(f"the commit message is longer than {MAX_MESSAGE} characters")
        try:
            checked = checked_metrics(metrics or {})
        except ValueError as error:
            raise SettingsError(str(error)) from error
        with self.backend.exclusive():
            old = self.backend.read(HEAD)
            head = None if old is None else self._version(old, HEAD)
            if old is not None and split_mark(old)[1] is not None:
                raise ConflictError(
                    f"a garbage collection of {self.where} is under way",
                    hint="wait for its end; if it was broken off, run `store gc` again",
                )
            if onto != "head" and head != onto:
                raise self._conflict(head)
            filed = dict[str, Buffer]()
            if old is not None and head is not None:
                filed[record_key(head.counter)] = old
            stored, content_hash = self._store(pieces, head, filed)
            version = Version(
                counter=0 if head is None else head.counter + 1,
                parent_hash="" if head is None else head.hash,
                content_hash=content_hash,
                pieces=stored,
                created=self.now().isoformat(timespec="microseconds"),
                commit_message=commit_message,
                metrics=checked,
            )
            if not self.backend.swap(HEAD, old, sealed(version.to_bytes())):
                raise self._conflict(self.get_head())
        return version

    def read(self, version: Version) -> bytes:
        """The version's content, verified.

        Raises:
            CorruptionError: a piece is missing or isn't what its hash says.
            DecloudError: the content was given up by a garbage collection.
        """
        return b"".join(self.pieces(version))

    def pieces(self, version: Version) -> Iterator[bytes]:
        """The version's content piece by piece, each verified, and all of it at the end.

        Raises as `read`."""
        whole = hashlib.sha256()
        for piece in version.pieces:
            data = self._piece(version, piece)
            whole.update(data)
            yield data
        if whole.hexdigest() != version.content_hash:
            raise damaged(f"the content of {version.name} in {self.where} is damaged")

    def is_collected(self, version: Version) -> bool:
        """Whether a garbage collection gave its content up."""
        note = self.backend.read(tombstone_key(version.counter))
        return note == sealed(version.hash.encode())

    def mark_collected(self, versions: Iterable[Version]) -> None:
        """Say of versions that their contents may be missing from now on."""
        self.backend.write_all(
            {tombstone_key(each.counter): sealed(each.hash.encode()) for each in versions}
        )

    def tags(self) -> dict[str, int]:
        """Tag -> counter, by name."""
        return self._parse_tags(self.backend.read(TAGS))

    def tag(self, name: str, version: Version) -> None:
        """Name a version; it is then safe from garbage collection.

        Raises:
            SettingsError: the name can't be one, or names another version.
        """
        if not _TAG.fullmatch(name) or re.fullmatch(r"v?\d+", name):
            raise SettingsError(
                f"{name!r} can't be a tag",
                hint="use letters, digits, dots, dashes; it must not look like a version's number",
            )

        def add(tags: dict[str, int]) -> None:
            if tags.get(name, version.counter) != version.counter:
                raise SettingsError(
                    f"{name} names {version_name(tags[name])} already", hint="untag it first"
                )
            tags[name] = version.counter

        self._change_tags(add)

    def untag(self, name: str) -> None:
        """Raises SettingsError: there is no such tag."""

        def remove(tags: dict[str, int]) -> None:
            if name not in tags:
                raise SettingsError(f"{self.where} has no tag {name}")
            del tags[name]

        self._change_tags(remove)

    def _version(self, data: bytes, key: str) -> Version:
        where = f"{key} of {self.where}"
        record = split_mark(data)[0] if key == HEAD else data
        return Version.from_bytes(unsealed(record, where), where)

    def _counter(self, name: str | int) -> int:
        if isinstance(name, int):
            return name
        tagged = self.tags().get(name)
        return counter_of(name) if tagged is None else tagged

    def _change_tags(self, change: Callable[[dict[str, int]], None]) -> None:
        for _ in range(10):
            old = self.backend.read(TAGS)
            tags = self._parse_tags(old)
            change(tags)
            if self.backend.swap(TAGS, old, sealed(json.dumps(tags, sort_keys=True).encode())):
                return
        raise ConflictError(f"others keep changing the tags of {self.where}", hint="try again")

    def _parse_tags(self, data: bytes | None) -> dict[str, int]:
        if data is None:
            return {}
        try:
            tags = json.loads(unsealed(data, f"{TAGS} of {self.where}"))
            good = all(isinstance(k, str) and type(v) is int and v >= 0 for k, v in tags.items())
        except (ValueError, AttributeError, RecursionError) as error:
            raise damaged(f"{TAGS} of {self.where} can't be read: {error}") from error
        if not good:
            raise damaged(f"{TAGS} of {self.where} has something else than counters")
        return dict(sorted(tags.items()))

    def _store(
        self, pieces: Iterable[Buffer | Hashed], head: Version | None, wanted: dict[str, Buffer]
    ) -> tuple[tuple[Piece, ...], str]:
        """Write what HEAD's version doesn't have, and what else is wanted.

        Only HEAD's pieces are taken as stored: no garbage collection ever removes those, while
        any other blob may be about to go.
        """
        known = set() if head is None else {piece.sha256 for piece in head.pieces}
        whole, stored, held = hashlib.sha256(), [], 0
        for piece in joined(pieces):
            whole.update(piece.data)
            stored.append(Piece(piece.sha256, len(piece.data)))
            if piece.sha256 in known:
                continue
            known.add(piece.sha256)
            wanted[blob_key(piece.sha256)] = piece.data
            held += len(piece.data)
            if held > TOGETHER_BYTES:
                self.backend.write_all(wanted)
                held = 0
        self.backend.write_all(wanted)
        return tuple(stored), whole.hexdigest()

    def _piece(self, version: Version, piece: Piece) -> bytes:
        data = self.backend.read(blob_key(piece.sha256), piece.size)
        if data is None and self.is_collected(version):
            raise DecloudError(
                f"the content of {version.name} was given up by a garbage collection",
                hint="`decloud-trainer store list` shows which versions still have theirs",
            )
        if data is None:
            raise damaged(f"a piece of {version.name} is missing from {self.where}: {piece.sha256}")
        if hashlib.sha256(data).hexdigest() != piece.sha256:
            raise damaged(f"a piece of {version.name} in {self.where} is damaged: {piece.sha256}")
        return data

    def _conflict(self, head: Version | None) -> ConflictError:
        now = "is empty" if head is None else f"is at {head.name} now"
        return ConflictError(
            f"another writer was faster: {self.where} {now}",
            hint="read HEAD again and commit on top of it",
        )


def joined(pieces: Iterable[Buffer | Hashed]) -> Iterator[Hashed]:
    """The same bytes in the same order, neighbours joined while they are small."""
    small, size = list[Buffer](), 0
    for piece in pieces:
        data = memoryview(piece.data if isinstance(piece, Hashed) else piece).cast("B")
        if small and (len(data) >= SMALL_PIECE or size + len(data) > MAX_JOINED):
            yield Hashed.of(b"".join(small))
            small, size = [], 0
        if len(data) >= SMALL_PIECE:
            yield Hashed(data, piece.sha256) if isinstance(piece, Hashed) else Hashed.of(data)
        elif len(data):
            small.append(data)
            size += len(data)
    if small:
        yield Hashed.of(b"".join(small))


def marked(head: bytes, began: float) -> bytes:
    """HEAD's bytes with the mark of a garbage collection that began at that unix second."""
    return head + _COLLECTING + str(int(began)).encode() + b"\n"


def split_mark(head: bytes) -> tuple[bytes, int | None]:
    """HEAD's bytes without a mark, and when the collection that set it began; None without one."""
    plain, mark, rest = head.rpartition(_COLLECTING)
    if mark and plain.endswith(b"\n") and rest[:-1].isdigit() and rest.endswith(b"\n"):
        return plain, int(rest)
    return head, None


def record_key(counter: int) -> str:
    return f"versions/{version_name(counter)}.json"


def tombstone_key(counter: int) -> str:
    return f"collected/{version_name(counter)}.json"


def blob_key(sha256: str) -> str:
    return f"blobs/{sha256}"
