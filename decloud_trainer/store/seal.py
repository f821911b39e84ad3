"""Small files that notice a changed byte: the text, then its SHA-256 on a line of its own."""

from __future__ import annotations

import hashlib

from decloud_trainer.errors import CorruptionError


def sealed(text: bytes) -> bytes:
    return text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n"


def unsealed(data: bytes, where: str) -> bytes:
    """The text inside.

    Raises:
        CorruptionError: the two don't belong together; names `where`.
    """
    text = data[:-66]
    if sealed(text) != data:
        raise CorruptionError(f"{where} is damaged: its checksum doesn't fit")
    return text
