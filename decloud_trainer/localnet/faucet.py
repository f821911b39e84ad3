"""The faucet's transfers."""

from __future__ import annotations

from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

FAUCET_LAMPORTS = 500_000_000 * 10**9


def faucet_transfer(
    faucet: Keypair, address: Pubkey, lamports: int, blockhash: Hash, number: int
) -> VersionedTransaction:
    """A signed transfer; `number` makes it differ from others that are otherwise equal."""
    params = TransferParams(from_pubkey=faucet.pubkey(), to_pubkey=address, lamports=lamports)
    # Two equal airdrops in one slot would be one transaction; this limit tells them apart.
    distinct = set_compute_unit_limit(10_000 + number % 100_000)
    instructions = [distinct, transfer(params)]
    message = Message.new_with_blockhash(instructions, faucet.pubkey(), blockhash)
    return VersionedTransaction(message, [faucet])
