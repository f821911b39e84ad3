"""How text meets the width of a terminal."""

from __future__ import annotations

import sys

import pytest

from decloud_trainer.cli.output import folded

ADDRESS = "A1TyQmFmYJXefzmM9GiVKgdydaVvGx9Hjt8Z3zzgMBuA"


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is a terminal of 60 columns."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


def test_a_pipe_gets_one_line() -> None:
    """Whatever its length: a script reads it."""
    assert folded("wallet: ", "word " * 40) == "wallet: " + "word " * 40


def test_words_go_on_below_their_start(narrow: None) -> None:
    """Or at the column that was asked for."""
    first, second = folded("wallet: ", "word " * 15).splitlines()
    assert first == "wallet: " + " ".join(["word"] * 10)
    assert second == "        " + " ".join(["word"] * 5)
    assert folded("wallet: ", "word " * 15, indent=2).splitlines()[1][:6] == "  word"


def test_an_address_stays_whole(narrow: None) -> None:
    """It starts further left if it must, or on a line of its own, so that it can be copied."""
    lines = folded(" " * 23, f"it is {ADDRESS} in the file").splitlines()
    assert lines[1].strip().startswith(ADDRESS)
    assert all(len(line) <= 60 for line in lines)
    lines = folded("PASS  wallet           ", ADDRESS).splitlines()
    assert lines == ["PASS  wallet", " " * 16 + ADDRESS]
