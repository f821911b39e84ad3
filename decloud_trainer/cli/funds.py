"""What a wallet holds, and for how many rounds that is enough."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from decloud_trainer.settings import Settings


class Funds(NamedTuple):
    """Lamports: what is in the wallet, what a round costs, and what must stay in the wallet."""

    balance: int
    cost: int
    kept: int

    @property
    def rounds(self) -> int:
        """So many can be taken part in."""
        return max(self.balance - self.kept, 0) // self.cost


def funds_of(settings: Settings, pubkey: str) -> Funds:
    """Ask the network. Raises NetworkError."""
    return asyncio.run(_asked(settings, pubkey))


async def _asked(settings: Settings, pubkey: str) -> Funds:
    from decloud_trainer.rounds.policy import kept_lamports
    from decloud_trainer.rounds.prospects import total_costs
    from decloud_trainer.wiring import open_chain

    async with open_chain(settings, pubkey) as (chain, _):
        balance, costs = await chain.balance(), await chain.costs()
    return Funds(balance, total_costs(costs), kept_lamports(settings.floor_balance_lamports))
