"""The sorts of values that settings have: how each is read from JSON or text, and written."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from decloud_trainer.money import LAMPORTS_PER_SOL, lamports_from_sol
from decloud_trainer.names import dataset_key


class Kind(NamedTuple):
    """How one sort of value is read and written.

    parse: from JSON or command-line text to the field's value; raises ValueError with what is
        allowed. show: from the field's value to JSON. choices: all values, where they are few.
    """

    parse: Callable[[Any], Any]
    show: Callable[[Any], Any] = lambda value: value
    choices: tuple[str, ...] = ()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value.strip()


def _path(value: Any) -> str:
    text = _text(value)
    try:
        Path(text).expanduser()
    except RuntimeError:
        raise ValueError("must not begin with the name of a user who isn't here") from None
    return text


def _url_of(*schemes: str) -> Callable[[Any], str]:
    starts = " or ".join(f"{scheme}://" for scheme in schemes)

    def parse(value: Any) -> str:
        text = _text(value)
        if text and not _is_url(text, schemes):
            raise ValueError(f"must be a URL that starts with {starts}")
        return text.rstrip("/")

    return parse


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        has_host = bool(parts.hostname) and parts.port != 0
        return parts.scheme in schemes and has_host and not any(c.isspace() for c in text)
    except ValueError:  # a port or an address that is none
        return False


def _flag(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    found = words.get(str(value).strip().lower())
    if found is None:
        raise ValueError("must be true or false")
    return found


def _sol(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ValueError("must be an amount in SOL, such as 0.01")
    return lamports_from_sol(str(value).strip())


def _shown_sol(lamports: int) -> float | str:
    """A JSON number, or text for an amount that a float can't hold to the lamport."""
    exact = Decimal(lamports) / LAMPORTS_PER_SOL
    number = float(exact)
    return number if Decimal(repr(number)) == exact else str(exact)


def count(least: int, most: int) -> Kind:
    def parse(value: Any) -> int:
        try:
            found = int(str(value).strip()) if not isinstance(value, bool) else None
        except ValueError:
            found = None
        if found is None or not least <= found <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return found

    return Kind(parse)


def count_or(word: str, least: int, most: int) -> Kind:
    """A whole number, or this one word."""
    whole = count(least, most)

    def parse(value: Any) -> int | str:
        if isinstance(value, str) and value.strip() == word:
            return word
        try:
            return int(whole.parse(value))
        except ValueError as error:
            raise ValueError(f"{error}, or {word}") from None

    return Kind(parse)


def number(least: float, most: float) -> Kind:
    def parse(value: Any) -> float:
        try:
            found = float(str(value).strip()) if not isinstance(value, bool) else math.nan
        except ValueError:
            found = math.nan
        if not least <= found <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return found

    return Kind(parse)


def choice(*allowed: str) -> Kind:
    def parse(value: Any) -> str:
        if str(value).strip() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return str(value).strip()

    return Kind(parse, choices=allowed)


def _words(value: Any) -> tuple[str, ...]:
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"must be words as a shell would take them: {error}") from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("must be a command's words")
    return tuple(words)


def _address(value: Any) -> str:
    """A Solana address, or nothing. The zero address is a program's: nobody has its key."""
    import base58

    text = _text(value)
    try:
        raw = base58.b58decode(text) if len(text) <= 44 else b""
    except ValueError:
        raw = b""
    if text and (len(raw) != 32 or not any(raw)):
        raise ValueError("must be a Solana address: 32 bytes in base58")
    return text


def _items(value: Any) -> list[str]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError("must be names separated by commas")
    return [item.strip() for item in items if item.strip()]


def _name(text: str) -> str:
    key = dataset_key(text)
    if not key:
        raise ValueError("must hold names of datasets")
    return key


def _datasets(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_name(item) for item in _items(value)))


def choices(*allowed: str) -> Kind:
    """Some of these, in an order of the user's."""

    def parse(value: Any) -> tuple[str, ...]:
        items = tuple(dict.fromkeys(_items(value)))
        if not set(items) <= set(allowed):
            raise ValueError(f"must be some of {', '.join(allowed)}, separated by commas")
        return items

    return Kind(parse, list)


_url = _url_of("http", "https")
_ws_url = _url_of("ws", "wss")


def _urls_by(one: Callable[[Any], str]) -> Callable[[Any], tuple[str, ...]]:
    return lambda value: tuple(dict.fromkeys(one(item) for item in _items(value)))


def _pairs(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        value = dict(item.partition(":")[::2] for item in _items(value))
    if not isinstance(value, dict) or not all(
        isinstance(item, str) and item for pair in value.items() for item in pair
    ):
        raise ValueError("must be pairs FROM:TO")
    return {_name(name): target.strip() for name, target in value.items()}


def _paths(value: Any) -> dict[str, str]:
    return {name: _path(place) for name, place in _pairs(value).items()}


def _mappings(value: Any) -> dict[str, str]:
    return {name: _name(target) for name, target in _pairs(value).items()}


TEXT = Kind(_text)
PATH = Kind(_path)
ADDRESS = Kind(_address)
WORDS = Kind(_words, shlex.join)
URL = Kind(_url)
WS_URL = Kind(_ws_url)
FLAG = Kind(_flag, choices=("true", "false"))
SOL = Kind(_sol, _shown_sol)
DATASETS = Kind(_datasets, list)
URLS = Kind(_urls_by(_url), list)
WS_URLS = Kind(_urls_by(_ws_url), list)
MAPPINGS = Kind(_mappings, dict)
PATHS = Kind(_paths, dict)
