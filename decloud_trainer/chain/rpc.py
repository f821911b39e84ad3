"""The Solana calls that we make, with their answers checked."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from solders.hash import Hash, ParseHashError
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import Transaction

from decloud_trainer.chain.endpoints import Endpoints
from decloud_trainer.chain.jsonrpc import TOO_MANY_REQUESTS, Endpoint
from decloud_trainer.chain.v1_accounts import Filter
from decloud_trainer.errors import RpcError

CONFIRMED: Final = "confirmed"
FINALIZED: Final = "finalized"
MAX_ACCOUNTS_PER_CALL = 100
PREFLIGHT_FAILURE = -32002
NODE_BEHIND: Final = -32005
MAX_UNITS: Final = 1_400_000
"""Compute units that a transaction can take at most."""
_PRIORITY_SLOTS: Final = 150
SURELY_NOT_SENT: Final = frozenset({TOO_MANY_REQUESTS, NODE_BEHIND})
"""Codes of refusals that say that a transaction was not taken."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account as it was read; `data` may be a slice of it."""

    address: Pubkey
    owner: Pubkey
    lamports: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a transaction did not succeed: at preflight, in a simulation or on chain.

    Attributes:
        error: the transaction error as JSON-RPC spells it, e.g. ``"BlockhashNotFound"`` or
            ``{"InstructionError": [0, {"Custom": 6009}]}``.
    """

    error: Any
    logs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """What became of a transaction that is at least confirmed; `error` as in `Failure`."""

    slot: int
    error: Any


@dataclass(frozen=True, slots=True)
class Position:
    """Where a chain stands: slot and block height of one and the same bank."""

    slot: int
    height: int


class Rpc(Endpoints):
    """Calls of Solana's JSON-RPC, at commitment `confirmed` unless they say otherwise.

    Every method may raise RpcError."""

    async def send(self, raw: bytes, *, preflight: bool) -> Failure | None:
        """Hand a signed transaction over, once to each endpoint at most; None when one of them
        accepted it for broadcast. Without preflight all endpoints get it.

        A `Failure` says that this call broadcast nothing. After an RpcError the transaction may
        be on its way, except with one of the codes SURELY_NOT_SENT.
        """
        options = {
            "encoding": "base64",
            "skipPreflight": not preflight,
            "preflightCommitment": CONFIRMED,
            "maxRetries": 0,
        }
        params = [base64.b64encode(raw).decode(), options]
        asked = await self.ask("sendTransaction", params, _sent, everywhere=not preflight)
        if None in asked.values:
            return None
        unknown = [error for error in asked.errors if error.code not in SURELY_NOT_SENT]
        if asked.values and (not unknown or asked.values[0].error == "AlreadyProcessed"):
            failure: Failure = asked.values[0]
            return failure
        raise (unknown or asked.errors)[0]

    async def simulate(self, message: Message) -> Failure | None:
        """Run an unsigned transaction without sending it; None if it succeeds."""
        return _failure_in(await self._simulation(message))

    async def units(self, message: Message) -> int | None:
        """The compute units that a transaction takes, simulated; None where it would fail."""
        value = await self._simulation(message)
        taken = value.get("unitsConsumed")
        if _failure_in(value) is not None:
            return None
        if type(taken) is not int or not 0 <= taken <= MAX_UNITS:
            raise self.nonsense("simulateTransaction")
        return taken

    async def simulated(
        self, message: Message, addresses: Sequence[Pubkey]
    ) -> Failure | list[Account | None]:
        """As `simulate`; when it succeeds, the accounts as they would be then, in order, None
        where there would be none."""
        wanted = {"encoding": "base64", "addresses": [str(one) for one in addresses]}
        value = await self._simulation(message, accounts=wanted)
        failure = _failure_in(value)
        if failure is not None:
            return failure
        shown = value.get("accounts")
        if not isinstance(shown, list) or len(shown) != len(addresses):
            raise self.nonsense("simulateTransaction")
        return [
            None if account is None else read_account(str(address), account)
            for address, account in zip(addresses, shown, strict=True)
        ]

    async def _simulation(self, message: Message, **more: Any) -> dict[str, Any]:
        unsigned = bytes(Transaction.populate(message, [Signature.default()]))
        options = {
            "encoding": "base64",
            "sigVerify": False,
            "replaceRecentBlockhash": True,
            "commitment": CONFIRMED,
            **more,
        }
        transaction = base64.b64encode(unsigned).decode()
        value: dict[str, Any] = await self._value(
            "simulateTransaction", transaction, options, kind=dict
        )
        return value

    async def balance(self, address: Pubkey, *, since_slot: int = 0) -> int:
        """Lamports, as of `since_slot` or later; 0 for an account that doesn't exist."""
        options: dict[str, Any] = {"commitment": CONFIRMED}
        if since_slot:
            options["minContextSlot"] = since_slot
        return int(await self._value("getBalance", str(address), options, kind=int))

    async def account(self, address: Pubkey) -> Account | None:
        """The account, or None where there is none."""
        return (await self.accounts([address]))[0]

    async def accounts(
        self, addresses: Sequence[Pubkey], *, data_slice: tuple[int, int] | None = None
    ) -> list[Account | None]:
        """The accounts, in order and as many, None where there is none; `data_slice` is
        (offset, length)."""
        found: list[Account | None] = []
        options = _reading(data_slice)
        for start in range(0, len(addresses), MAX_ACCOUNTS_PER_CALL):
            part = addresses[start : start + MAX_ACCOUNTS_PER_CALL]
            names = [str(address) for address in part]
            values = await self._value("getMultipleAccounts", names, options, kind=list)
            if len(values) != len(part):
                raise self.nonsense("getMultipleAccounts")
            found += [
                None if value is None else read_account(str(address), value)
                for address, value in zip(part, values, strict=True)
            ]
        return found

    async def program_accounts(
        self,
        program: Pubkey,
        filters: Sequence[Filter],
        *,
        data_slice: tuple[int, int] | None = None,
    ) -> list[Account]:
        """The program's accounts that pass all filters; `data_slice` is (offset, length)."""
        options = {**_reading(data_slice), "filters": memcmp(filters)}

        def read(result: Any) -> list[Account]:
            return [read_account(item["pubkey"], item["account"]) for item in result]

        found: list[Account] = await self.call(
            "getProgramAccounts", str(program), options, read=read
        )
        return found

    async def latest_blockhash(self) -> tuple[Hash, int]:
        """The newest confirmed blockhash, and the last block height at which it is accepted."""

        def read(result: Any) -> tuple[Hash, int]:
            value = result["value"]
            try:
                return Hash.from_string(value["blockhash"]), int(value["lastValidBlockHeight"])
            except ParseHashError as error:
                raise ValueError("no hash") from error

        found: tuple[Hash, int] = await self.call(
            "getLatestBlockhash", {"commitment": CONFIRMED}, read=read
        )
        return found

    async def finalized(self) -> Position:
        """Where the chain stands at `finalized`."""

        def read(result: Any) -> Position:
            return Position(int(result["absoluteSlot"]), int(result["blockHeight"]))

        found: Position = await self.call("getEpochInfo", {"commitment": FINALIZED}, read=read)
        return found

    async def signature_status(
        self, signature: str, *, search_history: bool
    ) -> tuple[int, Status | None]:
        """The slot that the node has reached, and the status if confirmed there, else None."""

        def read(result: Any) -> tuple[int, Status | None]:
            slot, (value,) = int(result["context"]["slot"]), result["value"]
            if value is None or value.get("confirmationStatus") == "processed":
                return slot, None
            return slot, Status(int(value["slot"]), value.get("err"))

        options = {"searchTransactionHistory": search_history}
        found: tuple[int, Status | None] = await self.call(
            "getSignatureStatuses", [signature], options, read=read
        )
        return found

    async def has_expired(self, signature: str, last_valid_height: int) -> Status | bool:
        """Whether the transaction can't land any more; its status if it has landed.

        True is a proof by one endpoint, which has itself finalized a block beyond the last valid
        height, and then finds no such signature in its history, while no other endpoint that
        answers knows it either: one that lags behind, or is on a dead fork, can't make it true.
        """
        proved, error = False, None
        for one in self.each():
            try:
                finalized = await one.finalized()
                slot, status = await one.signature_status(signature, search_history=True)
            except RpcError as trouble:
                error = error or trouble
                continue
            if status is not None:
                return status
            proved |= finalized.height > last_valid_height and slot >= finalized.slot
        if not proved and error is not None:
            raise error
        return proved

    async def transaction(self, signature: str) -> Mapping[str, Any] | None:
        """A confirmed transaction with its ``meta``, as JSON; None while it isn't served."""
        options = {
            "encoding": "json",
            "commitment": CONFIRMED,
            "maxSupportedTransactionVersion": 0,
        }
        result = await self.call("getTransaction", signature, options)
        if result is not None and not isinstance(result, dict):
            raise self.nonsense("getTransaction")
        return result

    async def rent(self, data_bytes: int) -> int:
        """Lamports that keep an account of that size for ever."""

        def read(result: Any) -> int:
            if type(result) is not int:
                raise TypeError(type(result).__name__)
            return result

        return int(await self.call("getMinimumBalanceForRentExemption", data_bytes, read=read))

    async def recent_priority(self, addresses: Sequence[Pubkey]) -> list[int]:
        """What the cheapest transaction that wrote to these accounts paid in each of the last
        slots (at most 150 of them), in millionths of a lamport per compute unit."""

        def read(result: Any) -> list[int]:
            prices = [slot["prioritizationFee"] for slot in result[-_PRIORITY_SLOTS:]]
            if not all(type(price) is int and price >= 0 for price in prices):
                raise ValueError("no fee")
            return prices

        names = [str(address) for address in addresses]
        found: list[int] = await self.call("getRecentPrioritizationFees", names, read=read)
        return found

    async def genesis_hash(self) -> str:
        """Which chain this is."""

        def read(result: Any) -> str:
            if not isinstance(result, str):
                raise TypeError(type(result).__name__)
            return result

        return str(await self.call("getGenesisHash", read=read))

    async def _value(self, method: str, *params: Any, kind: type) -> Any:
        """The ``value`` of an answer that comes with a context."""

        def read(result: Any) -> Any:
            value = result["value"]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(type(value).__name__)
            return value

        return await self.call(method, *params, read=read)


def _reading(data_slice: tuple[int, int] | None) -> dict[str, Any]:
    """How accounts are asked for; `data_slice` is (offset, length)."""
    options: dict[str, Any] = {"encoding": "base64", "commitment": CONFIRMED}
    if data_slice is not None:
        options["dataSlice"] = {"offset": data_slice[0], "length": data_slice[1]}
    return options


def memcmp(filters: Sequence[Filter]) -> list[dict[str, Any]]:
    """Filters in the form that getProgramAccounts and programSubscribe take."""
    return [
        {"memcmp": {"offset": wanted.offset, "bytes": wanted.base58, "encoding": "base58"}}
        for wanted in filters
    ]


def read_account(address: str, value: Any) -> Account:
    """An account from its base64 JSON form.

    Raises:
        RpcError: the JSON isn't one.
    """
    try:
        text, encoding = value["data"]
        if encoding != "base64":
            raise ValueError(encoding)
        return Account(
            Pubkey.from_string(address),
            Pubkey.from_string(value["owner"]),
            int(value["lamports"]),
            base64.b64decode(text, validate=True),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RpcError(f"the endpoint sent no valid account for {address}") from error


def _sent(endpoint: Endpoint, answer: Mapping[str, Any]) -> Failure | None:
    error = answer.get("error")
    if isinstance(error, dict) and error.get("code") == PREFLIGHT_FAILURE:
        data = error.get("data")
        data = data if isinstance(data, dict) else {}
        return Failure(data.get("err") or _error_named_in(error.get("message")), _logs(data))
    endpoint.result(answer, "sendTransaction")
    return None


def _failure_in(value: Mapping[str, Any]) -> Failure | None:
    """Why a simulation failed, if it did."""
    return None if value.get("err") is None else Failure(value["err"], _logs(value))


def _logs(data: Mapping[str, Any]) -> tuple[str, ...]:
    logs = data.get("logs")
    return tuple(str(line) for line in logs) if isinstance(logs, list) else ()


def _error_named_in(message: object) -> str:
    """The error of a refusal that came without data, from the node's fixed sentences."""
    text = str(message)
    if "already been processed" in text:
        return "AlreadyProcessed"
    if "lockhash not found" in text:
        return "BlockhashNotFound"
    return text[:300]
