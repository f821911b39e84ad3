"""``list`` on wide and narrow terminals."""

from __future__ import annotations

import sys

import pytest
from roundvalues import NOW, a_round

from decloud_trainer.cli.listing import Row, show_rows

WHY = "the reward of 1 SOL is below the least reward of 2 SOL"
ROWS = [
    Row(a_round(), "", True, ""),
    Row(a_round(id=8), "", False, WHY),
    Row(a_round(id=9), "submitted", False, ""),
]


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_the_verdict_is_never_lost(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stands beside its round where there is room, below the table where there is none."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show_rows(ROWS, NOW, "devnet", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= columns for line in lines)
    assert "WaitingTrainers" in lines[1]
    words = " ".join(" ".join(lines).split())
    assert f"no: {WHY}" in words or columns == 160
    assert ("Take it?" in lines[0]) == (columns == 160)
    assert "submitted" in words
