"""The live view of `start`: what it shows, and in how much room."""

from __future__ import annotations

import asyncio
import io
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from roundvalues import KEY, a_round, an_intent, landed

from decloud_trainer.cli.board import Board
from decloud_trainer.cli.output import fitting
from decloud_trainer.errors import StorageError
from decloud_trainer.rounds import intents
from decloud_trainer.rounds.engine import Told
from decloud_trainer.rounds.entry import Entry, RowKey, State
from decloud_trainer.rounds.journal import Journal, JournalThread
from decloud_trainer.rounds.model import ActionKind, RoundStatus
from decloud_trainer.rounds.parts import Progress

PROGRESS = {
    "epoch": 1,
    "epochs": 2,
    "batch": 30,
    "batches": 43,
    "loss": 0.412,
    "accuracy": 88.1,
    "samples_per_s": 2310.0,
    "eta_s": 4.0,
    "memory_bytes": 850_000_000,
}


async def entry_in(journal: JournalThread, state: State, key: RowKey = KEY) -> Entry:
    await journal(Journal.saw, key, a_round(id=key.round_id), state=state)
    entry = await journal(Journal.entry, key)
    assert entry is not None
    return entry


async def send(journal: JournalThread, entry: Entry, kind: ActionKind, change: int) -> None:
    intent = an_intent(kind, kind.value + str(entry.row), entry.key.round_id)
    await journal(intents.record, entry, intent)
    await journal(intents.settle, entry, intent, landed(change))


async def test_a_journal_that_fails_once_stops_no_book(tmp_path: Path) -> None:
    """A full disk passes; the sum after the next event is whole."""
    shown = io.StringIO()
    journal = JournalThread(tmp_path / "journal")
    looks: list[Any] = []
    begun = asyncio.Event()

    async def shaky(method: Any, *args: Any) -> Any:
        looks.append(method)
        begun.set()
        if len(looks) == 2:  # the first only remembers where the session begins
            raise StorageError("can't use the journal: disk full")
        return await journal(method, *args)

    board = Board(Console(file=shown, width=80, color_system=None))
    with board:
        keeping = asyncio.create_task(board.keep_book(shaky))  # type: ignore[arg-type]
        await asyncio.wait_for(begun.wait(), 10)
        for number in (7, 8):
            joined = await entry_in(journal, State.JOINED, replace(KEY, round_id=number))
            await send(journal, joined, ActionKind.JOIN, -1_000_000)
            board.event(Told(time.time(), joined, moved=True))
            await board.all_booked()
        keeping.cancel()
    journal.close()
    assert len(looks) == 3
    assert "-0.002 SOL net" in shown.getvalue()


@pytest.mark.parametrize("width", [60, 120])
async def test_it_shows_what_the_session_earned(
    tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewards less rent and fees of its own transactions, not of those of earlier sessions;
    each line of its table, its words and a training's figures fit the terminal."""
    monkeypatch.setenv("COLUMNS", str(width))
    shown = io.StringIO()
    past = JournalThread(tmp_path / "journal", clock=lambda: 1.0)
    await send(past, await entry_in(past, State.JOINED), ActionKind.JOIN, -5_000_000)
    past.close()
    journal = JournalThread(tmp_path / "journal")
    board = Board(Console(file=shown, force_terminal=True, width=width, color_system=None))
    with board:
        keeping = asyncio.create_task(board.keep_book(journal))
        claimed = replace(await entry_in(journal, State.CLAIMED), state=State.CLAIMED)
        await send(journal, claimed, ActionKind.CLAIM, 9_000_000)
        board.event(Told(time.time(), claimed, moved=True))
        joined = await entry_in(journal, State.JOINED, replace(KEY, round_id=8))
        await send(journal, joined, ActionKind.JOIN, -1_738_040)
        board.event(Told(time.time(), joined, moved=True))
        late = a_round(id=8, status=RoundStatus.TRAINING, submit_deadline=int(time.time()) + 7300)
        board.progress(Progress(8, "train", PROGRESS, late), 0.0)
        await board.all_booked()
        keeping.cancel()
    journal.close()
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.getvalue())
    caption = "1 round in work; session of 0 min: 1 claimed, +0.00726196 SOL net"
    assert caption in " ".join(plain.split())
    assert plain.splitlines()[-1] == "session of 0 min: 1 claimed, +0.00726196 SOL net"
    table = next(line for line in plain.splitlines() if line.startswith("Round"))
    assert "Deadline" in table
    row = next(line for line in plain.splitlines() if line.startswith("#8 "))
    assert "training" in row
    assert row.rstrip().endswith("2h 1m"), "the submissions' deadline"
    figures = "#8: epoch 1/2, batch 30/43, loss 0.412, acc 88.1 %, 2310/s, 4s left, 850 MB"
    assert figures in " ".join(plain.split())
    assert all(len(line) <= width for line in re.split(r"[\r\n]+", plain))


def test_a_narrow_terminal_does_without_some_columns() -> None:
    """In the given order, and only as many as needed."""
    columns: dict[str, list[Any]] = {"A": ["12345"], "B": ["12345"], "C": ["12345"]}
    assert fitting(columns, ("C", "A"), 19) == ["A", "B", "C"]
    assert fitting(columns, ("C", "A"), 18) == ["A", "B"]
    assert fitting(columns, ("C", "A"), 5) == ["B"]
