"""The journal's transfers to the cold address: transactions that are of no round.

Functions for a `JournalThread`. A transfer is here before it is sent, and at most one of a wallet
is open at any time: nothing on chain would forbid a second one.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from decloud_trainer.rounds.entry import RowKey, SentIntent
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.journal_rows import (
    OPEN,
    REOPENED,
    SETTLED,
    key_values,
    outcome_of,
    settled_values,
)
from decloud_trainer.rounds.model import NO_ROUND, Action, ActionKind, Intent, Outcome


@dataclass(frozen=True, slots=True)
class Transfer:
    """One of them.

    Attributes:
        scope: whose it is; its round_id is NO_ROUND.
    """

    scope: RowKey
    sent: SentIntent


def record(journal: Journal, scope: RowKey, intent: Intent) -> None:
    """Durable when this returns; only then may it be sent. The same bytes may come again after
    they were refused unsent."""
    action = intent.action
    journal.change(
        "record_transfer",
        f"INSERT INTO transfers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, {OPEN}) {REOPENED}",  # noqa: S608
        intent.signature,
        *key_values(scope)[:3],
        action.to,
        action.lamports,
        intent.raw,
        intent.last_valid_height,
        journal.clock(),
    )


def settle(journal: Journal, intent: Intent, outcome: Outcome) -> None:
    """Note what became of it."""
    journal.change(
        "settle_transfer",
        f"UPDATE transfers SET {SETTLED}",  # noqa: S608
        *settled_values(intent, outcome),
    )


def under_way(journal: Journal, scope: RowKey) -> Intent | None:
    """The wallet's transfer whose fate isn't known, on the scope's network."""
    rows = journal.rows(
        "SELECT * FROM transfers WHERE genesis = ? AND wallet = ? AND state = 'open'",
        scope.genesis,
        scope.wallet,
    )
    return _intent_of(rows[0]) if rows else None


def latest_slot(journal: Journal, scope: RowKey) -> int:
    """Where the wallet's latest transaction landed that we know of; 0 without any."""
    rows = journal.rows(
        "SELECT MAX(slot) AS slot FROM ("
        "  SELECT slot FROM transfers WHERE genesis = ?1 AND wallet = ?2"
        "  UNION ALL SELECT i.slot FROM intents i JOIN rounds r ON r.row = i.row"
        "  WHERE r.genesis = ?1 AND r.wallet = ?2)",
        scope.genesis,
        scope.wallet,
    )
    return int(rows[0]["slot"] or 0)


def transfers(journal: Journal) -> list[Transfer]:
    """Of all wallets and networks, oldest first."""
    return [transfer_of(row) for row in journal.rows("SELECT * FROM transfers ORDER BY rowid")]


def transfer_of(row: sqlite3.Row) -> Transfer:
    return Transfer(
        RowKey(row["genesis"], row["program"], row["wallet"], NO_ROUND),
        SentIntent(NO_ROUND, _intent_of(row), row["created_at"], outcome_of(row)),
    )


def _intent_of(row: sqlite3.Row) -> Intent:
    action = Action(ActionKind.TRANSFER, NO_ROUND, to=row["address"], lamports=row["lamports"])
    return Intent(action, row["signature"], row["raw"], row["last_valid_height"])
