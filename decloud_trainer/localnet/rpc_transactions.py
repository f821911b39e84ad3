"""JSON-RPC methods that take transactions, and those that look them up again."""

from __future__ import annotations

import base64
import binascii
import contextlib
from typing import Any

import base58
from solders.hash import Hash, ParseHashError
from solders.message import Message, MessageV0, from_bytes_versioned
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from decloud_trainer.errors import DecloudError
from decloud_trainer.localnet.accounts import CLOSED
from decloud_trainer.localnet.failures import Failure, sentence
from decloud_trainer.localnet.history import Landed
from decloud_trainer.localnet.ledger import Ledger, Refused
from decloud_trainer.localnet.machine import Outcome
from decloud_trainer.localnet.rpc_accounts import View
from decloud_trainer.localnet.rpc_params import (
    INTERNAL_ERROR,
    PREFLIGHT_FAILURE,
    SIGNATURE_VERIFICATION_FAILURE,
    UNSUPPORTED_TRANSACTION_VERSION,
    Config,
    Params,
    RpcFault,
    invalid,
    pubkey,
    reached,
    settled,
    signature,
    with_context,
)
from decloud_trainer.localnet.slots import REMEMBERED_SLOTS, Commitment
from decloud_trainer.localnet.transaction_json import parsed_meta, transaction_json

MAX_TRANSACTION_BYTES = 1232
MAX_STATUSES = 256
MAX_SIGNATURES = 1000


def send_transaction(ledger: Ledger, params: Params) -> Any:
    config = params.config(1)
    transaction = _transaction(params, config)
    if config.flag("skipPreflight"):
        reached(ledger, config, Commitment.PROCESSED)
        valid = _is_signed(transaction)
    else:
        level = reached(ledger, config, config.commitment("preflightCommitment"))
        _preflight(ledger, transaction, level)
        valid = True
    # A node has forwarded it by now and never hears of a refusal: the answer is the same.
    with contextlib.suppress(Refused):
        if valid:
            ledger.submit(transaction)
    return str(transaction.signatures[0])


def _preflight(ledger: Ledger, transaction: VersionedTransaction, level: Commitment) -> None:
    _verify(transaction)
    outcome = ledger.simulate(transaction, level)
    if outcome.error is not None:
        raise RpcFault(
            PREFLIGHT_FAILURE,
            f"Transaction simulation failed: {sentence(outcome.error)}",
            _simulation(outcome) | {"accounts": None},
        )


def simulate_transaction(ledger: Ledger, params: Params) -> Any:
    config = params.config(1)
    transaction = _transaction(params, config)
    verify, replace = config.flag("sigVerify"), config.flag("replaceRecentBlockhash")
    if verify and replace:
        raise invalid("sigVerify may not be used with replaceRecentBlockhash")
    level = reached(ledger, config)
    if verify:
        _verify(transaction)
    outcome = ledger.simulate(transaction, level, check_blockhash=not replace)
    value = _simulation(outcome)
    value["accounts"] = _simulated_accounts(ledger, config, level, outcome)
    if not config.flag("innerInstructions"):
        value["innerInstructions"] = None
    if replace:
        value["replacementBlockhash"] = _blockhash(ledger, level)
    return with_context(ledger, level, value)


def _simulated_accounts(
    ledger: Ledger, config: Config, level: Commitment, outcome: Outcome
) -> list[Any] | None:
    wanted = config.sub("accounts")
    if wanted is None:
        return None
    encoding = wanted.text("encoding", "base64")
    if encoding in ("binary", "base58"):
        raise invalid("base58 encoding not supported")
    view = View.of(Config({"encoding": encoding}))
    shown: list[Any] = []
    for address in map(pubkey, wanted.get("addresses", list, [])):
        if outcome.error is not None:
            shown.append(None)
            continue
        account = ledger.account(address, level)
        if address in outcome.accounts:
            account = outcome.accounts[address] or CLOSED
        shown.append(None if account is None else view.show(account))
    return shown


def _simulation(outcome: Outcome) -> dict[str, Any]:
    return {
        "err": outcome.error,
        "logs": list(outcome.logs),
        "unitsConsumed": outcome.units,
        "returnData": outcome.return_data,
        "innerInstructions": list(outcome.inner),
        "replacementBlockhash": None,
    }


def get_fee_for_message(ledger: Ledger, params: Params) -> Any:
    config = params.config(1)
    level = reached(ledger, config)
    try:
        message = from_bytes_versioned(base64.b64decode(params.required(0, str), validate=True))
    except (ValueError, binascii.Error) as error:
        raise invalid(f"failed to deserialize the message: {error}") from None
    if not isinstance(message, Message | MessageV0):
        raise invalid("unsupported message version")
    if not ledger.blockhash_is_valid(message.recent_blockhash, level):
        return with_context(ledger, level, None)
    blank = [Signature.default()] * message.header.num_required_signatures
    transaction = VersionedTransaction.populate(message, blank)
    fee = ledger.simulate(transaction, level, check_blockhash=False).fee
    return with_context(ledger, level, fee)


def get_latest_blockhash(ledger: Ledger, params: Params) -> Any:
    level = reached(ledger, params.config(0))
    return with_context(ledger, level, _blockhash(ledger, level))


def _blockhash(ledger: Ledger, level: Commitment) -> dict[str, Any]:
    return {
        "blockhash": str(ledger.blockhash_at(level)),
        "lastValidBlockHeight": ledger.last_valid_height(level),
    }


def is_blockhash_valid(ledger: Ledger, params: Params) -> Any:
    level = reached(ledger, params.config(1))
    try:
        blockhash = Hash.from_string(params.required(0, str))
    except ParseHashError as error:
        raise invalid(f"Invalid param: {error}") from None
    return with_context(ledger, level, ledger.blockhash_is_valid(blockhash, level))


def get_signature_statuses(ledger: Ledger, params: Params) -> Any:
    texts, config = params.required(0, list), params.config(1)
    if len(texts) > MAX_STATUSES:
        raise invalid(f"Too many inputs provided; max {MAX_STATUSES}")
    oldest = 0
    if not config.flag("searchTransactionHistory"):
        oldest = ledger.current.number - REMEMBERED_SLOTS
    found = [ledger.transaction(signature(text)) for text in texts]
    statuses = [
        None if landed is None or landed.slot <= oldest else _status(ledger, landed)
        for landed in found
    ]
    return with_context(ledger, Commitment.PROCESSED, statuses)


def _status(ledger: Ledger, landed: Landed) -> dict[str, Any]:
    level = ledger.commitment_of(landed.slot)
    final = level is Commitment.FINALIZED
    return {
        "slot": landed.slot,
        "confirmations": None if final else ledger.current.number - landed.slot,
        "err": landed.error,
        "status": _result(landed.error),
        "confirmationStatus": level.value,
    }


def _result(error: Failure | None) -> dict[str, Any]:
    return {"Ok": None} if error is None else {"Err": error}


def get_signatures_for_address(ledger: Ledger, params: Params) -> Any:
    address, config = params.pubkey(0), params.config(1)
    level = reached(ledger, config, settled(config))
    limit = config.number("limit", MAX_SIGNATURES)
    if limit is None or not 1 <= limit <= MAX_SIGNATURES:
        raise invalid(f"Invalid limit; max {MAX_SIGNATURES}")
    landed = ledger.mentioning(
        address,
        level,
        before=config.signature("before"),
        until=config.signature("until"),
        limit=limit,
    )
    return [
        {
            "signature": str(one.signature),
            "slot": one.slot,
            "err": one.error,
            "memo": None,
            "blockTime": one.block_time,
            "confirmationStatus": ledger.commitment_of(one.slot).value,
        }
        for one in landed
    ]


def get_transaction(ledger: Ledger, params: Params) -> Any:
    wanted = params.signature(0)
    # Of old, the encoding alone could stand in the place of the configuration.
    text = params.optional(1, str | dict)  # type: ignore[arg-type]
    config = Config({"encoding": text}) if isinstance(text, str) else params.config(1)
    level = settled(config)
    landed = ledger.transaction(wanted)
    if landed is None or landed.slot > ledger.slot_at(level):
        return None
    transaction = VersionedTransaction.from_bytes(landed.wire)
    version = 0 if isinstance(transaction.message, MessageV0) else "legacy"
    newest = config.number("maxSupportedTransactionVersion")
    if newest is None and version != "legacy":
        raise RpcFault(
            UNSUPPORTED_TRANSACTION_VERSION,
            f"Transaction version ({version}) is not supported by the requesting client. Please "
            "try the request again with the following configuration parameter: "
            f'"maxSupportedTransactionVersion": {version}',
        )
    encoding = config.text("encoding", "json")
    parsed = encoding == "jsonParsed"
    answer = {
        "slot": landed.slot,
        "blockTime": landed.block_time,
        "transaction": transaction_json(transaction, landed.meta, encoding),
        "meta": parsed_meta(transaction, landed.meta) if parsed else landed.meta,
    }
    return answer if newest is None else answer | {"version": version}


def request_airdrop(ledger: Ledger, params: Params) -> Any:
    address, lamports = params.pubkey(0), params.required(1, int)
    try:
        return str(ledger.airdrop(address, lamports).signature)
    except DecloudError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise RpcFault(INTERNAL_ERROR, f"airdrop refused: {error}{hint}") from error


def _transaction(params: Params, config: Config) -> VersionedTransaction:
    encoding = config.text("encoding", "base58")
    text = params.required(0, str)
    kind = "solana_transaction::versioned::VersionedTransaction"
    if len(text) > 2 * MAX_TRANSACTION_BYTES:
        raise invalid(f"{encoding} encoded {kind} too large: {len(text)} bytes")
    try:
        if encoding == "base64":
            wire = base64.b64decode(text, validate=True)
        elif encoding == "base58":
            wire = base58.b58decode(text)
        else:
            raise invalid(f"unsupported encoding: {encoding}. Supported encodings: base58, base64")
    except (ValueError, binascii.Error) as error:
        raise invalid(f"invalid {encoding} encoding: {error}") from None
    if len(wire) > MAX_TRANSACTION_BYTES:
        raise invalid(
            f"decoded {kind} too large: {len(wire)} bytes (max: {MAX_TRANSACTION_BYTES} bytes)"
        )
    try:
        transaction = VersionedTransaction.from_bytes(wire)
        transaction.sanitize()
    except ValueError as error:
        raise invalid(f"failed to deserialize {kind}: {error}") from None
    if not isinstance(transaction.message, Message | MessageV0):
        raise invalid("invalid transaction: unsupported version")
    return transaction


def _is_signed(transaction: VersionedTransaction) -> bool:
    return all(transaction.verify_with_results())


def _verify(transaction: VersionedTransaction) -> None:
    if not _is_signed(transaction):
        raise RpcFault(SIGNATURE_VERIFICATION_FAILURE, "Transaction signature verification failure")
