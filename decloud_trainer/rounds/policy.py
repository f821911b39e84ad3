"""Which rounds to take, and what to hand in: pure decisions, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from decloud_trainer.money import format_sol
from decloud_trainer.rounds.model import Costs, Round, RoundStatus
from decloud_trainer.rounds.watchdog import BackOff, Patience

# What the network keeps of every payout (from program v1.1 on), in hundredths of a percent.
PLATFORM_FEE_BPS = 200
# join, submit, claim
TRANSACTIONS_PER_ROUND = 3
# Solana refuses a transaction that leaves its payer with less than the rent of a bare account.
WALLET_MINIMUM_LAMPORTS = 890_880


@dataclass(frozen=True, slots=True)
class Terms:
    """What the user accepts.

    Attributes:
        datasets: accepted dataset keys; empty accepts any that can be trained.
        trained_on: requested key -> key of the local data that stands in for it (mappings).
        trainable: keys for which data and a loader exist here.
        floor_lamports: what a join must leave in the wallet.
        patience: with losses, before whoever they have in common is left alone.
    """

    datasets: frozenset[str]
    min_reward_lamports: int
    max_reward_lamports: int
    max_concurrent_rounds: int
    trainable: frozenset[str]
    trained_on: Mapping[str, str] = field(default_factory=dict)
    submit_only_if_improved: bool = False
    auto_train: bool = True
    auto_claim: bool = True
    expected_training_window_s: int = 3600
    floor_lamports: int = 0
    patience: Patience = Patience()

    def data_for(self, dataset_key: str) -> str | None:
        """The local dataset to train on for a requested one, or None."""
        key = self.trained_on.get(dataset_key, dataset_key)
        return key if key in self.trainable else None


@dataclass(frozen=True, slots=True)
class Situation:
    """What the decision depends on besides the round.

    Attributes:
        now: unix seconds.
        balance_lamports: the wallet's; None if it wasn't looked up, and then nothing fails by it.
        rounds_in_work: other rounds of ours that hold a slot.
        training_s: expected seconds of the training, from measured speed; None if unmeasured.
        closed: why nothing new is taken at the moment; empty if it is.
        back_offs: whom we leave alone at the moment, for losses.
    """

    now: float
    balance_lamports: int | None
    costs: Costs
    rounds_in_work: int
    training_s: float | None = None
    closed: str = ""
    back_offs: tuple[BackOff, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """Attributes:
    take: watch, fetch and join it, or hand it in; otherwise skip it for now.
    lasting: against it, until the round itself changes or a user asks for it.
    """

    take: bool
    reason: str
    lasting: bool = False


_Words = Callable[[Round, Terms, Situation], str]


def decide(round: Round, terms: Terms, situation: Situation, *, asked: bool = False) -> Decision:
    """Whether to take a round.

    Args:
        asked: the user named this round: filters and slots don't apply, impossibilities do.
    """
    for rule in RULES:
        if asked and not rule.binds_users:
            continue
        if reason := rule.refuse(round, terms, situation):
            return Decision(False, reason, lasting=rule.lasting)
    if asked:
        return Decision(True, "asked for")
    return Decision(
        True,
        f"{round.dataset}, reward {format_sol(round.reward_lamports)}; {_worth(round, situation)}",
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule's answer, with its numbers.

    Attributes:
        text: why not; or, when it passed, what it was measured by.
    """

    rule: str
    passed: bool
    text: str


def explain(round: Round, terms: Terms, situation: Situation) -> list[Verdict]:
    """What every rule says of a round, in the order in which `decide` asks them."""
    verdicts = []
    for rule in RULES:
        reason = rule.refuse(round, terms, situation)
        verdicts.append(
            Verdict(rule.name, not reason, reason or rule.measure(round, terms, situation))
        )
    return verdicts


def _worth(round: Round, situation: Situation) -> str:
    share = expected_share_lamports(round, others=round.trainers_count)
    return (
        f"an equal share pays {format_sol(share)}, "
        f"taking part costs {format_sol(total_costs(situation.costs))}"
    )


def total_costs(costs: Costs) -> int:
    return costs.join_rent_lamports + TRANSACTIONS_PER_ROUND * costs.fee_lamports


def expected_share_lamports(round: Round, *, others: int) -> int:
    """What an equal share among us and `others` pays out, after the platform fee."""
    gross = round.trainers_pool_lamports // (others + 1)
    return gross - gross * PLATFORM_FEE_BPS // 10_000


def _closed(round: Round, terms: Terms, situation: Situation) -> str:
    if round.status is RoundStatus.UNKNOWN:
        return f"its status {round.status_index} is unknown to this version"
    if round.status not in (RoundStatus.WAITING_VALIDATOR, RoundStatus.WAITING_TRAINERS):
        return f"can't be joined any more: {round.status.value}"
    if round.status is RoundStatus.WAITING_TRAINERS and situation.now > round.join_deadline:
        return "the join deadline has passed"
    if round.status is RoundStatus.WAITING_VALIDATOR and situation.now > round.validator_deadline:
        return "no validator took it in time"
    return ""


def _untrainable(round: Round, terms: Terms, situation: Situation) -> str:
    key = round.dataset.key
    if terms.data_for(key) is not None:
        return ""
    if key in terms.trained_on:
        return f"{round.dataset} is mapped to {terms.trained_on[key]}, which can't be trained here"
    return (
        f"Dataset not found: {round.dataset} can't be trained here "
        f"(`decloud-trainer config --add-mapping {key}:DATASET` trains on another one)"
    )


def _unaffordable(round: Round, terms: Terms, situation: Situation) -> str:
    costs = total_costs(situation.costs)
    balance = situation.balance_lamports
    kept = max(WALLET_MINIMUM_LAMPORTS, terms.floor_lamports)
    if balance is None or balance >= costs + kept:
        return ""
    return (
        f"the wallet holds {format_sol(balance)}, taking part needs {format_sol(costs)} for rent "
        f"and fees, and {format_sol(kept)} must stay"
    )


def _too_slow(round: Round, terms: Terms, situation: Situation) -> str:
    training_s, window_s = situation.training_s, terms.expected_training_window_s
    if training_s is None or training_s <= window_s:
        return ""
    return (
        f"training would take about {training_s:.0f} s here, "
        f"more than the {window_s} s that a round is expected to leave"
    )


def _unwanted(round: Round, terms: Terms, situation: Situation) -> str:
    if terms.datasets and round.dataset.key not in terms.datasets:
        return f"dataset {round.dataset} isn't among the accepted ones"
    if round.reward_lamports < terms.min_reward_lamports:
        return (
            f"reward {format_sol(round.reward_lamports)} is below "
            f"min_reward {format_sol(terms.min_reward_lamports)}"
        )
    if 0 < terms.max_reward_lamports < round.reward_lamports:
        return (
            f"reward {format_sol(round.reward_lamports)} is above "
            f"max_reward {format_sol(terms.max_reward_lamports)}"
        )
    return ""


def _unprofitable(round: Round, terms: Terms, situation: Situation) -> str:
    share = expected_share_lamports(round, others=round.trainers_count)
    needed = total_costs(situation.costs)
    if share > needed:
        return ""
    return (
        f"an equal share among {round.trainers_count + 1} would pay {format_sol(share)}, "
        f"taking part costs {format_sol(needed)}"
    )


def _not_now(round: Round, terms: Terms, situation: Situation) -> str:
    return situation.closed


def _left_alone(round: Round, terms: Terms, situation: Situation) -> str:
    barring = (
        one.text
        for one in situation.back_offs
        if one.bars(round.creator, round.validator, round.dataset.key)
    )
    return next(barring, "")


def _busy(round: Round, terms: Terms, situation: Situation) -> str:
    if situation.rounds_in_work < terms.max_concurrent_rounds:
        return ""
    return f"all {terms.max_concurrent_rounds} slots are busy"


class Rule(NamedTuple):
    """A reason against taking a round.

    refuse: why not; empty when nothing speaks against it. measure: what was compared, for people.
    lasting: only the round itself, or a user, can change it. binds_users: holds also for a round
    that a user asks for by name.
    """

    name: str
    refuse: _Words
    measure: _Words
    lasting: bool
    binds_users: bool


RULES = (
    Rule("can be joined", _closed, lambda r, t, s: r.status.value, True, True),
    Rule(
        "can be trained",
        _untrainable,
        lambda r, t, s: f"{r.dataset} by {t.data_for(r.dataset.key)}",
        True,
        True,
    ),
    Rule(
        "fast enough",
        _too_slow,
        lambda r, t, s: (
            "not measured yet"
            if s.training_s is None
            else f"about {s.training_s:.0f} s of {t.expected_training_window_s} s"
        ),
        True,
        True,
    ),
    Rule(
        "wanted",
        _unwanted,
        lambda r, t, s: f"{r.dataset}, reward {format_sol(r.reward_lamports)}",
        True,
        False,
    ),
    Rule("worth it", _unprofitable, lambda r, t, s: _worth(r, s), True, False),
    Rule(
        "no row of losses",
        _left_alone,
        lambda r, t, s: (
            f"fewer than {t.patience.losses} in a row with its creator, validator or dataset"
            if t.patience.losses
            else "losses keep nothing away"
        ),
        False,
        False,
    ),
    Rule("not paused", _not_now, lambda r, t, s: "new rounds are taken", False, False),
    Rule(
        "a free slot",
        _busy,
        lambda r, t, s: f"{s.rounds_in_work} of {t.max_concurrent_rounds} in use",
        False,
        False,
    ),
    Rule(
        "affordable",
        _unaffordable,
        lambda r, t, s: (
            "balance not known"
            if s.balance_lamports is None
            else f"the wallet holds {format_sol(s.balance_lamports)}"
        ),
        False,
        True,
    ),
)


def decide_submission(
    round: Round, terms: Terms, costs: Costs, *, improvement: float | None
) -> Decision:
    """Whether to hand in an artefact. By now the rent is spent and v1 punishes nobody, so a
    submission need only be worth its fee (and the claim's).

    Args:
        improvement: previewed accuracy after minus before, percentage points; None: unknown.
    """
    if improvement is None:
        if terms.submit_only_if_improved:
            return Decision(False, "its score can't be previewed and submit_only_if_improved is on")
        return Decision(True, "its score can't be previewed here")
    if improvement > 0:
        return Decision(True, f"previewed improvement {improvement:+.2f} points")
    if terms.submit_only_if_improved:
        return Decision(
            False, f"previewed {improvement:+.2f} points, submit_only_if_improved is on"
        )
    # An unimproved artefact is paid only when nobody improves (then all share equally); we give
    # each competitor an even chance to improve.
    others = max(round.trainers_count - 1, 0)
    expected = expected_share_lamports(round, others=others) >> min(others, 63)
    fees = 2 * costs.fee_lamports
    worth = f"expected share {format_sol(expected)} against {format_sol(fees)} of fees"
    return Decision(expected > fees, f"previewed {improvement:+.2f} points; {worth}")
