"""Takes secrets out of texts that are shown or stored where a secret must never be."""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"
# So many characters of a secret in a row give it away in part: they are masked, too.
_PIECE = 8
_SHORTEST = 4

# What looks like a key, whether it is a known one or not.
_PATTERNS = (
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]+){0,2}"), MASK),  # a JWT
    (re.compile(r"\b[A-Za-z0-9]{60,}\b"), MASK),  # base58 or hexadecimal keys; also signatures
    (re.compile(r"\[\s*\d{1,3}(?:\s*,\s*\d{1,3}){15,}\s*,?\s*\]?"), f"[{MASK}]"),  # key files
    (re.compile(r"\bb(['\"])(?:\\.|(?!\1)[^\\]){24,}\1"), f"b'{MASK}'"),  # raw bytes
    # Endpoints carry keys in the path, the query, or before the host.
    (re.compile(r"\b(https?|wss?)://(?:[^\s/@'\"]*@)?([\w.:\[\]-]+)[^\s'\"<>)]*"), r"\1://\2"),
)


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """The text with ``***`` for the given secrets, for longer pieces of them, and for whatever
    looks like a key. URLs are cut down to the host."""
    text = without(text, secrets)
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


def without(text: str, secrets: Iterable[str]) -> str:
    """The text with ``***`` for the given secrets and for longer pieces of them."""
    hidden = bytearray(len(text))
    for secret in secrets:
        size = min(_PIECE, len(secret))
        if size < _SHORTEST:
            continue
        pieces = {secret[start : start + size] for start in range(len(secret) - size + 1)}
        for start in range(len(text) - size + 1):
            if text[start : start + size] in pieces:
                hidden[start : start + size] = b"\1" * size
    text = "".join("\0" if hide else c for c, hide in zip(text, hidden, strict=True))
    return re.sub("\0+", MASK, text)
