"""What a round brings and costs is known before it is joined, to the lamport."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roundvalues import COSTS, KEY, NOW, SOL, a_round, situation, terms

from decloud_trainer.rounds.deciding import training_s, work_s
from decloud_trainer.rounds.entry import Entry, Facts, State
from decloud_trainer.rounds.model import Costs, RoundStatus, Tip
from decloud_trainer.rounds.parts import TrainingPlan
from decloud_trainer.rounds.policy import decide, explain, prospect_of
from decloud_trainer.rounds.prospects import (
    CALM,
    NO_RECORD,
    RECORD_S,
    URGENT,
    Power,
    Record,
    record_of,
    share_lamports,
    tip_for,
)
from decloud_trainer.rounds.watchdog import Ended, ended_of

BASE = 1_733_040 + 15_000


def past(
    *shares: float | None,
    dataset: str = "mnist",
    ago: float = 0.0,
    improvement: float | None = None,
) -> tuple[Ended, ...]:
    """Rounds that are over, as the journal tells of them."""
    ended = []
    for number, bps in enumerate(shares):
        facts = Facts(
            contribution_bps=None if bps is None else round(bps * 5000),
            preview_before=None if improvement is None else 50.0,
            preview_after=None if improvement is None else 50.0 + improvement,
            gradient_cid="cid",
        )
        state = State.CLAIMED if bps is None or bps > 0 else State.LOST
        seen = a_round(id=number, status=RoundStatus.COMPLETED, trainers_count=2)
        found = ended_of(Entry(1, KEY, state, "", facts, seen, 0, 0, NOW, NOW - ago))
        assert found is not None
        assert dataset == "mnist"
        ended.append(found)
    return tuple(ended)


def test_the_decision_shows_all_its_numbers() -> None:
    """Share, record, rent, fees, priority fees, energy and profit, each in SOL."""
    now = situation(
        costs=Costs(1_733_040, 5_000, priority_lamports=700),
        work_s=1800.0,
        past=past(0.5, 0.0, improvement=1.25),
    )
    wants = terms(power=Power(200.0, 2_000_000), max_priority_lamports=10_000)
    decision = decide(a_round(trainers_count=1), wants, now)
    # (0.5 + 0 + 2 taken for granted) / 4 equal shares; 0.1 kWh at 0.002 SOL.
    assert decision.take
    assert decision.reason == (
        "Mnist, reward 1 SOL; an equal share among 2 would pay 0.441 SOL, 0.275625 SOL are "
        "expected (the last 2 rounds here: 0.25 equal shares, previewed +1.25 points); taking "
        "part costs 0.00195014 SOL (rent 0.00173304 SOL, fees 0.000015 SOL, priority "
        "0.0000021 SOL, energy 0.0002 SOL); profit 0.27367486 SOL"
    )
    (verdict,) = (one for one in explain(a_round(), wants, now) if one.rule == "worth it")
    assert "energy 0.0002 SOL" in verdict.text


@pytest.mark.parametrize(("more", "taken"), [(0, True), (1, False)])
def test_min_profit_is_what_must_be_left(more: int, taken: bool) -> None:
    """Exactly as much is enough; the number that is missing one lamport is told."""
    profit = 882_000_000 - BASE
    decision = decide(a_round(), terms(min_profit_lamports=profit + more), situation())
    assert decision.take is taken
    if not taken:
        assert decision.reason.endswith("profit 0.88025196 SOL, below min_profit 0.880251961 SOL")


def test_energy_can_make_a_round_not_worth_it() -> None:
    """Unmeasured it is said and not counted; measured it counts."""
    cheap = a_round(reward_lamports=3_000_000)
    wants = terms(power=Power(1000.0, 10**6))
    first = decide(cheap, wants, situation(work_s=None))
    assert first.take
    assert "energy not measured yet" in first.reason
    later = decide(cheap, wants, situation(work_s=3600.0))
    assert not later.take
    assert "energy 0.001 SOL" in later.reason
    assert later.reason.endswith("profit -0.00010204 SOL")


def test_energy_is_that_of_the_whole_training() -> None:
    """All epochs at the measured speed, at most the window; epochs that fill the time take it."""

    def plan(epochs: int | str) -> TrainingPlan:
        return TrainingPlan({}, epochs, 32, 0.1, 0, 0, "cpu", 1, -0.1, "float32")

    facts = Facts(samples_per_s=100.0, data_samples=6000)
    assert training_s(plan(3), facts) == 60
    assert work_s(plan(3), facts, 3600) == 180
    assert work_s(plan(100), facts, 3600) == 3600
    assert work_s(plan("auto"), facts, 3600) == 3600
    assert work_s(plan(3), Facts(), 3600) is None


def test_a_record_is_the_latest_rounds_on_that_dataset() -> None:
    """Twenty at most, a month at most, without those whose share isn't known."""
    assert record_of((), "mnist", NOW) == NO_RECORD
    assert record_of(past(2.0, 0.0, None), "mnist", NOW) == Record(2, 1.0)
    assert record_of(past(2.0), "cifar10", NOW) == NO_RECORD
    assert record_of(past(2.0, ago=RECORD_S), "mnist", NOW) == NO_RECORD
    assert record_of((*past(*[1.5] * 20), *past(0.0)), "mnist", NOW) == Record(20, 1.5)


def test_losses_lower_what_is_expected_and_never_end_it() -> None:
    """Two rounds are taken for granted, so one loss isn't the end and a row of them is no zero."""
    found = [
        prospect_of(a_round(), terms(), situation(past=past(*[0.0] * count))).expected
        for count in (0, 1, 2, 20)
    ]
    assert found == [882_000_000, 588_000_000, 441_000_000, 80_181_818]


@given(st.lists(st.floats(0, 10), max_size=30), st.integers(0, 10**12), st.integers(0, 20))
def test_no_more_is_expected_than_there_is(shares: list[float], reward: int, others: int) -> None:
    """However well it went before."""
    round_ = a_round(reward_lamports=reward, trainers_count=others)
    found = prospect_of(round_, terms(), situation(past=past(*shares)))
    assert 0 <= found.expected <= share_lamports(round_, 10_000)


@given(
    reward=st.integers(0, 10**10),
    priority=st.integers(0, 10**9),
    cap=st.integers(0, 10**9),
    min_profit=st.integers(0, 10**9),
)
def test_priority_fees_never_decide_against_a_round(
    reward: int, priority: int, cap: int, min_profit: int
) -> None:
    """They are only paid from what a round brings beyond the wanted profit."""
    round_ = a_round(reward_lamports=reward)
    wants: dict[str, Any] = {"min_profit_lamports": min_profit, "max_priority_lamports": cap}
    dear = situation(costs=Costs(1_733_040, 5_000, priority))
    free = decide(round_, terms(min_profit_lamports=min_profit), situation())
    assert decide(round_, terms(**wants), dear).take is free.take
    assert prospect_of(round_, terms(**wants), dear).priority <= 3 * cap


def test_a_priority_fee_must_pay() -> None:
    """A tenth of what is at stake, at most what the user allows; more eager when time is short."""
    assert tip_for(10**9, 10_000, left_s=600) == Tip(10_000, CALM)
    assert tip_for(50_000, 10_000, left_s=None) == Tip(5_000, CALM)
    assert tip_for(9, 10_000, left_s=None) == Tip(0, CALM)
    assert tip_for(-5, 10_000, left_s=60) == Tip(0, URGENT)
    assert tip_for(10**9, 10_000, left_s=119) == Tip(10_000, URGENT)
    assert tip_for(10**9, 10_000, left_s=None, again=True) == Tip(10_000, URGENT)
    assert COSTS.priority_lamports == 0
    assert tip_for(SOL, 0, left_s=1).most_lamports == 0
