"""Which rounds are taken and what is handed in: every reason, with its numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roundvalues import COSTS, NOW, SOL, a_round, situation, terms

from decloud_trainer.rounds.model import Costs, Dataset, RoundStatus
from decloud_trainer.rounds.policy import (
    RULES,
    decide,
    decide_submission,
    explain,
)
from decloud_trainer.rounds.prospects import expected_share_lamports, total_costs


def test_a_good_round_is_taken_and_the_numbers_are_told() -> None:
    """What it pays if all share equally, and what taking part costs."""
    decision = decide(a_round(trainers_count=1), terms(), situation())
    assert decision.take
    assert decision.reason == (
        "Mnist, reward 1 SOL; an equal share among 2 would pay 0.441 SOL; taking part costs "
        "0.00174804 SOL (rent 0.00173304 SOL, fees 0.000015 SOL); profit 0.43925196 SOL"
    )


@pytest.mark.parametrize(
    ("round", "wants", "now", "words", "lasting"),
    [
        ({"status": RoundStatus.TRAINING}, {}, {}, "can't be joined any more: Training", True),
        ({"status": RoundStatus.EXPIRED}, {}, {}, "can't be joined any more: Expired", True),
        (
            {"status": RoundStatus.UNKNOWN, "status_index": 9},
            {},
            {},
            "its status 9 is unknown to this version",
            True,
        ),
        ({}, {}, {"now": NOW + 601}, "the join deadline has passed", True),
        (
            {"status": RoundStatus.WAITING_VALIDATOR},
            {},
            {"now": NOW + 3601},
            "no validator took it in time",
            True,
        ),
        ({"dataset": Dataset(24, "AgNews")}, {}, {}, "Dataset not found: AgNews", True),
        (
            {"dataset": Dataset(200, None)},
            {},
            {},
            "`decloud-trainer config --add-mapping unknown200:DATASET`",
            True,
        ),
        (
            {"dataset": Dataset(98, "Custom")},
            {"trained_on": {"custom": "imdb"}},
            {},
            "Custom is mapped to imdb, which can't be trained here",
            True,
        ),
        (
            {},
            {"expected_training_window_s": 60},
            {"training_s": 61.0},
            "about 61 s here, more than the 60 s",
            True,
        ),
        ({}, {"datasets": frozenset({"digits"})}, {}, "Mnist isn't among the accepted", True),
        (
            {"reward_lamports": SOL - 1},
            {"min_reward_lamports": SOL},
            {},
            "reward 0.999999999 SOL is below min_reward 1 SOL",
            True,
        ),
        (
            {"reward_lamports": SOL + 1},
            {"max_reward_lamports": SOL},
            {},
            "reward 1.000000001 SOL is above max_reward 1 SOL",
            True,
        ),
        (
            {"reward_lamports": 10_000_000, "trainers_count": 9},
            {},
            {},
            "an equal share among 10 would pay 0.000882 SOL; taking part costs 0.00174804 SOL",
            True,
        ),
        ({}, {}, {"rounds_in_work": 1}, "all 1 slots are busy", False),
        ({}, {}, {"closed": "paused"}, "paused", False),
        (
            {},
            {},
            {"balance_lamports": 1_748_040 + 890_879},
            "taking part needs 0.00174804 SOL for rent and fees, and 0.00089088 SOL must stay",
            False,
        ),
    ],
)
def test_every_reason_against_a_round(
    round: dict[str, Any], wants: dict[str, Any], now: dict[str, Any], words: str, lasting: bool
) -> None:
    """With its words, and whether anything but the round itself can change it."""
    decision = decide(a_round(**round), terms(**wants), situation(**now))
    assert not decision.take
    assert words in decision.reason
    assert decision.lasting is lasting


@pytest.mark.parametrize(
    ("round", "wants", "now"),
    [
        ({}, {}, {"now": NOW + 600}),
        ({"status": RoundStatus.WAITING_VALIDATOR}, {}, {"now": NOW + 3600}),
        ({"dataset": Dataset(98, "Custom")}, {}, {}),
        ({}, {"expected_training_window_s": 60}, {"training_s": 60.0}),
        ({}, {"min_reward_lamports": SOL, "max_reward_lamports": SOL}, {}),
        ({}, {"datasets": frozenset({"mnist"})}, {}),
        ({}, {"max_concurrent_rounds": 2}, {"rounds_in_work": 1}),
        ({}, {}, {"balance_lamports": 1_748_040 + 890_880}),
        ({}, {}, {"balance_lamports": None}),
    ],
)
def test_the_limits_themselves_are_allowed(
    round: dict[str, Any], wants: dict[str, Any], now: dict[str, Any]
) -> None:
    """A deadline's own second, an amount equal to the bound, the last free slot."""
    assert decide(a_round(**round), terms(**wants), situation(**now)).take


def test_a_user_is_bound_by_what_is_impossible_alone() -> None:
    """Filters, profit, slots and a pause are wishes; deadlines, data, speed and money aren't."""
    wants = terms(datasets=frozenset({"digits"}), min_reward_lamports=10 * SOL)
    now = situation(rounds_in_work=5, closed="paused")
    cheap = a_round(reward_lamports=1_000_000, trainers_count=9)
    assert decide(cheap, wants, now, asked=True).reason == "asked for"
    assert not decide(cheap, wants, now).take
    for round, what in (
        (a_round(status=RoundStatus.TRAINING), situation()),
        (a_round(dataset=Dataset(24, "AgNews")), situation()),
        (a_round(), situation(training_s=10**6)),
        (a_round(), situation(balance_lamports=0)),
    ):
        assert not decide(round, terms(), what, asked=True).take


def test_an_explanation_names_every_rule_with_its_numbers() -> None:
    """Also of a round that is taken; the verdicts agree with the decision."""
    verdicts = explain(a_round(), terms(), situation())
    assert [verdict.rule for verdict in verdicts] == [rule.name for rule in RULES]
    assert all(verdict.passed and verdict.text for verdict in verdicts)
    poor = explain(a_round(), terms(), situation(balance_lamports=1, rounds_in_work=1))
    failed = [verdict.rule for verdict in poor if not verdict.passed]
    assert failed == ["a free slot", "affordable"]


def test_the_expected_share_is_after_both_fees() -> None:
    """10 % to the validator, an equal part, 2 % of it to the platform; in whole lamports."""
    assert expected_share_lamports(a_round(), others=0) == SOL * 9 // 10 * 98 // 100
    assert expected_share_lamports(a_round(), others=2) == 294_000_000
    assert total_costs(COSTS) == 1_733_040 + 3 * 5_000


@given(st.integers(0, 10**12), st.integers(0, 10_000), st.integers(0, 255))
def test_a_share_is_never_negative_nor_more_than_the_reward(
    reward: int, fee_bps: int, others: int
) -> None:
    """Whatever the chain holds."""
    round = a_round(reward_lamports=reward, validator_fee_bps=fee_bps)
    assert 0 <= expected_share_lamports(round, others=others) <= reward


def test_an_improvement_is_submitted() -> None:
    """With the points that were previewed."""
    decision = decide_submission(a_round(), terms(), COSTS, improvement=0.25)
    assert (decision.take, decision.reason) == (True, "previewed improvement +0.25 points")


def test_an_unknown_preview_is_submitted_and_marked() -> None:
    """Unless the user wants improvements only."""
    decision = decide_submission(a_round(), terms(), COSTS, improvement=None)
    assert (decision.take, decision.reason) == (True, "its score can't be previewed here")
    strict = terms(submit_only_if_improved=True)
    decision = decide_submission(a_round(), strict, COSTS, improvement=None)
    assert not decision.take
    assert "submit_only_if_improved" in decision.reason


@pytest.mark.parametrize("improvement", [0.0, -3.5])
def test_without_an_improvement_the_expected_share_is_held_against_the_fees(
    improvement: float,
) -> None:
    """Paid only if nobody improves: an even chance for each competitor; the number is said."""
    alone = decide_submission(a_round(trainers_count=1), terms(), COSTS, improvement=improvement)
    assert alone.take
    assert alone.reason == (
        f"previewed {improvement:+.2f} points; expected share 0.882 SOL against 0.00001 SOL of fees"
    )
    crowd = a_round(trainers_count=10, reward_lamports=50_000_000)
    decision = decide_submission(crowd, terms(), COSTS, improvement=improvement)
    assert not decision.take
    assert "expected share 0.000008613 SOL against 0.00001 SOL" in decision.reason
    assert decide_submission(crowd, terms(), Costs(0, 4000), improvement=improvement).take
    strict = terms(submit_only_if_improved=True)
    assert not decide_submission(a_round(), strict, COSTS, improvement=improvement).take
