"""How a transaction looks in JSON."""

from __future__ import annotations

import base64
from typing import Any

import base58
from solders.message import MessageV0
from solders.transaction import VersionedTransaction

from decloud_trainer.localnet.machine import TransactionKeys, writable_keys
from decloud_trainer.localnet.rpc_params import invalid, pubkey


def transaction_json(transaction: VersionedTransaction, meta: dict[str, Any], encoding: str) -> Any:
    """The ``transaction`` field of a node's ``getTransaction``.

    Raises:
        RpcFault: the encoding is not served.
    """
    wire = bytes(transaction)
    if encoding == "base64":
        return [base64.b64encode(wire).decode(), "base64"]
    if encoding == "base58":
        return [base58.b58encode(wire).decode(), "base58"]
    if encoding == "binary":
        return base58.b58encode(wire).decode()
    if encoding not in ("json", "jsonParsed"):
        raise invalid(f"Invalid params: unknown encoding `{encoding}`.")
    signatures = [str(signature) for signature in transaction.signatures]
    message = _message(transaction) if encoding == "json" else _parsed(transaction, meta)
    return {"signatures": signatures, "message": message}


def _message(transaction: VersionedTransaction) -> dict[str, Any]:
    message = transaction.message
    header = message.header
    shown: dict[str, Any] = {
        "header": {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        },
        "accountKeys": [str(key) for key in message.account_keys],
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [
            {
                "programIdIndex": instruction.program_id_index,
                "accounts": list(instruction.accounts),
                "data": base58.b58encode(instruction.data).decode(),
                "stackHeight": 1,
            }
            for instruction in message.instructions
        ],
    }
    if isinstance(message, MessageV0):
        shown["addressTableLookups"] = _lookups(message)
    return shown


def _parsed(transaction: VersionedTransaction, meta: dict[str, Any]) -> dict[str, Any]:
    """The parsed form without parsers: a node shows unknown programs in the same way."""
    message = transaction.message
    loaded = meta["loadedAddresses"]
    keys = TransactionKeys(
        tuple(message.account_keys),
        tuple(map(pubkey, loaded["writable"])),
        tuple(map(pubkey, loaded["readonly"])),
    )
    writable = set(writable_keys(message, keys))
    names = [str(key) for key in keys.all]
    shown: dict[str, Any] = {
        "accountKeys": [
            {
                "pubkey": str(key),
                "signer": index < message.header.num_required_signatures,
                "writable": key in writable,
                "source": "transaction" if index < len(keys.static) else "lookupTable",
            }
            for index, key in enumerate(keys.all)
        ],
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [
            {
                "programId": names[instruction.program_id_index],
                "accounts": [names[index] for index in instruction.accounts],
                "data": base58.b58encode(instruction.data).decode(),
                "stackHeight": 1,
            }
            for instruction in message.instructions
        ],
    }
    if isinstance(message, MessageV0):
        shown["addressTableLookups"] = _lookups(message)
    return shown


def parsed_meta(transaction: VersionedTransaction, meta: dict[str, Any]) -> dict[str, Any]:
    """The meta beside a parsed transaction: its inner instructions name accounts, not indexes."""
    names = [str(key) for key in transaction.message.account_keys]
    names += meta["loadedAddresses"]["writable"] + meta["loadedAddresses"]["readonly"]
    inner = [
        {
            "index": group["index"],
            "instructions": [
                {
                    "programId": names[instruction["programIdIndex"]],
                    "accounts": [names[index] for index in instruction["accounts"]],
                    "data": instruction["data"],
                    "stackHeight": instruction["stackHeight"],
                }
                for instruction in group["instructions"]
            ],
        }
        for group in meta["innerInstructions"]
    ]
    return {key: value for key, value in meta.items() if key != "loadedAddresses"} | {
        "innerInstructions": inner
    }


def _lookups(message: MessageV0) -> list[dict[str, Any]]:
    return [
        {
            "accountKey": str(lookup.account_key),
            "writableIndexes": list(bytes(lookup.writable_indexes)),
            "readonlyIndexes": list(bytes(lookup.readonly_indexes)),
        }
        for lookup in message.address_table_lookups
    ]
