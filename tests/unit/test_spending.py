"""Ceilings hold, and never stand between us and what we are owed."""

from __future__ import annotations

import dataclasses

import pytest

from decloud_trainer.rounds.model import ActionKind
from decloud_trainer.rounds.spending import Ceilings, Purchase, Spent, against

JOIN = Purchase(ActionKind.JOIN, 7, 1_738_040, 100_000_000)
SUBMIT = Purchase(ActionKind.SUBMIT, 7, 5000, 100_000_000)
NOW, COST = 1_800_000_000.0, 1_738_040


def spent(
    lamports: int | None, *, round_id: int = 7, ago: float = 60, kind: ActionKind = ActionKind.JOIN
) -> Spent:
    return Spent("signature", round_id, kind, NOW - ago, lamports)


def reason(purchase: Purchase, *past: Spent, **ceilings: int) -> str:
    return against(purchase, Ceilings(**ceilings), past, now=NOW, join_cost=COST)


def test_without_ceilings_nothing_is_refused() -> None:
    """Zero is no ceiling, whatever was spent."""
    assert reason(JOIN, spent(10**12)) == ""


def test_a_transaction_has_a_ceiling() -> None:
    """Exactly the ceiling passes."""
    assert reason(JOIN, transaction=COST) == ""
    assert "max_cost_per_transaction is 0.001 SOL" in reason(JOIN, transaction=1_000_000)


def test_a_round_has_a_ceiling() -> None:
    """All its transactions count, however long ago; other rounds' don't."""
    old = spent(4_000, ago=10**7)
    assert reason(SUBMIT, old, round=9_000) == ""
    assert "round 7 would cost 0.000009001 SOL" in reason(SUBMIT, spent(4_001), round=9_000)
    assert reason(SUBMIT, spent(10**9, round_id=8), round=9_000) == ""


def test_a_day_has_a_ceiling_for_joins() -> None:
    """The last 24 hours count; whoever has joined may still submit."""
    assert reason(JOIN, spent(10_000, round_id=1, ago=86_399), day=COST + 9_999) != ""
    assert reason(JOIN, spent(10_000, round_id=1, ago=86_400), day=COST + 9_999) == ""
    assert reason(SUBMIT, spent(10**9, round_id=1), day=10_000) == ""


def test_what_is_under_way_counts_as_if_it_landed() -> None:
    """A join whose fate is open may still cost its rent; gains don't make room."""
    assert reason(JOIN, spent(None, round_id=1), day=2 * COST - 1) != ""
    assert reason(JOIN, spent(None, round_id=1), day=2 * COST) == ""
    gain = spent(-(10**9), round_id=1, kind=ActionKind.CLAIM)
    assert reason(JOIN, spent(COST, round_id=1), gain, day=2 * COST - 1) != ""


def test_joins_leave_a_floor_for_claims() -> None:
    """A join may not eat it, a submission may; who can't pay hears it from the chain."""
    poor = dataclasses.replace(JOIN, balance_lamports=COST + 999_999)
    assert "floor_balance 0.001 SOL" in reason(poor, floor=1_000_000)
    assert reason(dataclasses.replace(JOIN, balance_lamports=COST + 10**6), floor=10**6) == ""
    assert reason(dataclasses.replace(SUBMIT, balance_lamports=10_000), floor=10**6) == ""
    assert reason(dataclasses.replace(JOIN, balance_lamports=5), floor=10**6) == ""


@pytest.mark.parametrize("gain", [0, 1, 10**9])
def test_a_claim_that_pays_is_never_held_up(gain: int) -> None:
    """Every ceiling at its least, the day and the round long overdrawn."""
    claim = Purchase(ActionKind.CLAIM, 7, -gain, 0)
    assert reason(claim, spent(10**12), transaction=1, round=1, day=1, floor=10**12) == ""
