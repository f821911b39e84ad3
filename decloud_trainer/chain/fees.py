"""Priority fees: what others pay at the moment, followed up to what an action allows.

Without one a transaction costs the base fee alone, so none is paid while nobody else pays one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import Message
from solders.pubkey import Pubkey

from decloud_trainer.chain.rpc import MAX_UNITS, Rpc
from decloud_trainer.errors import NetworkError
from decloud_trainer.rounds.model import Tip

log = logging.getLogger(__name__)

# What a transaction of ours takes, taken for granted where nothing is simulated.
USUAL_UNITS: Final = 40_000
MICRO: Final = 1_000_000


def price_at(recent: Sequence[int], percentile: int) -> int:
    """The price of that rank among recent ones (0-100, nearest rank); 0 without any."""
    if not recent:
        return 0
    rank = -(-percentile * len(recent) // 100)
    return sorted(recent)[min(max(rank, 1), len(recent)) - 1]


def lamports_of(price: int, units: int) -> int:
    """What a price in millionths of a lamport per unit comes to, rounded up."""
    return -(-price * units // MICRO)


async def with_priority(
    rpc: Rpc, instruction: Instruction, payer: Pubkey, tip: Tip
) -> list[Instruction]:
    """The instruction, and before it those that set a price, if one is to be paid.

    The price follows the accounts that are written to. The limit of units, which the fee is
    computed from, is what a simulation takes and half of it more. What can't be found out, or
    fails in the simulation, goes for the base fee.
    """
    if tip.most_lamports <= 0:
        return [instruction]
    written = [meta.pubkey for meta in instruction.accounts if meta.is_writable]
    try:
        price = price_at(await rpc.recent_priority(written), tip.percentile)
        message = Message.new_with_blockhash([instruction], payer, Hash.default())
        units = await rpc.units(message) if price else None
    except NetworkError as error:
        log.info("no priority fee, since what others pay can't be asked: %s", error)
        return [instruction]
    if units is None:
        return [instruction]
    limit = min(units + units // 2 + 2_000, MAX_UNITS)
    price = min(price, tip.most_lamports * MICRO // limit)
    if price == 0:
        return [instruction]
    return [set_compute_unit_limit(limit), set_compute_unit_price(price), instruction]
