"""Every lamport in and out, each tied to a transaction that landed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from decloud_trainer.rounds.entry import Entry, RowKey, SentIntent, State
from decloud_trainer.rounds.model import ActionKind, OutcomeState
from decloud_trainer.rounds.transfers import Transfer

# The clusters that everybody shares, by the hash of their first block.
GENESIS_NAMES = {
    "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d": "mainnet-beta",
    "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxkzZBuG": "devnet",
    "4uhcVJyU9pJkvQyS88uRDiswHScCQ2PFdCXcAdzjm5Vs": "testnet",
}
# What every transaction of ours pays: it has one signature.
BASE_FEE_LAMPORTS = 5000
# Any other: a local network, each of which has a hash of its own.
LOCAL = "localnet"


@dataclass(frozen=True, slots=True)
class Line:
    """One transaction's effect on the wallet.

    Attributes:
        change_lamports: balance after minus before: -fee - rent for a join, reward - fee for a
            claim.
        landed: it did what it was for; otherwise the chain refused it and kept the fee.
    """

    at: float
    round_id: int
    kind: ActionKind
    signature: str
    fee_lamports: int
    change_lamports: int
    landed: bool = True

    @property
    def reward_lamports(self) -> int:
        """What a claim brought, before its fee."""
        return self.change_lamports + self.fee_lamports if self.kind is ActionKind.CLAIM else 0

    @property
    def rent_lamports(self) -> int:
        """What a join left in its account for ever."""
        return -self.change_lamports - self.fee_lamports if self.kind is ActionKind.JOIN else 0

    @property
    def stored_lamports(self) -> int:
        """What a transfer brought to the cold address: still the user's."""
        return -self.change_lamports - self.fee_lamports if self.kind is ActionKind.TRANSFER else 0

    @property
    def priority_lamports(self) -> int:
        """The part of the fee that was paid to land early."""
        return max(self.fee_lamports - BASE_FEE_LAMPORTS, 0)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums.

    Attributes:
        fees_lamports: all of them; priority_lamports is a part of it.
        stored_lamports: sent to the cold address, which is no loss.
    """

    rewards_lamports: int
    rent_lamports: int
    fees_lamports: int
    priority_lamports: int = 0
    stored_lamports: int = 0

    @property
    def net_lamports(self) -> int:
        return self.rewards_lamports - self.rent_lamports - self.fees_lamports


@dataclass(frozen=True, slots=True)
class Posting:
    """A line with the round that it belongs to.

    Attributes:
        dataset: the network's spelling of what the round was about; empty if never known.
    """

    line: Line
    key: RowKey
    dataset: str

    @property
    def network(self) -> str:
        return network_name(self.key.genesis)


@dataclass(frozen=True, slots=True)
class Success:
    """How the rounds went that were joined.

    Attributes:
        joined: rounds with a join of ours, or joined by another run of ours.
        claimed: of these, those whose reward is in the wallet.
        open: of these, those that may still bring one.
    """

    joined: int
    claimed: int
    open: int

    @property
    def rate(self) -> float | None:
        """Claimed among joined, 0 to 1; None before the first."""
        return self.claimed / self.joined if self.joined else None


def network_name(genesis: str) -> str:
    return GENESIS_NAMES.get(genesis, LOCAL)


def lines(intents: Iterable[SentIntent]) -> list[Line]:
    """The transactions that reached the chain, refused ones (their fee) included."""
    return [
        Line(
            sent.created_at,
            sent.round_id,
            sent.intent.action.kind,
            sent.intent.signature,
            sent.outcome.fee_lamports,
            sent.outcome.wallet_change_lamports,
            sent.outcome.state is OutcomeState.LANDED,
        )
        for sent in intents
        if sent.outcome is not None and sent.outcome.slot is not None
    ]


def totals(book: Iterable[Line]) -> Totals:
    book = list(book)
    return Totals(
        rewards_lamports=sum(line.reward_lamports for line in book),
        rent_lamports=sum(line.rent_lamports for line in book),
        fees_lamports=sum(line.fee_lamports for line in book),
        priority_lamports=sum(line.priority_lamports for line in book),
        stored_lamports=sum(line.stored_lamports for line in book),
    )


def postings(
    entries: Iterable[Entry],
    intents: Mapping[int, Sequence[SentIntent]],
    transfers: Iterable[Transfer] = (),
) -> list[Posting]:
    """The whole book, oldest first.

    Args:
        intents: of each entry, by its row.
        transfers: those to the cold address, which are of no round.
    """
    found = [
        Posting(line, entry.key, str(entry.round.dataset) if entry.round else "")
        for entry in entries
        for line in lines(intents.get(entry.row, ()))
    ]
    found += [Posting(line, one.scope, "") for one in transfers for line in lines([one.sent])]
    return sorted(found, key=lambda posting: posting.line.at)


Group = TypeVar("Group")


def grouped(
    book: Iterable[Posting], group_of: Callable[[Posting], Group]
) -> dict[Group, list[Posting]]:
    """By day, dataset or round, as `group_of` says; in the order of their first transactions."""
    found: dict[Group, list[Posting]] = {}
    for posting in book:
        found.setdefault(group_of(posting), []).append(posting)
    return found


def success(
    entries: Iterable[Entry], intents: Mapping[int, Sequence[SentIntent]], *, since: float = 0.0
) -> Success:
    """How the rounds went that were joined since then (unix seconds)."""
    joined = []
    for entry in entries:
        at = joined_at(entry, intents.get(entry.row, ()))
        if at is not None and at >= since:
            joined.append(entry)
    return Success(
        joined=len(joined),
        claimed=sum(entry.state is State.CLAIMED for entry in joined),
        open=sum(not entry.state.is_final for entry in joined),
    )


def joined_at(entry: Entry, intents: Iterable[SentIntent]) -> float | None:
    """When the first transaction of ours landed, which is the join; for a round that another run
    or machine has joined, when it was found. None if we aren't in it."""
    landed = [line.at for line in lines(intents) if line.landed]
    if landed:
        return min(landed)
    return entry.created_at if entry.facts.adopted else None
