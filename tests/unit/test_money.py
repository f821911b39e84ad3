"""Amounts: exact, whatever is typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decloud_trainer.money import format_sol, lamports_from_sol


@pytest.mark.parametrize(
    ("text", "lamports"),
    [
        ("1.001", 1_001_000_000),
        ("0", 0),
        ("1e-9", 1),
        ("0.000000001", 1),
        ("9007199.254740993", 9_007_199_254_740_993),
        (".5", 500_000_000),
    ],
)
def test_sol_is_read_to_the_lamport(text: str, lamports: int) -> None:
    """No float comes near it."""
    assert lamports_from_sol(text) == lamports


@pytest.mark.parametrize(
    "text",
    [
        *("", "one", "1,5", "-0.1", "inf", "nan", "sNaN", "1e999999", "1e-999999", "1e30"),
        *("0.0000000001", "1." + "0" * 70 + "1", "1" * 5000),
    ],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    """With a ValueError and nothing else: not rounded, not overflowed."""
    with pytest.raises(ValueError, match="SOL"):
        lamports_from_sol(text)


@pytest.mark.parametrize(
    ("lamports", "text"),
    [(0, "0 SOL"), (50_000_000, "0.05 SOL"), (-5000, "-0.000005 SOL"), (10**10, "10 SOL")],
)
def test_sol_is_shown_without_trailing_zeros(lamports: int, text: str) -> None:
    """The sign is in front, also of less than one SOL."""
    assert format_sol(lamports) == text


@given(st.integers(0, 2**63))
def test_what_is_shown_is_what_was_meant(lamports: int) -> None:
    """Reading the shown amount gives the same lamports."""
    assert lamports_from_sol(format_sol(lamports).removesuffix(" SOL")) == lamports
