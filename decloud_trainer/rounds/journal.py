"""The journal: what we did for each round, durable, on SQLite.

A row is known by (genesis hash, program, round id, wallet). Rows change state and never vanish;
every transition is an event row. An intent (a signed transaction) is here before it is sent.
Another process may read at any time, and adds requests; everything else has one writer.

A `Journal` belongs to the thread that opened it. `JournalThread` gives async code one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from decloud_trainer.errors import CorruptionError, DecloudError
from decloud_trainer.files import make_private_dir
from decloud_trainer.rounds.entry import (
    Entry,
    Event,
    Facts,
    Request,
    RowKey,
    SentIntent,
    State,
)
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

SCHEMA_VERSION = 1


_SCHEMA = """
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
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL, round_id INTEGER NOT NULL, args TEXT NOT NULL,
    state TEXT NOT NULL, answer TEXT NOT NULL, created_at REAL NOT NULL
) STRICT;
CREATE INDEX requests_state ON requests(state);
"""


class Journal:
    """Opened once per process and thread; every method is one transaction."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open or create the journal.

        Raises:
            CorruptionError: the file is not a journal, or damaged.
            DecloudError: it was written by a newer version.
        """
        make_private_dir(path.parent)
        path.touch(mode=0o600)
        self._path = path
        self._clock = clock
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._create()
        except sqlite3.DatabaseError as error:
            raise CorruptionError(
                f"the journal {path} can't be read: {error}",
                hint="move it away; rewards are found again from the chain",
            ) from error
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.chmod(f"{path}{suffix}", 0o600)

    def close(self) -> None:
        self._db.close()

    def _create(self) -> None:
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    if statement.strip():
                        self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version > SCHEMA_VERSION:
                raise DecloudError(
                    f"the journal {self._path} was written by a newer version",
                    hint="upgrade decloud-trainer, or set DECLOUD_HOME to another folder",
                )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Rounds

    def saw(self, key: RowKey, seen: Round, *, state: State = State.SEEN, reason: str = "") -> bool:
        """Note a round as it is on chain now; True if that is news, and its step is due at once.

        A new row starts in `state`."""
        snapshot = _round_json(seen)
        now = self._clock()
        with self._transaction():
            found = self._find(key)
            if found is None:
                cursor = self._db.execute(
                    "INSERT INTO rounds (genesis, program, wallet, round_id, state, reason, facts,"
                    " seen, is_open, holds_slot, not_before, failures, created_at, updated_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, '{}', ?, 1, ?, 0, 0, ?, ?)",
                    (
                        *_key_values(key),
                        state.value,
                        reason,
                        snapshot,
                        state.holds_slot,
                        now,
                        now,
                    ),
                )
                self._event(int(cursor.lastrowid or 0), "state", "", state.value, reason)
                return True
            if found["seen"] == snapshot:
                return False
            self._db.execute(
                "UPDATE rounds SET seen = ?, not_before = 0 WHERE row = ?",
                (snapshot, found["row"]),
            )
            return True

    def entry(self, key: RowKey) -> Entry | None:
        found = self._find(key)
        return _entry(found) if found is not None else None

    def entries(self, scope: RowKey | None = None) -> list[Entry]:
        """All rows, or those that share the scope's genesis, program and wallet."""
        if scope is None:
            rows = self._db.execute("SELECT * FROM rounds ORDER BY row")
        else:
            rows = self._db.execute(
                "SELECT * FROM rounds WHERE genesis = ? AND program = ? AND wallet = ?"
                " ORDER BY round_id",
                _key_values(scope)[:3],
            )
        return [_entry(row) for row in rows]

    def due(self, scope: RowKey, now: float) -> list[Entry]:
        """Rows of the scope that aren't final and whose time has come, oldest first."""
        rows = self._db.execute(
            "SELECT * FROM rounds WHERE genesis = ? AND program = ? AND wallet = ?"
            " AND is_open AND not_before <= ? ORDER BY row",
            (*_key_values(scope)[:3], now),
        )
        return [_entry(row) for row in rows]

    def next_time(self, scope: RowKey) -> float | None:
        """The earliest `not_before` among open rows."""
        (found,) = self._db.execute(
            "SELECT MIN(not_before) FROM rounds WHERE genesis = ? AND program = ? AND wallet = ?"
            " AND is_open",
            _key_values(scope)[:3],
        ).fetchone()
        return None if found is None else float(found)

    def active_ids(self, scope: RowKey) -> set[int]:
        """Rounds that we take part in, or are about to."""
        rows = self._db.execute(
            "SELECT round_id FROM rounds WHERE genesis = ? AND program = ? AND wallet = ?"
            " AND is_open AND state NOT IN ('seen', 'skipped')",
            _key_values(scope)[:3],
        )
        return {row["round_id"] for row in rows}

    def move(self, entry: Entry, state: State, reason: str, facts: Facts) -> Entry:
        """Put the row into a state; the event row says why. Due at once."""
        with self._transaction():
            self._db.execute(
                "UPDATE rounds SET state = ?, reason = ?, facts = ?, is_open = ?,"
                " holds_slot = ?, not_before = 0, failures = 0, updated_at = ? WHERE row = ?",
                (
                    state.value,
                    reason,
                    _facts_json(facts),
                    not state.is_final,
                    state.holds_slot,
                    self._clock(),
                    entry.row,
                ),
            )
            if state is not entry.state or reason != entry.reason:
                self._event(entry.row, "state", entry.state.value, state.value, reason)
            if entry.state.holds_slot and not state.holds_slot:
                self._db.execute(
                    "UPDATE rounds SET not_before = 0 WHERE state = ?", (State.SKIPPED.value,)
                )
        return self._reread(entry)

    def wait(
        self, entry: Entry, reason: str, until: float, *, facts: Facts, failed: bool = False
    ) -> Entry:
        """Leave the row in its state until a time, or until the round changes.

        A change of the round that came during the step isn't overslept."""
        with self._transaction():
            (seen,) = self._db.execute(
                "SELECT seen FROM rounds WHERE row = ?", (entry.row,)
            ).fetchone()
            changed = not failed and entry.round is not None and seen != _round_json(entry.round)
            self._db.execute(
                "UPDATE rounds SET reason = ?, facts = ?, not_before = ?, failures = ?,"
                " updated_at = ? WHERE row = ?",
                (
                    reason,
                    _facts_json(facts),
                    0 if changed else until,
                    entry.failures + 1 if failed else 0,
                    self._clock(),
                    entry.row,
                ),
            )
            if reason != entry.reason:
                kind = "problem" if failed else "wait"
                self._event(entry.row, kind, entry.state.value, entry.state.value, reason)
        return self._reread(entry)

    def note(self, entry: Entry, kind: str, text: str) -> None:
        """Add to the row's story without changing the row."""
        with self._transaction():
            self._event(entry.row, kind, entry.state.value, entry.state.value, text)

    def revise(self, entry: Entry, facts: Facts) -> Entry:
        """Replace the row's facts and make it due."""
        with self._transaction():
            self._db.execute(
                "UPDATE rounds SET facts = ?, not_before = 0 WHERE row = ?",
                (_facts_json(facts), entry.row),
            )
        return self._reread(entry)

    def slots_in_use(self, scope: RowKey) -> int:
        (count,) = self._db.execute(
            "SELECT COUNT(*) FROM rounds WHERE genesis = ? AND program = ? AND wallet = ?"
            " AND is_open AND holds_slot",
            _key_values(scope)[:3],
        ).fetchone()
        return int(count)

    def events(self, entry: Entry) -> list[Event]:
        rows = self._db.execute("SELECT * FROM events WHERE row = ? ORDER BY id", (entry.row,))
        return [
            Event(
                row["at"],
                entry.key.round_id,
                row["kind"],
                row["from_state"],
                row["to_state"],
                row["text"],
            )
            for row in rows
        ]

    # Intents

    def record_intent(self, entry: Entry, intent: Intent) -> None:
        """Durable when this returns; only then may the intent be sent."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO intents VALUES"
                " (?, ?, ?, ?, ?, ?, ?, 'open', NULL, 0, 0, '', NULL, '')",
                (
                    intent.signature,
                    entry.row,
                    intent.action.kind.value,
                    intent.action.cid,
                    intent.raw,
                    intent.last_valid_height,
                    self._clock(),
                ),
            )
            self._event(
                entry.row,
                "intent",
                entry.state.value,
                entry.state.value,
                f"{intent.action.kind.value}: signed {intent.signature}",
            )

    def open_intent(self, entry: Entry, kind: ActionKind) -> Intent | None:
        row = self._db.execute(
            "SELECT * FROM intents WHERE row = ? AND kind = ? AND state = 'open'",
            (entry.row, kind.value),
        ).fetchone()
        return _intent(row, entry.key.round_id) if row is not None else None

    def settle_intent(self, entry: Entry, intent: Intent, outcome: Outcome) -> None:
        with self._transaction():
            self._db.execute(
                "UPDATE intents SET state = ?, slot = ?, fee = ?, change = ?, error_name = ?,"
                " error_number = ?, error = ? WHERE signature = ?",
                (
                    outcome.state.value,
                    outcome.slot,
                    outcome.fee_lamports,
                    outcome.wallet_change_lamports,
                    outcome.error_name,
                    outcome.error_number,
                    outcome.error,
                    intent.signature,
                ),
            )
            text = f"{intent.action.kind.value}: {outcome.state.value} {intent.signature}"
            if outcome.error:
                text = f"{text}: {outcome.error}"
            self._event(entry.row, "intent", entry.state.value, entry.state.value, text)

    def intents(self, entry: Entry | None = None) -> list[SentIntent]:
        """Of one round, or of all, oldest first."""
        rows = self._db.execute(
            "SELECT i.*, r.round_id FROM intents i JOIN rounds r ON r.row = i.row"
            " WHERE ?1 IS NULL OR i.row = ?1 ORDER BY i.created_at",
            (entry.row if entry else None,),
        )
        return [
            SentIntent(
                row["round_id"], _intent(row, row["round_id"]), row["created_at"], _outcome(row)
            )
            for row in rows
        ]

    # Requests

    def ask(self, kind: str, round_id: int, args: dict[str, Any]) -> int:
        """Leave a request for the daemon; its number."""
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO requests (kind, round_id, args, state, answer, created_at)"
                " VALUES (?, ?, ?, 'new', '', ?)",
                (kind, round_id, json.dumps(args), self._clock()),
            )
        return int(cursor.lastrowid or 0)

    def new_requests(self) -> list[Request]:
        rows = self._db.execute("SELECT * FROM requests WHERE state = 'new' ORDER BY id")
        return [
            Request(row["id"], row["kind"], row["round_id"], json.loads(row["args"]))
            for row in rows
        ]

    def answer(self, request: int, text: str) -> None:
        """Mark a request as taken (empty text) or refused (why)."""
        with self._transaction():
            self._db.execute(
                "UPDATE requests SET state = ?, answer = ? WHERE id = ?",
                ("refused" if text else "taken", text, request),
            )

    def answer_of(self, request: int) -> tuple[str, str]:
        """(state, answer) of a request: new, taken or refused."""
        row = self._db.execute(
            "SELECT state, answer FROM requests WHERE id = ?", (request,)
        ).fetchone()
        return row["state"], row["answer"]

    # Internals

    def _find(self, key: RowKey) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._db.execute(
            "SELECT * FROM rounds WHERE genesis = ? AND program = ? AND wallet = ?"
            " AND round_id = ?",
            _key_values(key),
        ).fetchone()
        return found

    def _reread(self, entry: Entry) -> Entry:
        return _entry(
            self._db.execute("SELECT * FROM rounds WHERE row = ?", (entry.row,)).fetchone()
        )

    def _event(self, row: int, kind: str, before: str, after: str, text: str) -> None:
        self._db.execute(
            "INSERT INTO events (row, at, kind, from_state, to_state, text)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (row, self._clock(), kind, before, after, text),
        )


P = ParamSpec("P")
T = TypeVar("T")


class JournalThread:
    """One thread that owns the journal: ``await thread(Journal.due, scope, now)``."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        try:
            self._journal = self._pool.submit(Journal, path, clock=clock).result()
        except BaseException:
            self._pool.shutdown()
            raise

    async def __call__(
        self, method: Callable[Concatenate[Journal, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a method of the journal; a cancelled caller doesn't undo or lose the write."""
        future = self._pool.submit(method, self._journal, *args, **kwargs)
        return await asyncio.shield(asyncio.wrap_future(future))

    def close(self) -> None:
        self._pool.submit(self._journal.close).result()
        self._pool.shutdown()


def _key_values(key: RowKey) -> tuple[str, str, str, int]:
    return key.genesis, key.program, key.wallet, key.round_id


def _facts_json(facts: Facts) -> str:
    return json.dumps(
        {
            field.name: value
            for field in dataclasses.fields(Facts)
            if (value := getattr(facts, field.name)) != field.default
        }
    )


def _round_json(seen: Round) -> str:
    values = dataclasses.asdict(seen)
    values["status"] = seen.status.value
    return json.dumps(values, sort_keys=True)


def _round(text: str | None) -> Round | None:
    if text is None:
        return None
    values = json.loads(text)
    values["status"] = RoundStatus(values["status"])
    values["dataset"] = Dataset(**values["dataset"])
    return Round(**values)


def _known(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _entry(row: sqlite3.Row) -> Entry:
    facts = json.loads(row["facts"])
    return Entry(
        row=row["row"],
        key=RowKey(row["genesis"], row["program"], row["wallet"], row["round_id"]),
        state=State(row["state"]),
        reason=row["reason"],
        facts=Facts(**_known(facts, (field.name for field in dataclasses.fields(Facts)))),
        round=_round(row["seen"]),
        not_before=row["not_before"],
        failures=row["failures"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _intent(row: sqlite3.Row, round_id: int) -> Intent:
    return Intent(
        Action(ActionKind(row["kind"]), round_id, row["cid"]),
        row["signature"],
        row["raw"],
        row["last_valid_height"],
    )


def _outcome(row: sqlite3.Row) -> Outcome | None:
    if row["state"] == "open":
        return None
    return Outcome(
        OutcomeState(row["state"]),
        row["slot"],
        row["fee"],
        row["change"],
        row["error_name"],
        row["error_number"],
        row["error"],
    )
