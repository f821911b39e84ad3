"""Reading the parameters of a JSON-RPC request, and the errors that answer a wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from solders.pubkey import Pubkey
from solders.signature import Signature

from decloud_trainer.localnet.ledger import Ledger
from decloud_trainer.localnet.slots import Commitment

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
PREFLIGHT_FAILURE = -32002
SIGNATURE_VERIFICATION_FAILURE = -32003
UNSUPPORTED_TRANSACTION_VERSION = -32015
MIN_CONTEXT_SLOT_NOT_REACHED = -32016

API_VERSION = "3.0.0"

# The retired names that old clients still send.
_COMMITMENTS = {level.value: level for level in Commitment} | {
    "recent": Commitment.PROCESSED,
    "single": Commitment.CONFIRMED,
    "singleGossip": Commitment.CONFIRMED,
    "root": Commitment.FINALIZED,
    "max": Commitment.FINALIZED,
}


class RpcFault(Exception):
    """The answer to a request that can't be served: a JSON-RPC error object."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data

    def as_json(self) -> dict[str, Any]:
        error: dict[str, Any] = {"code": self.code, "message": str(self)}
        if self.data is not None:
            error["data"] = self.data
        return error


def invalid(message: str) -> RpcFault:
    return RpcFault(INVALID_PARAMS, message)


class Config:
    """The object that most methods take last; absent and null fields mean the default."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def get(self, name: str, kind: type, default: Any = None) -> Any:
        value = self._fields.get(name)
        if value is None:
            return default
        # A bool is an int to Python, but never to a client that means a number.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise invalid(f"Invalid params: invalid value for `{name}`.")
        return value

    def number(self, name: str, default: int | None = None) -> int | None:
        value: int | None = self.get(name, int, default)
        if value is not None and not 0 <= value < 2**64:
            raise invalid(f"Invalid params: `{name}` is out of range.")
        return value

    def flag(self, name: str) -> bool:
        return bool(self.get(name, bool, False))

    def text(self, name: str, default: str) -> str:
        return str(self.get(name, str, default))

    def sub(self, name: str) -> Config | None:
        fields = self.get(name, dict)
        return None if fields is None else Config(fields)

    def commitment(self, name: str = "commitment") -> Commitment:
        """A node's default is finalized."""
        return commitment(self.get(name, str, "finalized"))

    def signature(self, name: str) -> Signature | None:
        text = self.get(name, str)
        return None if text is None else signature(text)


class Params:
    """The positional parameters."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values

    def optional(self, index: int, kind: type) -> Any:
        value = self._values[index] if index < len(self._values) else None
        wrong = value is not None and not isinstance(value, kind)
        if wrong or (kind is int and isinstance(value, bool)):
            raise invalid(f"Invalid params: invalid type for parameter {index}.")
        return value

    def required(self, index: int, kind: type) -> Any:
        value = self.optional(index, kind)
        if value is None:
            raise invalid(f"`params` should have at least {index + 1} argument(s)")
        return value

    def pubkey(self, index: int) -> Pubkey:
        return pubkey(self.required(index, str))

    def signature(self, index: int) -> Signature:
        return signature(self.required(index, str))

    def config(self, index: int) -> Config:
        return Config(self.optional(index, dict) or {})


def commitment(name: str) -> Commitment:
    try:
        return _COMMITMENTS[name]
    except KeyError:
        raise invalid(
            f"Invalid params: unknown variant `{name}`, expected one of `processed`, "
            "`confirmed`, `finalized`."
        ) from None


def pubkey(text: Any) -> Pubkey:
    try:
        return Pubkey.from_string(text)
    except (ValueError, TypeError):
        raise invalid(f"Invalid param: {text!r} is not a public key") from None


def signature(text: Any) -> Signature:
    try:
        return Signature.from_string(text)
    except (ValueError, TypeError):
        raise invalid(f"Invalid param: {text!r} is not a signature") from None


def settled(config: Config) -> Commitment:
    """The commitment of a history method, which knows no unconfirmed transactions."""
    level = config.commitment()
    if level is Commitment.PROCESSED:
        raise invalid("Method does not support commitment below `confirmed`")
    return level


def reached(ledger: Ledger, config: Config, level: Commitment | None = None) -> Commitment:
    """The commitment (that of the configuration by default), once it has `minContextSlot`.

    Raises:
        RpcFault: it hasn't.
    """
    level = config.commitment() if level is None else level
    least = config.number("minContextSlot")
    slot = ledger.slot_at(level)
    if least is not None and slot < least:
        raise RpcFault(
            MIN_CONTEXT_SLOT_NOT_REACHED,
            "Minimum context slot has not been reached",
            {"contextSlot": slot},
        )
    return level


def with_context(ledger: Ledger, level: Commitment, value: Any) -> dict[str, Any]:
    return {
        "context": {"apiVersion": API_VERSION, "slot": ledger.slot_at(level)},
        "value": value,
    }
