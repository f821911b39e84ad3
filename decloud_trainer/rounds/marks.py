"""Small values that sessions and commands leave in the journal for each other, by name, as JSON.

Functions for a `JournalThread`, and for other processes.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.journal_rows import damaged

# By which other terminals steer a daemon.
PAUSED_UNTIL, WISH = "paused_until", "wish"
# What the running daemon says of itself: pid, started_at, wallet, network, balance, balance_at.
SESSION = "session"
# Since when this journal takes the place of a damaged one: at, kept_as.
REBUILT = "rebuilt"


def set_mark(journal: Journal, name: str, value: Any) -> None:
    """Keep a JSON value under a name; None forgets it."""
    if value is None:
        journal.change("set_mark", "DELETE FROM marks WHERE name = ?", name)
        return
    journal.change(
        "set_mark",
        "INSERT INTO marks VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        name,
        json.dumps(value),
    )


def mark(journal: Journal, name: str) -> Any:
    """The value under that name, or None."""
    rows = journal.rows("SELECT * FROM marks WHERE name = ?", name)
    return mark_of(rows[0]) if rows else None


def mark_of(row: sqlite3.Row) -> Any:
    try:
        return json.loads(row["value"])
    except ValueError as error:
        raise damaged(f"the mark {row['name']}", error) from error


def paused_until(journal: Journal) -> float:
    """Unix seconds by this machine's clock until which nothing new is wanted; 0: it is."""
    return float(mark(journal, PAUSED_UNTIL) or 0.0)
