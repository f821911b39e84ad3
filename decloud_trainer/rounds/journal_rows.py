"""The journal's tables, and their rows as values."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from typing import Any

from decloud_trainer.errors import CorruptionError
from decloud_trainer.rounds.entry import Entry, Event, Facts, Request, RowKey, SentIntent, State
from decloud_trainer.rounds.model import (
    Action,
    ActionKind,
    Dataset,
    Intent,
    Outcome,
    OutcomeState,
    Round,
    RoundStatus,
)
from decloud_trainer.rounds.spending import Spent

SCHEMA_VERSION = 2

_TRANSFERS = """
-- Transactions of no round: what was sent to the cold address. As intents otherwise.
CREATE TABLE transfers (
    signature TEXT PRIMARY KEY,
    genesis TEXT NOT NULL, program TEXT NOT NULL, wallet TEXT NOT NULL,
    address TEXT NOT NULL, lamports INTEGER NOT NULL,
    raw BLOB NOT NULL, last_valid_height INTEGER NOT NULL,
    created_at REAL NOT NULL,
    state TEXT NOT NULL, slot INTEGER, fee INTEGER NOT NULL, change INTEGER NOT NULL,
    error_name TEXT NOT NULL, error_number INTEGER, error TEXT NOT NULL
) STRICT;
-- At most one may be under way for a wallet: no account on chain forbids a second one.
CREATE UNIQUE INDEX transfers_open ON transfers(genesis, wallet) WHERE state = 'open';
"""
# What makes version 2 of version 1, and so on.
MIGRATIONS = (_TRANSFERS,)

SCHEMA = """
CREATE TABLE rounds (
    row INTEGER PRIMARY KEY,
    genesis TEXT NOT NULL, program TEXT NOT NULL, wallet TEXT NOT NULL,
    round_id INTEGER NOT NULL,
    state TEXT NOT NULL, reason TEXT NOT NULL,
    facts TEXT NOT NULL, seen TEXT,
    is_open INTEGER NOT NULL, holds_slot INTEGER NOT NULL,
    not_before REAL NOT NULL, failures INTEGER NOT NULL,
    created_at REAL NOT NULL, updated_at REAL NOT NULL,
    UNIQUE (genesis, program, wallet, round_id)
) STRICT;
CREATE INDEX rounds_open ON rounds(genesis, program, wallet, not_before) WHERE is_open;
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    row INTEGER NOT NULL REFERENCES rounds(row),
    at REAL NOT NULL, kind TEXT NOT NULL,
    from_state TEXT NOT NULL, to_state TEXT NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE INDEX events_row ON events(row);
CREATE TABLE intents (
    signature TEXT PRIMARY KEY,
    row INTEGER NOT NULL REFERENCES rounds(row),
    kind TEXT NOT NULL, cid TEXT NOT NULL,
    raw BLOB NOT NULL, last_valid_height INTEGER NOT NULL,
    created_at REAL NOT NULL,
    state TEXT NOT NULL, slot INTEGER, fee INTEGER NOT NULL, change INTEGER NOT NULL,
    error_name TEXT NOT NULL, error_number INTEGER, error TEXT NOT NULL
) STRICT;
-- At most one transaction of a kind may be under way for a round: money moves once.
CREATE UNIQUE INDEX intents_open ON intents(row, kind) WHERE state = 'open';
CREATE INDEX intents_row ON intents(row);
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    genesis TEXT NOT NULL, program TEXT NOT NULL, wallet TEXT NOT NULL,
    round_id INTEGER NOT NULL,
    kind TEXT NOT NULL, args TEXT NOT NULL,
    state TEXT NOT NULL, answer TEXT NOT NULL, created_at REAL NOT NULL
) STRICT;
-- What a session and its steering leave behind, by name, as JSON.
CREATE TABLE marks (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE INDEX requests_new ON requests(id) WHERE state = 'new';
""" + "".join(MIGRATIONS)

# What helps against a damaged journal; see `mending`.
AT_NEXT_START = "`decloud-trainer start` sets it aside; rewards are found again from the chain"

# SQLite's integers are signed and 64 bits wide, a round's id is not signed.
_SIGN = 1 << 63


def key_values(key: RowKey) -> tuple[str, str, str, int]:
    return key.genesis, key.program, key.wallet, stored_id(key.round_id)


def stored_id(round_id: int) -> int:
    return round_id - 2 * _SIGN if round_id >= _SIGN else round_id


def read_id(stored: int) -> int:
    return stored % (2 * _SIGN)


def facts_json(facts: Facts) -> str:
    return json.dumps(
        {
            field.name: value
            for field in dataclasses.fields(Facts)
            if (value := getattr(facts, field.name)) != field.default
        }
    )


def round_json(seen: Round) -> str:
    values = dataclasses.asdict(seen)
    values["status"] = seen.status.value
    return json.dumps(values, sort_keys=True)


def entry_of(row: sqlite3.Row) -> Entry:
    try:
        facts = json.loads(row["facts"])
        names = {field.name for field in dataclasses.fields(Facts)}
        return Entry(
            row=row["row"],
            key=_key(row),
            state=State(row["state"]),
            reason=row["reason"],
            facts=Facts(**{name: value for name, value in facts.items() if name in names}),
            round=_round(row["seen"]),
            not_before=row["not_before"],
            failures=row["failures"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(f"row {row['row']} of rounds", error) from error


def event_of(row: sqlite3.Row, round_id: int) -> Event:
    return Event(row["at"], round_id, row["kind"], row["from_state"], row["to_state"], row["text"])


def intent_of(row: sqlite3.Row, round_id: int) -> Intent:
    try:
        action = Action(ActionKind(row["kind"]), round_id, row["cid"])
    except ValueError as error:
        raise damaged(f"the intent {row['signature']}", error) from error
    return Intent(action, row["signature"], row["raw"], row["last_valid_height"])


def sent_intent_of(row: sqlite3.Row) -> SentIntent:
    round_id = read_id(row["round_id"])
    return SentIntent(round_id, intent_of(row, round_id), row["created_at"], outcome_of(row))


def outcome_of(row: sqlite3.Row) -> Outcome | None:
    if row["state"] == "open":
        return None
    try:
        state = OutcomeState(row["state"])
    except ValueError as error:
        raise damaged(f"the intent {row['signature']}", error) from error
    return Outcome(
        state,
        row["slot"],
        row["fee"],
        row["change"],
        row["error_name"],
        row["error_number"],
        row["error"],
    )


# How a signed transaction, of a round or not, is kept: first with nothing known of its fate. The
# same bytes may come again after they were refused unsent, since signing is deterministic and a
# blockhash is the newest one for some time; what reached the chain is never opened again.
OPEN = "'open', NULL, 0, 0, '', NULL, ''"
REOPENED = (
    "ON CONFLICT (signature) DO UPDATE SET state = 'open' WHERE state = 'rejected' AND slot IS NULL"
)
SETTLED = (
    "state = ?, slot = ?, fee = ?, change = ?, error_name = ?, error_number = ?, error = ?"
    " WHERE signature = ?"
)


def settled_values(intent: Intent, outcome: Outcome) -> tuple[str | int | None, ...]:
    """Those of SETTLED."""
    return (
        outcome.state.value,
        outcome.slot,
        outcome.fee_lamports,
        outcome.wallet_change_lamports,
        outcome.error_name,
        outcome.error_number,
        outcome.error,
        intent.signature,
    )


def request_of(row: sqlite3.Row) -> Request:
    try:
        args = json.loads(row["args"])
    except ValueError as error:
        raise damaged(f"request {row['id']}", error) from error
    return Request(row["id"], row["kind"], _key(row), args)


def _key(row: sqlite3.Row) -> RowKey:
    return RowKey(row["genesis"], row["program"], row["wallet"], read_id(row["round_id"]))


def _round(text: str | None) -> Round | None:
    if text is None:
        return None
    values: dict[str, Any] = json.loads(text)
    values["status"] = RoundStatus(values["status"])
    values["dataset"] = Dataset(**values["dataset"])
    return Round(**values)


def damaged(what: str, error: Exception) -> CorruptionError:
    """Of a value in the journal that can't be read."""
    return CorruptionError(
        f"the journal is damaged: {what} can't be read ({error})",
        hint=AT_NEXT_START,
    )


def spent_of(row: sqlite3.Row) -> Spent:
    """What never reached a block cost nothing; what is still open isn't known."""
    reached = -row["change"] if row["slot"] is not None else 0
    return Spent(
        row["signature"],
        read_id(row["round_id"]),
        ActionKind(row["kind"]),
        row["created_at"],
        None if row["state"] == "open" else reached,
    )
