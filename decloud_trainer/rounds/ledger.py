"""Every lamport in and out, each tied to a transaction that landed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from decloud_trainer.rounds.entry import SentIntent
from decloud_trainer.rounds.model import ActionKind


@dataclass(frozen=True, slots=True)
class Line:
    """One transaction's effect on the wallet.

    Attributes:
        change_lamports: balance after minus before: -fee - rent for a join, reward - fee for a
            claim.
    """

    at: float
    round_id: int
    kind: ActionKind
    signature: str
    fee_lamports: int
    change_lamports: int

    @property
    def reward_lamports(self) -> int:
        """What a claim brought, before its fee."""
        return self.change_lamports + self.fee_lamports if self.kind is ActionKind.CLAIM else 0

    @property
    def rent_lamports(self) -> int:
        """What a join left in its account for ever."""
        return -self.change_lamports - self.fee_lamports if self.kind is ActionKind.JOIN else 0


@dataclass(frozen=True, slots=True)
class Totals:
    rewards_lamports: int
    rent_lamports: int
    fees_lamports: int

    @property
    def net_lamports(self) -> int:
        return self.rewards_lamports - self.rent_lamports - self.fees_lamports


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
    )
