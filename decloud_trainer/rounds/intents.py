"""The journal's signed transactions of rounds, each with what became of it.

Functions for a `JournalThread`. An intent is here before it is sent, and at most one of a kind is
open for a round at any time: what is sent after a crash is this one, never a second.
"""

from __future__ import annotations

from decloud_trainer.rounds.entry import Entry, RowKey, SentIntent
from decloud_trainer.rounds.journal import MINE, Journal
from decloud_trainer.rounds.journal_rows import (
    OPEN,
    REOPENED,
    SETTLED,
    intent_of,
    key_values,
    sent_intent_of,
    settled_values,
    spent_of,
)
from decloud_trainer.rounds.model import ActionKind, Intent, Outcome
from decloud_trainer.rounds.spending import Spent

ALL = "SELECT i.*, r.round_id FROM intents i JOIN rounds r ON r.row = i.row"


def record(journal: Journal, entry: Entry, intent: Intent) -> None:
    """Durable when this returns; only then may the intent be sent. The same bytes may come again
    after they were refused unsent."""
    action = intent.action
    with journal.transaction("record_intent") as db:
        db.execute(
            f"INSERT INTO intents VALUES (?, ?, ?, ?, ?, ?, ?, {OPEN}) {REOPENED}",  # noqa: S608
            (
                intent.signature,
                entry.row,
                action.kind.value,
                action.cid,
                intent.raw,
                intent.last_valid_height,
                journal.clock(),
            ),
        )
        text = f"{action.kind.value}: signed {intent.signature}"
        journal.add_event(entry.row, "intent", entry.state, entry.state, text)


def settle(journal: Journal, entry: Entry, intent: Intent, outcome: Outcome) -> None:
    """Note what became of it."""
    with journal.transaction("settle_intent") as db:
        db.execute(f"UPDATE intents SET {SETTLED}", settled_values(intent, outcome))  # noqa: S608
        text = f"{intent.action.kind.value}: {outcome.state.value} {intent.signature}"
        if outcome.error:
            text = f"{text}: {outcome.error}"
        journal.add_event(entry.row, "intent", entry.state, entry.state, text)


def under_way(journal: Journal, entry: Entry, kind: ActionKind) -> Intent | None:
    """The round's transaction of that kind whose fate isn't known."""
    rows = journal.rows(
        "SELECT * FROM intents WHERE row = ? AND kind = ? AND state = 'open'",
        entry.row,
        kind.value,
    )
    return intent_of(rows[0], entry.key.round_id) if rows else None


def sent(journal: Journal, entry: Entry | None = None) -> list[SentIntent]:
    """Of one round, or of all, oldest first."""
    rows = journal.rows(
        f"{ALL} WHERE ?1 IS NULL OR i.row = ?1 ORDER BY i.rowid", entry.row if entry else None
    )
    return [sent_intent_of(row) for row in rows]


def sent_by_row(journal: Journal) -> dict[int, list[SentIntent]]:
    """All under the row of their round, which alone tells rounds of the same number on other
    networks apart; oldest first."""
    found: dict[int, list[SentIntent]] = {}
    for row in journal.rows(f"{ALL} ORDER BY i.rowid"):
        found.setdefault(row["row"], []).append(sent_intent_of(row))
    return found


def spent(journal: Journal, key: RowKey, since: float) -> list[Spent]:
    """What this wallet's transactions took out of it on this network: all for the round, and
    all since that time."""
    rows = journal.rows(
        "SELECT i.signature, i.kind, i.created_at, i.state, i.slot, i.change, r.round_id"  # noqa: S608
        " FROM intents i CROSS JOIN rounds r ON r.row = i.row"
        f" WHERE {MINE} AND (i.created_at >= ? OR r.round_id = ?)",
        *key_values(key)[:3],
        since,
        key_values(key)[3],
    )
    return [spent_of(row) for row in rows]
