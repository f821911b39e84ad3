"""Which rounds to take, and what to hand in: pure decisions, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from decloud_trainer.money import format_sol
from decloud_trainer.rounds.model import Costs, Round, RoundStatus
from decloud_trainer.rounds.prospects import (
    Power,
    Prospect,
    expected_share_lamports,
    prospect,
    record_of,
    total_costs,
)
from decloud_trainer.rounds.watchdog import BackOff, Ended, Patience

# Solana refuses a transaction that leaves its payer with less than the rent of a bare account.
WALLET_MINIMUM_LAMPORTS = 890_880


def kept_lamports(floor_lamports: int) -> int:
    """What must stay in the wallet when a round is joined."""
    return max(WALLET_MINIMUM_LAMPORTS, floor_lamports)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the user accepts.

    Attributes:
        datasets: accepted dataset keys; empty accepts any that can be trained.
        trained_on: requested key -> key of the local data that stands in for it (mappings).
        trainable: keys for which data and a loader exist here.
        floor_lamports: what a join must leave in the wallet.
        min_profit_lamports: what must be left of the expected share after all costs.
        max_priority_lamports: what one transaction may pay to land early; 0: nothing.
        power: what training draws.
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
    min_profit_lamports: int = 0
    max_priority_lamports: int = 0
    power: Power = Power()
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
        training_s: expected seconds of one epoch, from measured speed; None if unmeasured.
        work_s: of the whole training, as far as the window allows; None if unmeasured.
        past: how rounds of ours ended, the latest first.
        closed: why nothing new is taken at the moment; empty if it is.
        back_offs: whom we leave alone at the moment, for losses.
    """

    now: float
    balance_lamports: int | None
    costs: Costs
    rounds_in_work: int
    training_s: float | None = None
    work_s: float | None = None
    past: tuple[Ended, ...] = ()
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
        f"{round.dataset}, reward {format_sol(round.reward_lamports)}; "
        f"{prospect_of(round, terms, situation).text}",
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


def prospect_of(round: Round, terms: Terms, situation: Situation) -> Prospect:
    """What the round would bring and cost now, with all its numbers."""
    energy: int | None = 0
    if terms.power.counts:
        seconds = situation.work_s
        energy = None if seconds is None else terms.power.cost_lamports(seconds)
    return prospect(
        round,
        situation.costs,
        record_of(situation.past, round.dataset.key, situation.now),
        energy_lamports=energy,
        min_profit_lamports=terms.min_profit_lamports,
        max_priority_lamports=terms.max_priority_lamports,
    )


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
    kept = kept_lamports(terms.floor_lamports)
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
    found = prospect_of(round, terms, situation)
    if found.profit <= 0:
        return found.text
    if found.profit < terms.min_profit_lamports:
        return f"{found.text}, below min_profit {format_sol(terms.min_profit_lamports)}"
    return ""


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
    Rule("worth it", _unprofitable, lambda r, t, s: prospect_of(r, t, s).text, True, False),
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
