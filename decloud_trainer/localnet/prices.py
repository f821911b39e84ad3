"""What recent transactions paid for priority, slot by slot, as a node remembers it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from decloud_trainer.localnet.ledger import Ledger
from decloud_trainer.localnet.machine import writable_keys

COMPUTE_BUDGET: Final = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
_SET_UNIT_PRICE: Final = 3


def least_prices(ledger: Ledger, first: int, accounts: Collection[Pubkey]) -> dict[int, int]:
    """Of each slot from `first` on that has transactions: the least price in it, in millionths of
    a lamport per compute unit, or if it is more the least that wrote to one of the accounts."""
    in_slot: dict[int, int] = {}
    of_account: dict[tuple[int, Pubkey], int] = {}
    for landed in ledger.landed_since(first):
        transaction = VersionedTransaction.from_bytes(landed.wire)
        price = _price(transaction)
        in_slot[landed.slot] = min(price, in_slot.get(landed.slot, price))
        for key in writable_keys(transaction.message, ledger.keys(transaction)):
            if key in accounts:
                place = landed.slot, key
                of_account[place] = min(price, of_account.get(place, price))
    for (slot, _), price in of_account.items():
        in_slot[slot] = max(in_slot[slot], price)
    return in_slot


def _price(transaction: VersionedTransaction) -> int:
    message = transaction.message
    for instruction in message.instructions:
        data = bytes(instruction.data)
        sets_price = len(data) == 9 and data[0] == _SET_UNIT_PRICE
        if sets_price and message.account_keys[instruction.program_id_index] == COMPUTE_BUDGET:
            return int.from_bytes(data[1:], "little")
    return 0
