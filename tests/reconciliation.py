"""The ledger against the chain, over many rounds of every outcome: ``make reconcile``.

Real are the chain, its program, the servers, the pin service, the daemon, the guard and the
journal; the training children are scripted. What others pay for priority is made up.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent))

from daemonworld import Running, World, a_world, ask
from localchain import FEE, RENT, SOL, until
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from decloud_trainer.chain import v1
from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.localnet.history import Landed
from decloud_trainer.localnet.slots import Commitment
from decloud_trainer.rounds import coldstore, daemon, intents, ledger
from decloud_trainer.rounds.entry import State
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import Action, ActionKind, Intent, Outcome
from decloud_trainer.rounds.spending import Ceilings, ColdStore
from decloud_trainer.rounds.transfers import transfers

FLOAT = 19 * SOL // 2
REWARD = SOL // 20
LONG_S = 60.0
OUTCOMES = (
    "won alone",
    "won with another",
    "no share",
    "aborted",
    "expired",
    "dust in the vault",
    "refused by the guard",
    "submission failed on chain",
    "won with another",
    "won alone",
)


class Crowded(Rpc):
    """Others pay for priority, more or less."""

    prices: random.Random

    async def recent_priority(self, addresses: Sequence[Pubkey]) -> list[int]:
        return [self.prices.choice((0, 50_000, 200_000, 10**7))] * 150


@dataclass
class Purse:
    """The daemon's sender: guarded, and led into trouble for chosen rounds."""

    world: World
    rpc: Rpc
    cold: ColdStore
    too_dear: set[int] = field(default_factory=set)
    to_fail: set[int] = field(default_factory=set)

    def __call__(self, real: Any) -> Purse:
        ceilings = Ceilings(day=SOL, round=SOL // 100, cold=self.cold)
        self.generous = self.world.guarded(ceilings, rpc=self.rpc)
        self.mean = self.world.guarded(Ceilings(transaction=RENT), rpc=self.rpc)
        return self

    async def prepare(self, action: Action) -> Intent:
        sender = self.mean if action.round_id in self.too_dear else self.generous
        return await sender.prepare(action)

    async def settle(self, intent: Intent, *, fresh: bool) -> Outcome:
        action = intent.action
        if action.kind is ActionKind.SUBMIT and action.round_id in self.to_fail and fresh:
            self.world.abort(action.round_id)
            await self.rpc.send(intent.raw, preflight=False)
            fresh = False
        return await self.generous.settle(intent, fresh=fresh)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, in lamports.

    Attributes:
        states: how many rows of the journal ended, or wait, where.
        on_chain: the wallet's balance after minus before; booked: the sum of the ledger's lines.
        unbooked: transactions that the wallet paid for and the ledger doesn't have, or the other
            way round.
        chain_fees: what the chain charged for them.
    """

    rounds: int
    states: Counter[str]
    lines: int
    refused: int
    on_chain: int
    booked: int
    unbooked: int
    chain_fees: int
    totals: ledger.Totals
    seconds: float


async def reconcile(folder: Path, rounds: int, seed: int = 0) -> Report:
    """Run so many rounds, ten at a time, and compare."""
    began = time.monotonic()
    cold = ColdStore(str(Keypair().pubkey()), FLOAT)
    with patch.object(daemon, "STORE_S", 0.05), patch.object(coldstore, "NOTICE_S", 0.0):
        async with (
            a_world(folder) as world,
            Crowded(world.net.endpoints.rpc_url, timeout_s=5.0) as rpc,
        ):
            rpc.prices = random.Random(seed)
            world.net.ledger.airdrop(world.net.creator.pubkey(), 100 * SOL)
            world.net.ledger.airdrop(v1.TREASURY, SOL)
            before = world.balance()
            purse = Purse(world, rpc, cold)
            terms = {"max_concurrent_rounds": 10, "max_priority_lamports": 10_000}
            async with world.daemon(sender=purse, cold=cold, terms=terms) as running:
                for first in range(0, rounds, len(OUTCOMES)):
                    await play(running, purse, OUTCOMES[: rounds - first])
                await until(lambda: all_settled(world), timeout_s=LONG_S)
            return compared(world, before, time.monotonic() - began)


async def play(running: Running, purse: Purse, outcomes: Sequence[str]) -> None:
    """One round of each outcome, at once, and then a day."""
    numbers = await asyncio.gather(*(play_round(running, purse, name) for name in outcomes))
    over = [number for name, number in zip(outcomes, numbers, strict=True) if name == "expired"]
    running.world.warp(23 * 3600)
    for number in over:  # to validation, since one has handed in
        running.world.take_back(number)
    running.world.warp(3601)
    for number in over:  # and nobody validated
        running.world.take_back(number)
    for name, number in zip(outcomes, numbers, strict=True):
        if name in ("expired", "no share"):
            await running.until(number, State.LOST, timeout_s=LONG_S)


async def play_round(running: Running, purse: Purse, name: str) -> int:
    """Up to its end, or to where only time will end it."""
    world, net = running.world, running.world.net
    other = world.another_trainer()
    dust = name == "dust in the vault"
    number = world.open(reward_lamports=1_900_000 if dust else REWARD)
    if name == "refused by the guard":
        purse.too_dear.add(number)
        await running.until_reason(number, "max_cost_per_transaction", timeout_s=LONG_S)
        return number
    if name == "submission failed on chain":
        purse.to_fail.add(number)
    if dust:
        await running.until_reason(number, "an equal share among", timeout_s=LONG_S)
        await ask(running, "join", number)
    await running.until(number, State.JOINED, timeout_s=LONG_S)
    shares = [(net.trainer, 10_000)]
    if dust or name in ("won with another", "expired"):
        world.join_as(other, number)
        shares = [(net.trainer, 6000), (other, 4000)]
    net.start_training(number)
    if name == "aborted":
        world.abort(number)
    if name in ("aborted", "submission failed on chain"):
        await running.until(number, State.LOST, timeout_s=LONG_S)
        return number
    await running.until(number, State.SUBMITTED, timeout_s=LONG_S)
    if name == "expired":
        return number
    if len(shares) == 2:
        world.submit_as(other, number)
    if name == "no share":
        shares = []
    net.complete(number, shares or [(net.trainer, 0)])
    if dust:
        await running.until_reason(number, "the claim was refused", timeout_s=LONG_S)
    elif shares:
        await running.until(number, State.CLAIMED, timeout_s=LONG_S)
    return number


def all_settled(world: World) -> bool:
    """Nothing is under way, and what exceeds the float is stored."""
    with closing(Journal(world.home / "journal.sqlite")) as journal:
        sent = [*intents.sent(journal), *(one.sent for one in transfers(journal))]
    known = all(one.outcome is not None for one in sent)
    return known and world.balance() < FLOAT + coldstore.LEAST_LAMPORTS + FEE


def compared(world: World, before: int, seconds: float) -> Report:
    with closing(Journal(world.home / "journal.sqlite")) as journal:
        entries = journal.entries()
        postings = ledger.postings(entries, intents.sent_by_row(journal), transfers(journal))
    lines = [posting.line for posting in postings]
    paid = paid_by_wallet(world)
    return Report(
        rounds=len(entries),
        states=Counter(entry.state.value for entry in entries),
        lines=len(lines),
        refused=sum(not line.landed for line in lines),
        on_chain=world.balance() - before,
        booked=sum(line.change_lamports for line in lines),
        unbooked=len({line.signature for line in lines} ^ {str(one.signature) for one in paid}),
        chain_fees=sum(int(one.meta["fee"]) for one in paid),
        totals=ledger.totals(lines),
        seconds=seconds,
    )


def paid_by_wallet(world: World) -> list[Landed]:
    me = world.net.trainer.pubkey()
    landed = world.net.ledger.mentioning(me, Commitment.PROCESSED, limit=100_000)
    return [
        one
        for one in landed
        if VersionedTransaction.from_bytes(one.wire).message.account_keys[0] == me
    ]


def main(rounds: int) -> int:
    """Print what was found; 1 if a lamport is missing."""
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(reconcile(Path(folder), rounds))
    totals = found.totals
    print(f"{found.rounds} rounds in {found.seconds:.0f} s:", dict(found.states))
    print(f"{found.lines} transactions, {found.refused} of them refused by the chain")
    print(
        f"rewards {totals.rewards_lamports}, rent {-totals.rent_lamports}, "
        f"fees {-totals.fees_lamports} (priority {-totals.priority_lamports}), "
        f"stored {-totals.stored_lamports} lamports"
    )
    print(
        f"booked {found.booked}, on chain {found.on_chain}: "
        f"{found.on_chain - found.booked} lamports apart; "
        f"{found.unbooked} transactions without their counterpart"
    )
    return int(found.on_chain != found.booked or found.unbooked > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
