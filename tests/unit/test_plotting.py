"""Curves drawn in text."""

from __future__ import annotations

import itertools

import pytest

from decloud_trainer.cli.plotting import columns_plot


@pytest.mark.parametrize("count", [1, 5, 60, 61, 5000])
def test_any_number_of_values_fits_the_width(count: int) -> None:
    """Few are drawn wider, many are averaged; the scale has the highest and the lowest."""
    values = [float(number) for number in range(count)]
    lines = columns_plot(values, width=60)
    assert len(lines) == 10
    assert max(map(len, lines)) <= 60
    assert lines[0].split("|")[0].strip() == f"{count - 1:.4g}"
    if count > 1:
        assert lines[-1].split("|")[0].strip() == "0"
    bars = [line.rpartition("|")[2] for line in lines]
    assert all(len(upper) <= len(lower) for upper, lower in itertools.pairwise(bars))


def test_a_rising_curve_rises_to_the_right() -> None:
    """The last value stands highest, the first one can still be seen."""
    lines = columns_plot([1.0, 2.0, 3.0], width=20, height=3)
    bars = [line.split("|")[1] for line in lines]
    assert [len(bar) for bar in bars] == [15, 15, 15]
    assert bars[0].strip() == "#####"
    assert bars[-1] == "#" * 15


def test_equal_values_are_a_flat_line() -> None:
    """Nothing is divided by zero."""
    assert columns_plot([2.0] * 4, width=40)[-1].endswith("#" * 32)
