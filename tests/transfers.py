"""Signed transfers for tests of the local ledger and its servers."""

from __future__ import annotations

import base64

from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

SOL = 10**9


def signed_transfer(
    payer: Keypair, to: Pubkey, lamports: int, blockhash: Hash, *, version: int | None = None
) -> VersionedTransaction:
    """A transfer in the legacy form, or in version 0."""
    params = TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=lamports)
    if version == 0:
        message = MessageV0.try_compile(payer.pubkey(), [transfer(params)], [], blockhash)
        return VersionedTransaction(message, [payer])
    legacy = Message.new_with_blockhash([transfer(params)], payer.pubkey(), blockhash)
    return VersionedTransaction(legacy, [payer])


def as_base64(transaction: VersionedTransaction) -> str:
    return base64.b64encode(bytes(transaction)).decode()
