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
        raise damaged(f"{where} is damaged: its checksum doesn't fit")
    return text


def damaged(what: str) -> CorruptionError:
    """For whoever meets damage in a chain: there is no repair from within."""
    return CorruptionError(
        what,
        hint="`decloud-trainer store find-corruption` names the first bad version; "
        "copy those before it elsewhere, or restore the chain from a copy",
    )
