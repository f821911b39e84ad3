"""A version: one link of a chain, as a frozen value and as canonical bytes."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from decloud_trainer.errors import SettingsError
from decloud_trainer.store.seal import damaged

FORMAT = 1
MAX_MESSAGE = 10_000
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"v?(\d{1,10})")
_FIELDS = {
    "format",
    "counter",
    "parent_hash",
    "content_hash",
    "pieces",
    "created",
    "commit_message",
    "metrics",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a version's content that is stored by itself, under its own hash."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Version:
    """What a chain keeps of one commit; nothing in it ever changes.

    Attributes:
        counter: 0 for the first, then one more each.
        parent_hash: the `hash` of the version before; empty for the first.
        content_hash: SHA-256 of the content, which is its pieces one after the other.
        created: UTC, ISO 8601.
    """

    counter: int
    parent_hash: str
    content_hash: str
    pieces: tuple[Piece, ...]
    created: str
    commit_message: str
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def semantic_version(self) -> str:
        return f"1.0.{self.counter}"

    @property
    def name(self) -> str:
        """``v0000000005``"""
        return version_name(self.counter)

    @property
    def size(self) -> int:
        """Bytes of content."""
        return sum(piece.size for piece in self.pieces)

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical bytes: what the next version names as its parent."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, one line."""
        return json.dumps(
            {
                "format": FORMAT,
                "counter": self.counter,
                "parent_hash": self.parent_hash,
                "content_hash": self.content_hash,
                "pieces": [[piece.sha256, piece.size] for piece in self.pieces],
                "created": self.created,
                "commit_message": self.commit_message,
                "metrics": dict(self.metrics),
            },
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        ).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Version:
        """The version that these bytes are.

        Raises:
            CorruptionError: they are none, or not in the canonical form; names `where`.
        """
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise damaged(f"{where} is no JSON: {error}") from error
        try:
            version = _parsed(values)
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(f"{where} is no version record: {error}") from error
        if version.to_bytes() != data:
            raise damaged(f"{where} is not in the canonical form")
        return version


def _parsed(values: Any) -> Version:
    if not isinstance(values, dict) or set(values) != _FIELDS:
        raise ValueError("it has not exactly the fields of a version")
    if values["format"] != FORMAT:
        raise ValueError(f"its format is {values['format']!r}, this program knows {FORMAT}")
    pieces = tuple(Piece(str(digest), size) for digest, size in values["pieces"])
    hashes = [values["content_hash"], *(piece.sha256 for piece in pieces)]
    if values["counter"] != 0 or values["parent_hash"]:
        hashes.append(values["parent_hash"])
    if not all(isinstance(each, str) and _HASH.fullmatch(each) for each in hashes):
        raise ValueError("a hash is not 64 lower-case hex digits")
    sizes = [values["counter"], *(piece.size for piece in pieces)]
    if not all(type(each) is int and each >= 0 for each in sizes):
        raise ValueError("a size or counter is not a whole number")
    return Version(
        counter=values["counter"],
        parent_hash=values["parent_hash"],
        content_hash=values["content_hash"],
        pieces=pieces,
        created=str(values["created"]),
        commit_message=str(values["commit_message"]),
        metrics=checked_metrics(values["metrics"]),
    )


def checked_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Names to finite numbers.

    Raises:
        ValueError: something else.
    """
    for name, value in metrics.items():
        is_number = type(value) in (int, float) and math.isfinite(value)
        if not isinstance(name, str) or not is_number:
            raise ValueError(f"the metric {name!r} is {value!r}, not a finite number")
    return {name: float(value) for name, value in metrics.items()}


def version_name(counter: int) -> str:
    return f"v{counter:010d}"


def counter_of(name: str) -> int:
    """The counter in ``v0000000005``, ``v5`` or ``5``.

    Raises:
        SettingsError: it is no version's name.
    """
    found = _NAME.fullmatch(name)
    if not found:
        raise SettingsError(
            f"{name!r} names no version", hint="use its number, e.g. 5 or v0000000005, or a tag"
        )
    return int(found[1])
