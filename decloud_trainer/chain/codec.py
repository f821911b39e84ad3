"""Strict borsh codec for an Anchor program, driven by its IDL. Standard library and base58 only.

Values are plain Python: int, bool, str, list, dict by field name; a public key is base58 text
and an enum is a `Variant`. Whatever doesn't fit exactly is a `LayoutError`: an int out of range,
a bool that is neither 0 nor 1, text that isn't UTF-8, a length beyond the data, a missing or an
unknown field. Enums here have no payload; an index without a name decodes as such and is never
mapped to something else.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeAlias, TypeVar

import base58

from decloud_trainer.errors import LayoutError, SettingsError

GENERATIONS = ("v1.0", "v1.1", "v1.2")
DISCRIMINATOR_BYTES = 8
_INTS = {f"{sign}{bits}": (sign, bits // 8) for sign in "ui" for bits in (8, 16, 32, 64, 128)}

_T = TypeVar("_T")
_Type: TypeAlias = str | Mapping[str, Any]
"""A type as the IDL spells it: ``"u64"``, ``{"vec": T}``, ``{"defined": {"name": N}}``."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant of an enum; `name` is None for an index that the IDL has no name for."""

    index: int
    name: str | None

    def __str__(self) -> str:
        return self.name or f"Unknown({self.index})"


@dataclass(frozen=True, slots=True)
class AccountLayout:
    """One account in an instruction's list.

    Attributes:
        address: base58, for an account that is always the same one.
        seeds: the IDL's seeds for an account whose address is derived.
    """

    name: str
    writable: bool
    signer: bool
    optional: bool
    address: str | None
    seeds: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class InstructionLayout:
    name: str
    discriminator: bytes
    fields: tuple[tuple[str, _Type], ...]
    accounts: tuple[AccountLayout, ...]


@dataclass(frozen=True, slots=True)
class ErrorCode:
    number: int
    name: str
    message: str


class Idl:
    """One program's interface: what Anchor (0.30 and later) writes as JSON."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.address = str(raw["address"])
        self.instructions = {i["name"]: _instruction_layout(i) for i in raw["instructions"]}
        self.accounts = {a["name"]: bytes(a["discriminator"]) for a in raw["accounts"]}
        self.events = {e["name"]: bytes(e["discriminator"]) for e in raw["events"]}
        self.errors = {e["code"]: ErrorCode(e["code"], e["name"], e["msg"]) for e in raw["errors"]}
        self._structs: dict[str, tuple[tuple[str, _Type], ...]] = {}
        self._enums: dict[str, tuple[str, ...]] = {}
        for entry in raw["types"]:
            if entry["type"]["kind"] == "struct":
                self._structs[entry["name"]] = _fields(entry["type"]["fields"])
            else:
                self._enums[entry["name"]] = tuple(v["name"] for v in entry["type"]["variants"])

    @staticmethod
    @functools.cache
    def load(generation: str) -> Idl:
        """The interface of a generation, from the package's data; read once per process."""
        return Idl(_read(generation))

    def variants(self, enum: str) -> tuple[str, ...]:
        """The names of an enum's variants, by index."""
        return self._enums[enum]

    def variant(self, enum: str, index: int) -> Variant:
        """The variant of that index, which may be one without a name."""
        names = self._enums[enum]
        return Variant(index, names[index] if index < len(names) else None)

    def fields(self, struct: str) -> tuple[tuple[str, _Type], ...]:
        """Name and type of each field of an account, an event or another struct, in order."""
        return self._structs[struct]

    # Instructions ---------------------------------------------------------------------------

    def encode_instruction(self, name: str, args: Mapping[str, Any]) -> bytes:
        layout = self.instructions.get(name)
        if layout is None:
            raise LayoutError(f"the program has no instruction {name}")
        return layout.discriminator + self._encode_fields(layout.fields, args, name)

    def decode_instruction(self, data: bytes) -> tuple[str, dict[str, Any]]:
        """Name and arguments; bytes left over are refused."""
        found = [i for i in self.instructions.values() if data.startswith(i.discriminator)]
        if not found or len(data) < DISCRIMINATOR_BYTES:
            raise LayoutError(f"no instruction of the program begins with {_head(data)}")
        reader = _Reader(data, DISCRIMINATOR_BYTES)
        args = self._decode_fields(found[0].fields, reader, found[0].name)
        reader.expect_end(found[0].name)
        return found[0].name, args

    # Accounts: allocated larger than what is written, so bytes left over are normal. --------

    def encode_account(self, name: str, values: Mapping[str, Any]) -> bytes:
        return self._discriminator(self.accounts, name) + self.encode_struct(name, values)

    def decode_account(self, name: str, data: bytes) -> dict[str, Any]:
        """The fields; what follows them in the account is not looked at."""
        discriminator = self._discriminator(self.accounts, name)
        if not data.startswith(discriminator):
            raise LayoutError(f"not a {name} account: it begins with {_head(data)}")
        return self._decode_fields(
            self._structs[name], _Reader(data, DISCRIMINATOR_BYTES), f"{name} account"
        )

    # Events: a later program may append fields, so bytes left over are tolerated. -----------

    def encode_event(self, name: str, values: Mapping[str, Any]) -> bytes:
        return self._discriminator(self.events, name) + self.encode_struct(name, values)

    def decode_event(self, data: bytes) -> tuple[str, dict[str, Any]]:
        for name, discriminator in self.events.items():
            if data.startswith(discriminator):
                reader = _Reader(data, DISCRIMINATOR_BYTES)
                return name, self._decode_fields(self._structs[name], reader, f"{name} event")
        raise LayoutError(f"no event of the program begins with {_head(data)}")

    # ------------------------------------------------------------------------------------------

    def encode_struct(self, name: str, values: Mapping[str, Any]) -> bytes:
        """The fields of a struct, without a discriminator."""
        return self._encode_fields(self._structs[name], values, name)

    def encode_value(self, kind: _Type, value: Any, what: str) -> bytes:
        """One value; `what` names it in an error."""
        match kind:
            case "bool":
                return bytes([_checked(value, bool, what)])
            case "string":
                text = _encode_utf8(_checked(value, str, what), what)
                return len(text).to_bytes(4, "little") + text
            case "pubkey":
                return _encode_pubkey(value, what)
            case str() if kind in _INTS:
                return _encode_int(kind, value, what)
            case {"vec": item}:
                items = _checked(value, list, what)
                encoded = [self.encode_value(item, v, f"{what}[{n}]") for n, v in enumerate(items)]
                return len(items).to_bytes(4, "little") + b"".join(encoded)
            case {"defined": {"name": str(name)}} if name in self._enums:
                return bytes([self._variant_index(name, value, what)])
            case {"defined": {"name": str(name)}} if name in self._structs:
                return self._encode_fields(self._structs[name], value, what)
        raise LayoutError(f"{what}: the type {kind} is not supported")

    def _decode_value(self, kind: _Type, data: _Reader, what: str) -> Any:
        match kind:
            case "bool":
                return _decode_bool(data, what)
            case "string":
                return _decode_utf8(data.take(data.length(what), what), what)
            case "pubkey":
                return base58.b58encode(data.take(32, what)).decode("ascii")
            case str() if kind in _INTS:
                sign, size = _INTS[kind]
                return int.from_bytes(data.take(size, what), "little", signed=sign == "i")
            case {"vec": item}:
                # No type here is empty, so a length beyond the data's end ends within it.
                count = data.length(what)
                return [self._decode_value(item, data, f"{what}[{n}]") for n in range(count)]
            case {"defined": {"name": str(name)}} if name in self._enums:
                return self.variant(name, data.take(1, what)[0])
            case {"defined": {"name": str(name)}} if name in self._structs:
                return self._decode_fields(self._structs[name], data, what)
        raise LayoutError(f"{what}: the type {kind} is not supported")

    def _encode_fields(
        self, fields: Sequence[tuple[str, _Type]], values: Mapping[str, Any], what: str
    ) -> bytes:
        if not isinstance(values, Mapping):
            raise LayoutError(f"{what}: {values!r} is no mapping")
        names = [name for name, _ in fields]
        if set(values) != set(names):
            raise LayoutError(f"{what} takes {names or 'no values'}, not {sorted(values)}")
        return b"".join(self.encode_value(k, values[n], f"{what}: {n}") for n, k in fields)

    def _decode_fields(
        self, fields: Sequence[tuple[str, _Type]], data: _Reader, what: str
    ) -> dict[str, Any]:
        return {n: self._decode_value(k, data, f"{what}: {n}") for n, k in fields}

    def _variant_index(self, enum: str, value: Any, what: str) -> int:
        names = self._enums[enum]
        if isinstance(value, str) and value in names:
            return names.index(value)
        if isinstance(value, Variant) and value.index in range(256):
            expected = self.variant(enum, value.index)
            if value == expected:
                return value.index
        raise LayoutError(f"{what}: {value} is no {enum}")

    def _discriminator(self, table: Mapping[str, bytes], name: str) -> bytes:
        if name not in table:
            raise LayoutError(f"the program has no {name}")
        return table[name]


class _Reader:
    """A position in some bytes; nothing can be taken beyond their end."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position

    def take(self, count: int, what: str) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise LayoutError(f"{what}: the data ends at {len(self._data)}, {end} bytes needed")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def length(self, what: str) -> int:
        """A u32 length that the rest of the data can hold at one byte per item."""
        count = int.from_bytes(self.take(4, what), "little")
        if count > len(self._data) - self._position:
            raise LayoutError(f"{what}: a length of {count} goes beyond the data's end")
        return count

    def expect_end(self, what: str) -> None:
        if self._position != len(self._data):
            raise LayoutError(f"{what}: {len(self._data) - self._position} bytes left over")


def _decode_bool(data: _Reader, what: str) -> bool:
    byte = data.take(1, what)[0]
    if byte > 1:
        raise LayoutError(f"{what}: {byte} is no bool")
    return byte == 1


def _decode_utf8(text: bytes, what: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LayoutError(f"{what}: not UTF-8 ({error.reason} at {error.start})") from error


def _encode_utf8(text: str, what: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LayoutError(f"{what}: not UTF-8 ({error.reason} at {error.start})") from error


def _encode_int(kind: str, value: Any, what: str) -> bytes:
    sign, size = _INTS[kind]
    if isinstance(value, bool) or not isinstance(value, int):
        raise LayoutError(f"{what}: {value!r} is no whole number")
    try:
        return value.to_bytes(size, "little", signed=sign == "i")
    except OverflowError as error:
        raise LayoutError(f"{what}: {value} doesn't fit into {kind}") from error


def _encode_pubkey(value: Any, what: str) -> bytes:
    try:
        key = base58.b58decode(_checked(value, str, what))
    except ValueError as error:
        raise LayoutError(f"{what}: not base58") from error
    if len(key) != 32:
        raise LayoutError(f"{what}: a public key has 32 bytes, not {len(key)}")
    return bytes(key)


def _checked(value: Any, kind: type[_T], what: str) -> _T:
    if not isinstance(value, kind):
        raise LayoutError(f"{what}: {value!r} is no {kind.__name__}")
    return value


def _head(data: bytes) -> str:
    return bytes(data[:DISCRIMINATOR_BYTES]).hex() or "nothing"


def _fields(entries: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, _Type], ...]:
    return tuple((entry["name"], entry["type"]) for entry in entries)


def _instruction_layout(raw: Mapping[str, Any]) -> InstructionLayout:
    accounts = tuple(
        AccountLayout(
            name=account["name"],
            writable=account.get("writable", False),
            signer=account.get("signer", False),
            optional=account.get("optional", False),
            address=account.get("address"),
            seeds=tuple(account.get("pda", {}).get("seeds", ())),
        )
        for account in raw["accounts"]
    )
    return InstructionLayout(
        raw["name"], bytes(raw["discriminator"]), _fields(raw["args"]), accounts
    )


def _read(generation: str) -> Any:
    if generation not in GENERATIONS:
        raise SettingsError(
            f"there is no generation {generation!r}", hint=f"known are {', '.join(GENERATIONS)}"
        )
    name = f"federated_ai_{generation.replace('.', '_')}.json"
    return json.loads(resources.files(__package__).joinpath("idl", name).read_text("utf-8"))
