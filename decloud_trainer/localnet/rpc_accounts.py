"""JSON-RPC methods that read accounts, and how an account looks in JSON."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import base58
from solders.pubkey import Pubkey

from decloud_trainer.localnet.accounts import Account
from decloud_trainer.localnet.ledger import Ledger
from decloud_trainer.localnet.rpc_params import (
    INVALID_REQUEST,
    Config,
    Params,
    RpcFault,
    invalid,
    pubkey,
    reached,
    with_context,
)

MAX_ACCOUNTS = 100
MAX_FILTERS = 4
MAX_MEMCMP_BYTES = 128
MAX_BASE58_BYTES = 128
_ENCODINGS = ("binary", "base58", "base64", "jsonParsed")

Filter = Callable[[Account], bool]


@dataclass(frozen=True, slots=True)
class View:
    """How a client wants to see account data.

    Attributes:
        piece: what part of the data; None for all.
    """

    encoding: str
    piece: slice | None

    @classmethod
    def of(cls, config: Config) -> View:
        # "binary" is the oldest form: base58 without a label. It is still a node's default.
        encoding = config.text("encoding", "binary")
        if encoding not in _ENCODINGS:
            raise invalid(
                f"Invalid params: the encoding `{encoding}` is not served here, "
                "expected one of `base58`, `base64`, `jsonParsed`."
            )
        part = config.sub("dataSlice")
        if part is None:
            return cls(encoding, None)
        offset, length = part.number("offset"), part.number("length")
        if offset is None or length is None:
            raise invalid("Invalid params: `dataSlice` needs `offset` and `length`.")
        return cls(encoding, slice(offset, offset + length))

    def show(self, account: Account) -> dict[str, Any]:
        """The account as a node shows it."""
        return {
            "lamports": account.lamports,
            "owner": str(account.owner),
            "data": self._data(account.data),
            "executable": account.executable,
            "rentEpoch": account.rent_epoch,
            "space": len(account.data),
        }

    def _data(self, data: bytes) -> Any:
        if self.encoding == "jsonParsed":
            # No account type has a parser here; a node falls back in the same way.
            return [base64.b64encode(data).decode(), "base64"]
        shown = data if self.piece is None else data[self.piece]
        if self.encoding == "base64":
            return [base64.b64encode(shown).decode(), "base64"]
        if len(shown) > MAX_BASE58_BYTES:
            raise RpcFault(
                INVALID_REQUEST,
                f"Encoded binary (base 58) data should be less than {MAX_BASE58_BYTES} bytes, "
                "please use Base64 encoding.",
            )
        text = base58.b58encode(shown).decode()
        return text if self.encoding == "binary" else [text, "base58"]


def account_filter(config: Config) -> Filter:
    """The conjunction of the ``filters`` of a program's accounts."""
    wanted = config.get("filters", list, [])
    if len(wanted) > MAX_FILTERS:
        raise invalid(f"Too many filters provided; max {MAX_FILTERS}")
    filters = [_one_filter(fields) for fields in wanted]
    return lambda account: all(matches(account) for matches in filters)


def _one_filter(fields: Any) -> Filter:
    if fields == "tokenAccountState":
        return lambda account: False  # there are no token accounts here
    if isinstance(fields, dict) and "dataSize" in fields:
        size = Config(fields).number("dataSize")
        return lambda account: len(account.data) == size
    if isinstance(fields, dict) and isinstance(fields.get("memcmp"), dict):
        return _memcmp(Config(fields["memcmp"]))
    raise invalid("Invalid params: a filter is one of `dataSize` and `memcmp`.")


def _memcmp(config: Config) -> Filter:
    offset, text = config.number("offset"), config.get("bytes", object)
    if offset is None or not isinstance(text, str | list):
        raise invalid("Invalid params: a memcmp needs `offset` and `bytes`.")
    encoding = config.text("encoding", "base58")
    try:
        if isinstance(text, list):
            wanted = bytes(text)
        elif encoding == "base58":
            wanted = base58.b58decode(text)
        elif encoding == "base64":
            wanted = base64.b64decode(text, validate=True)
        else:
            raise invalid(f"Invalid params: unknown memcmp encoding `{encoding}`.")
    except (ValueError, TypeError, binascii.Error) as error:
        raise invalid(f"Invalid param: unable to decode the bytes of memcmp: {error}") from None
    if len(wanted) > MAX_MEMCMP_BYTES:
        raise invalid(
            f"Invalid param: encoded binary of memcmp should be at most {MAX_MEMCMP_BYTES} bytes"
        )
    end = offset + len(wanted)
    return lambda account: account.data[offset:end] == wanted


def get_account_info(ledger: Ledger, params: Params) -> Any:
    address, config = params.pubkey(0), params.config(1)
    view, level = View.of(config), reached(ledger, config)
    account = ledger.account(address, level)
    return with_context(ledger, level, None if account is None else view.show(account))


def get_multiple_accounts(ledger: Ledger, params: Params) -> Any:
    texts, config = params.required(0, list), params.config(1)
    if len(texts) > MAX_ACCOUNTS:
        raise invalid(f"Too many inputs provided; max {MAX_ACCOUNTS}")
    addresses = [pubkey(text) for text in texts]
    view, level = View.of(config), reached(ledger, config)
    found = [ledger.account(address, level) for address in addresses]
    shown = [None if account is None else view.show(account) for account in found]
    return with_context(ledger, level, shown)


def get_program_accounts(ledger: Ledger, params: Params) -> Any:
    program, config = params.pubkey(0), params.config(1)
    view, matches, level = View.of(config), account_filter(config), reached(ledger, config)
    shown = [
        keyed(address, account, view)
        for address, account in ledger.program_accounts(program, level)
        if matches(account)
    ]
    return with_context(ledger, level, shown) if config.flag("withContext") else shown


def keyed(address: Pubkey, account: Account, view: View) -> dict[str, Any]:
    return {"pubkey": str(address), "account": view.show(account)}


def get_balance(ledger: Ledger, params: Params) -> Any:
    address, config = params.pubkey(0), params.config(1)
    level = reached(ledger, config)
    account = ledger.account(address, level)
    return with_context(ledger, level, 0 if account is None else account.lamports)


def get_minimum_balance_for_rent_exemption(ledger: Ledger, params: Params) -> Any:
    data_bytes = params.required(0, int)
    if not 0 <= data_bytes <= 10 * 1024 * 1024:
        raise invalid("Invalid params: an account has at most 10 MiB of data.")
    return ledger.rent_exempt_lamports(data_bytes)
