"""What commands ask of the running daemon, left in the journal and answered there.

Functions for a `JournalThread`, and for the process that asks.
"""

from __future__ import annotations

import json
from typing import Any

from decloud_trainer.rounds.entry import Request, RowKey
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.journal_rows import key_values, request_of


def ask(journal: Journal, kind: str, key: RowKey, args: dict[str, Any]) -> int:
    """Leave a request for the daemon that works for the key's network and wallet; its number."""
    with journal.transaction("ask") as db:
        cursor = db.execute(
            "INSERT INTO requests (genesis, program, wallet, round_id, kind, args, state,"
            " answer, created_at) VALUES (?, ?, ?, ?, ?, ?, 'new', '', ?)",
            (*key_values(key), kind, json.dumps(args), journal.clock()),
        )
    return int(cursor.lastrowid or 0)


def new_requests(journal: Journal) -> list[Request]:
    """Requests that nobody has answered, whoever they are for."""
    rows = journal.rows("SELECT * FROM requests WHERE state = 'new' ORDER BY id")
    return [request_of(row) for row in rows]


def answer(journal: Journal, request: int, text: str) -> None:
    """Mark a request as taken (empty text) or refused (why), unless it was withdrawn."""
    journal.change(
        "answer",
        "UPDATE requests SET state = ?, answer = ? WHERE id = ? AND state = 'new'",
        "refused" if text else "taken",
        text,
        request,
    )


def withdraw(journal: Journal, request: int) -> None:
    """Nobody waits for it any more: if no daemon has taken it yet, none will."""
    answer(journal, request, "withdrawn: the command that asked has ended")


def answer_of(journal: Journal, request: int) -> tuple[str, str]:
    """(state, answer) of a request: new, taken or refused."""
    (row,) = journal.rows("SELECT state, answer FROM requests WHERE id = ?", request)
    return row["state"], row["answer"]
