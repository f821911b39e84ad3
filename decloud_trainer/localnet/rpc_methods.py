"""The JSON-RPC methods by name, those about the cluster itself, and the envelope around them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from decloud_trainer.errors import DecloudError
from decloud_trainer.localnet import rpc_accounts, rpc_transactions
from decloud_trainer.localnet.ledger import Ledger
from decloud_trainer.localnet.prices import least_prices
from decloud_trainer.localnet.rpc_params import (
    API_VERSION,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    Params,
    RpcFault,
    invalid,
    pubkey,
    reached,
)
from decloud_trainer.localnet.slots import BLOCKHASH_SLOTS

Method = Callable[[Ledger, Params], Any]

SLOTS_PER_EPOCH = 432_000
MAX_FEE_ACCOUNTS = 128


def get_slot(ledger: Ledger, params: Params) -> Any:
    return ledger.slot_at(reached(ledger, params.config(0)))


def get_epoch_info(ledger: Ledger, params: Params) -> Any:
    slot = get_slot(ledger, params)
    return {
        "absoluteSlot": slot,
        "blockHeight": slot,
        "epoch": slot // SLOTS_PER_EPOCH,
        "slotIndex": slot % SLOTS_PER_EPOCH,
        "slotsInEpoch": SLOTS_PER_EPOCH,
        "transactionCount": ledger.transaction_count(),
    }


def get_genesis_hash(ledger: Ledger, params: Params) -> Any:
    return str(ledger.genesis_hash)


def get_version(ledger: Ledger, params: Params) -> Any:
    return {"solana-core": API_VERSION, "feature-set": 0}


def get_health(ledger: Ledger, params: Params) -> Any:
    return "ok"


def get_recent_prioritization_fees(ledger: Ledger, params: Params) -> Any:
    """Of each slot the least price paid, by those that wrote to the accounts if any did."""
    accounts = [pubkey(text) for text in params.optional(0, list) or []]
    if len(accounts) > MAX_FEE_ACCOUNTS:
        raise invalid(f"Too many inputs provided; max {MAX_FEE_ACCOUNTS}")
    newest = ledger.current.number
    first = max(ledger.first_slot, newest - BLOCKHASH_SLOTS + 1)
    least = least_prices(ledger, first, accounts)
    return [
        {"slot": slot, "prioritizationFee": least.get(slot, 0)} for slot in range(first, newest + 1)
    ]


def get_first_available_block(ledger: Ledger, params: Params) -> Any:
    return ledger.first_slot


def get_block_time(ledger: Ledger, params: Params) -> Any:
    slot = params.required(0, int)
    if not 0 <= slot < 2**63:
        raise invalid("Invalid params: a slot is out of range.")
    return ledger.block_time(slot)


def get_transaction_count(ledger: Ledger, params: Params) -> Any:
    return ledger.transaction_count()


METHODS: dict[str, Method] = {
    "getAccountInfo": rpc_accounts.get_account_info,
    "getBalance": rpc_accounts.get_balance,
    "getBlockHeight": get_slot,  # no slot is ever skipped here
    "getBlockTime": get_block_time,
    "getEpochInfo": get_epoch_info,
    "getFeeForMessage": rpc_transactions.get_fee_for_message,
    "getFirstAvailableBlock": get_first_available_block,
    "getGenesisHash": get_genesis_hash,
    "getHealth": get_health,
    "getLatestBlockhash": rpc_transactions.get_latest_blockhash,
    "getMinimumBalanceForRentExemption": rpc_accounts.get_minimum_balance_for_rent_exemption,
    "getMultipleAccounts": rpc_accounts.get_multiple_accounts,
    "getProgramAccounts": rpc_accounts.get_program_accounts,
    "getRecentPrioritizationFees": get_recent_prioritization_fees,
    "getSignatureStatuses": rpc_transactions.get_signature_statuses,
    "getSignaturesForAddress": rpc_transactions.get_signatures_for_address,
    "getSlot": get_slot,
    "getTransaction": rpc_transactions.get_transaction,
    "getTransactionCount": get_transaction_count,
    "getVersion": get_version,
    "isBlockhashValid": rpc_transactions.is_blockhash_valid,
    "minimumLedgerSlot": get_first_available_block,
    "requestAirdrop": rpc_transactions.request_airdrop,
    "sendTransaction": rpc_transactions.send_transaction,
    "simulateTransaction": rpc_transactions.simulate_transaction,
}

Answer = dict[str, Any] | list[dict[str, Any]] | None


def parse(body: bytes | str) -> Any:
    """The JSON of a request.

    Raises:
        RpcFault: it is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise RpcFault(PARSE_ERROR, "Parse error") from None


def read_request(request: Any) -> tuple[Any, str, Params]:
    """The id (None for a notification), method and parameters of one request.

    Raises:
        RpcFault: it is no JSON-RPC 2.0 request.
    """
    method = request.get("method") if isinstance(request, dict) else None
    if not isinstance(method, str) or request.get("jsonrpc") != "2.0":
        raise RpcFault(INVALID_REQUEST, "Invalid request")
    params = request.get("params")
    if params is not None and not isinstance(params, list):
        raise invalid("Invalid params: expected an array.")
    return request.get("id"), method, Params(params or [])


def fault_answer(request: Any, fault: RpcFault) -> dict[str, Any]:
    known = isinstance(request, dict) and isinstance(request.get("id"), str | int | float)
    return {
        "jsonrpc": "2.0",
        "error": fault.as_json(),
        "id": request["id"] if known else None,
    }


def answer_one(ledger: Ledger, request: Any) -> dict[str, Any] | None:
    """The answer to one request; None for a notification (a request without an id)."""
    try:
        request_id, name, params = read_request(request)
        method = METHODS.get(name)
        if method is None:
            raise RpcFault(METHOD_NOT_FOUND, "Method not found")
        answer = {"jsonrpc": "2.0", "result": method(ledger, params), "id": request_id}
    except RpcFault as fault:
        answer = fault_answer(request, fault)
    except DecloudError as error:  # the database: a full disk, a deleted folder
        answer = fault_answer(request, RpcFault(INTERNAL_ERROR, f"Internal error: {error}"))
    return answer if not isinstance(request, dict) or "id" in request else None


def answer(ledger: Ledger, body: bytes) -> Answer:
    """The answer to a request body, which holds one request or a batch of them."""
    try:
        requests = parse(body)
        if requests == []:
            raise RpcFault(INVALID_REQUEST, "Invalid request")
    except RpcFault as fault:
        return fault_answer(None, fault)
    if isinstance(requests, list):
        answers = [answer_one(ledger, request) for request in requests]
        return [one for one in answers if one is not None] or None
    return answer_one(ledger, requests)
