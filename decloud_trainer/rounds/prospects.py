"""What a round can be expected to bring and to cost, and what being early is worth. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from decloud_trainer.money import format_sol
from decloud_trainer.rounds.model import Costs, Round, Tip
from decloud_trainer.rounds.watchdog import Ended, Subject

# What the network keeps of every payout (from program v1.1 on), in hundredths of a percent.
PLATFORM_FEE_BPS = 200
# join, submit, claim
TRANSACTIONS_PER_ROUND = 3
# A dataset's record is that of its latest rounds, and fades out: what was learnt from losses
# must not keep us away for ever.
MOST_ON_RECORD, RECORD_S = 20, 30 * 24 * 3600.0
# As many rounds with an equal share are taken for granted beside the record, so that the first
# loss doesn't decide everything.
TAKEN_FOR_GRANTED = 2
# A priority fee may take this part of what its transaction is worth, and is as high as most
# others' when so little time is left.
TIP_PART, URGENT_S = 10, 120.0
CALM, URGENT = 50, 90  # percentiles of recent prices


@dataclass(frozen=True, slots=True)
class Record:
    """How this wallet's latest rounds on a dataset went.

    Attributes:
        rounds: how many are over.
        equal_shares: what they brought on average, where 1 is as much as each trainer would have
            had of an equal division; a loss is 0.
        improvement: their mean previewed improvement, percentage points; None: none was previewed.
    """

    rounds: int = 0
    equal_shares: float = 1.0
    improvement: float | None = None

    @property
    def factor(self) -> float:
        """What to expect of the next round, in equal shares."""
        known = self.rounds * self.equal_shares
        return (known + TAKEN_FOR_GRANTED) / (self.rounds + TAKEN_FOR_GRANTED)


NO_RECORD = Record()


def record_of(ended: Iterable[Ended], dataset: str, now: float) -> Record:
    """The record on a dataset.

    Args:
        ended: the latest first.
        dataset: its key.
    """
    of_dataset = (
        one
        for one in ended
        if one.subjects.get(Subject.DATASET) == dataset
        and one.equal_shares is not None
        and one.at > now - RECORD_S
    )
    latest = list(islice(of_dataset, MOST_ON_RECORD))
    if not latest:
        return NO_RECORD
    shares = [one.equal_shares for one in latest if one.equal_shares is not None]
    improvements = [one.improvement for one in latest if one.improvement is not None]
    return Record(
        len(latest),
        sum(shares) / len(shares),
        sum(improvements) / len(improvements) if improvements else None,
    )


@dataclass(frozen=True, slots=True)
class Power:
    """What training draws, and what that costs.

    Attributes:
        watts: while training; 0: energy isn't counted.
        price_lamports: of a kilowatt-hour.
    """

    watts: float = 0.0
    price_lamports: int = 0

    @property
    def counts(self) -> bool:
        return self.watts > 0 and self.price_lamports > 0

    def cost_lamports(self, seconds: float) -> int:
        return round(self.watts / 1000 * seconds / 3600 * self.price_lamports)


@dataclass(frozen=True, slots=True)
class Prospect:
    """A round in lamports, before joining it.

    Attributes:
        equal_share: an equal share after the platform fee; expected: that by the record.
        energy: None while the training's length isn't known; 0 where energy isn't counted.
    """

    others: int
    equal_share: int
    record: Record
    expected: int
    rent: int
    fees: int
    priority: int
    energy: int | None

    @property
    def costs(self) -> int:
        return self.rent + self.fees + self.priority + (self.energy or 0)

    @property
    def profit(self) -> int:
        return self.expected - self.costs

    @property
    def text(self) -> str:
        return f"{self._earned()}; {self._paid()}; profit {format_sol(self.profit)}"

    def _earned(self) -> str:
        share = f"an equal share among {self.others + 1} would pay {format_sol(self.equal_share)}"
        if not self.record.rounds:
            return share
        preview = (
            ""
            if self.record.improvement is None
            else f", previewed {self.record.improvement:+.2f} points"
        )
        rounds = f"{self.record.rounds} round{'s' * (self.record.rounds != 1)}"
        return (
            f"{share}, {format_sol(self.expected)} are expected (the last {rounds} here: "
            f"{self.record.equal_shares:.2f} equal shares{preview})"
        )

    def _paid(self) -> str:
        parts = [f"rent {format_sol(self.rent)}", f"fees {format_sol(self.fees)}"]
        if self.priority:
            parts.append(f"priority {format_sol(self.priority)}")
        if self.energy is None:
            parts.append("energy not measured yet")
        elif self.energy:
            parts.append(f"energy {format_sol(self.energy)}")
        return f"taking part costs {format_sol(self.costs)} ({', '.join(parts)})"


def prospect(
    round: Round,
    costs: Costs,
    record: Record,
    *,
    energy_lamports: int | None,
    min_profit_lamports: int,
    max_priority_lamports: int,
) -> Prospect:
    """Of a round that we aren't in yet."""
    others = round.trainers_count
    equal = expected_share_lamports(round, others=others)
    expected = equal
    if record.rounds:
        most = expected_share_lamports(round, others=0)
        expected = min(int(equal * record.factor), most)
    fees = TRANSACTIONS_PER_ROUND * costs.fee_lamports
    worth = expected - costs.join_rent_lamports - fees - (energy_lamports or 0)
    tip = tip_for(worth - min_profit_lamports, max_priority_lamports, left_s=None)
    priority = TRANSACTIONS_PER_ROUND * min(tip.most_lamports, costs.priority_lamports)
    return Prospect(
        others=others,
        equal_share=equal,
        record=record,
        expected=expected,
        rent=costs.join_rent_lamports,
        fees=fees,
        priority=priority,
        energy=energy_lamports,
    )


def tip_for(
    worth_lamports: int, most_lamports: int, *, left_s: float | None, again: bool = False
) -> Tip:
    """The priority fee that pays: never more than a tenth of what the transaction is worth.

    Args:
        most_lamports: what the user allows for one transaction.
        left_s: until it is too late; None: it never is.
        again: an earlier one was never taken into a block.
    """
    urgent = again or (left_s is not None and left_s < URGENT_S)
    most = min(most_lamports, max(worth_lamports, 0) // TIP_PART)
    return Tip(most, URGENT if urgent else CALM)


def total_costs(costs: Costs) -> int:
    """Rent and base fees."""
    return costs.join_rent_lamports + TRANSACTIONS_PER_ROUND * costs.fee_lamports


def expected_share_lamports(round: Round, *, others: int) -> int:
    """What an equal share among us and `others` pays out, after the platform fee."""
    return after_platform_fee(round.trainers_pool_lamports // (others + 1))


def share_lamports(round: Round, contribution_bps: int) -> int:
    """What a share in hundredths of a percent pays out, after the platform fee."""
    return after_platform_fee(round.trainers_pool_lamports * contribution_bps // 10_000)


def after_platform_fee(gross: int) -> int:
    return gross - gross * PLATFORM_FEE_BPS // 10_000
