"""The journal: what we did for each round, durable, on SQLite.

A row is known by (genesis hash, program, round id, wallet). Rows change state and never vanish;
every transition is an event row. An intent (a signed transaction) is here before it is sent.
Another process may read at any time, and adds requests; everything else has one writer.

A `Journal` belongs to the thread that opened it. `JournalThread` gives async code one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from decloud_trainer.errors import CorruptionError, DecloudError, StorageError
from decloud_trainer.faultpoints import reach
from decloud_trainer.files import make_private_dir, make_private_file
from decloud_trainer.rounds.entry import (
    NOTHING_KNOWN,
    Entry,
    Event,
    Facts,
    Request,
    RowKey,
    SentIntent,
    State,
    takes_slot,
)
from decloud_trainer.rounds.journal_rows import (
    AT_NEXT_START,
    MIGRATIONS,
    SCHEMA,
    SCHEMA_VERSION,
    entry_of,
    event_of,
    facts_json,
    intent_of,
    key_values,
    read_id,
    request_of,
    round_json,
    sent_intent_of,
    spent_of,
)
from decloud_trainer.rounds.model import ActionKind, Intent, Outcome, Round, RoundStatus
from decloud_trainer.rounds.spending import Spent

# Marks by which other terminals steer a daemon.
PAUSED_UNTIL, WISH = "paused_until", "wish"
# What the running daemon says of itself: pid, started_at, wallet, network, balance, balance_at.
SESSION = "session"
# Since when this journal takes the place of a damaged one: at, kept_as.
REBUILT = "rebuilt"
# A free slot is offered to skipped rounds that would be decided again so soon anyway: not to
# those that are refused for good, or that let others go first after a failure.
OFFER_WITHIN_S = 60.0

_MINE = "genesis = ? AND program = ? AND wallet = ?"
# Made ready while no validator has taken the round: others may go first.
_EARLY = (
    "state IN ('watching', 'fetched')"
    f" AND json_extract(seen, '$.status') = '{RoundStatus.WAITING_VALIDATOR.value}'"
)
_FRESH = "not_before = 0, facts = json_remove(facts, '$.refused')"
_JOINABLE = (
    "json_extract(seen, '$.status') IN"
    f" ('{RoundStatus.WAITING_VALIDATOR.value}', '{RoundStatus.WAITING_TRAINERS.value}')"
)


class Journal:
    """Opened once per process and thread; every method is one transaction.

    Every method raises CorruptionError when the file is damaged, and DecloudError when it can't
    be used now: a full disk, another process's lock.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open or create the journal.

        Raises:
            CorruptionError: the file is not a journal, or damaged.
            DecloudError: it was written by a newer version, or can't be opened.
        """
        self._path = path
        self._clock = clock
        make_private_dir(path.parent)
        with self._translated():
            make_private_file(path)
            for name in (Path(f"{path}-wal"), Path(f"{path}-shm")):
                with contextlib.suppress(FileNotFoundError):
                    name.chmod(0o600)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._db.row_factory = sqlite3.Row
        try:
            with self._translated():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA foreign_keys = ON")
            self._create()
        except DecloudError:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    # Rounds

    def saw(
        self,
        key: RowKey,
        seen: Round,
        *,
        state: State = State.SEEN,
        reason: str = "",
        facts: Facts = NOTHING_KNOWN,
    ) -> bool:
        """Note a round as it is on chain now; True if that is news, and its step is due at once.

        A new row starts in `state` with `facts`."""
        snapshot = round_json(seen)
        now = self._clock()
        with self._transaction("saw"):
            found = self._find(key)
            if found is None:
                cursor = self._db.execute(
                    "INSERT INTO rounds (genesis, program, wallet, round_id, state, reason, facts,"
                    " seen, is_open, holds_slot, not_before, failures, created_at, updated_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?)",
                    (
                        *key_values(key),
                        state.value,
                        reason,
                        facts_json(facts),
                        snapshot,
                        not state.is_final,
                        takes_slot(state, facts),
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
        return entry_of(found) if found is not None else None

    def entries(self, scope: RowKey | None = None) -> list[Entry]:
        """All rows, or those that share the scope's genesis, program and wallet."""
        if scope is None:
            rows = self._read("SELECT * FROM rounds ORDER BY row")
        else:
            rows = self._read(
                f"SELECT * FROM rounds WHERE {_MINE} ORDER BY round_id",  # noqa: S608
                *key_values(scope)[:3],
            )
        return [entry_of(row) for row in rows]

    def due(self, scope: RowKey, now: float) -> list[Entry]:
        """Rows of the scope that aren't final and whose time has come, oldest first."""
        rows = self._read(
            f"SELECT * FROM rounds WHERE {_MINE}"  # noqa: S608
            " AND is_open AND not_before <= ? ORDER BY row",
            *key_values(scope)[:3],
            now,
        )
        return [entry_of(row) for row in rows]

    def next_time(self, scope: RowKey, besides: Collection[int] = ()) -> float | None:
        """The earliest `not_before` among open rows, besides the rows of those numbers."""
        rows = self._read(
            f"SELECT row, not_before FROM rounds WHERE {_MINE} AND is_open"  # noqa: S608
            " ORDER BY not_before LIMIT ?",
            *key_values(scope)[:3],
            len(besides) + 1,
        )
        return next((row["not_before"] for row in rows if row["row"] not in besides), None)

    def active_ids(self, scope: RowKey) -> set[int]:
        """Rounds that we take part in, or are about to."""
        rows = self._read(
            f"SELECT round_id FROM rounds WHERE {_MINE}"  # noqa: S608
            " AND is_open AND state NOT IN ('seen', 'skipped')",
            *key_values(scope)[:3],
        )
        return {read_id(row["round_id"]) for row in rows}

    def move(
        self, entry: Entry, state: State, reason: str, facts: Facts, *, until: float = 0.0
    ) -> Entry:
        """Put the row into a state; the event row says why.

        Its next step is due at once, or at `until`; a change of the round that came during the
        step isn't overslept. A slot that becomes free makes skipped rows due."""
        with self._transaction("move"):
            self._db.execute(
                "UPDATE rounds SET state = ?, reason = ?, facts = ?, is_open = ?,"
                " holds_slot = ?, not_before = ?, failures = 0, updated_at = ? WHERE row = ?",
                (
                    state.value,
                    reason,
                    facts_json(facts),
                    not state.is_final,
                    takes_slot(state, facts),
                    self._due_at(entry, until),
                    self._clock(),
                    entry.row,
                ),
            )
            if state is not entry.state or reason != entry.reason:
                self._event(entry.row, "state", entry.state.value, state.value, reason)
            self._offer_slot(entry, state, facts)
        return self._reread(entry)

    def wait(
        self, entry: Entry, reason: str, until: float, *, facts: Facts, failed: bool = False
    ) -> Entry:
        """Leave the row in its state until a time, or until the round changes.

        A change of the round that came during the step isn't overslept, except by the back-off
        of a step that failed."""
        with self._transaction("wait"):
            self._db.execute(
                "UPDATE rounds SET reason = ?, facts = ?, holds_slot = ?, not_before = ?,"
                " failures = ?, updated_at = ? WHERE row = ?",
                (
                    reason,
                    facts_json(facts),
                    takes_slot(entry.state, facts),
                    until if failed else self._due_at(entry, until),
                    entry.failures + 1 if failed else 0,
                    self._clock(),
                    entry.row,
                ),
            )
            if reason != entry.reason:
                kind = "problem" if failed else "wait"
                self._event(entry.row, kind, entry.state.value, entry.state.value, reason)
            self._offer_slot(entry, entry.state, facts)
        return self._reread(entry)

    def revise(self, entry: Entry, facts: Facts) -> Entry:
        """Replace the row's facts and make it due."""
        with self._transaction("revise"):
            self._db.execute(
                "UPDATE rounds SET facts = ?, holds_slot = ?, not_before = 0 WHERE row = ?",
                (facts_json(facts), takes_slot(entry.state, facts), entry.row),
            )
        return self._reread(entry)

    def reconsider(self, scope: RowKey) -> None:
        """Have skipped rounds that could still be joined decided anew: the settings, or what
        is on this machine, may have changed."""
        with self._transaction("reconsider"):
            self._db.execute(
                f"UPDATE rounds SET {_FRESH} WHERE {_MINE}"  # noqa: S608
                f" AND state = 'skipped' AND {_JOINABLE}",
                key_values(scope)[:3],
            )

    def catch_up(self, scope: RowKey) -> None:
        """Have every round that we are in looked at: much may have happened meanwhile."""
        with self._transaction("catch_up"):
            self._db.execute(
                f"UPDATE rounds SET not_before = 0 WHERE {_MINE}"  # noqa: S608
                " AND is_open AND state != 'skipped'",
                key_values(scope)[:3],
            )

    def slots_in_use(self, entry: Entry, *, with_early: bool) -> int:
        """How many rounds of the entry's scope hold a slot, besides its own.

        Args:
            with_early: count also rounds that only wait for a validator.
        """
        early = "" if with_early else f" AND NOT ({_EARLY})"
        (found,) = self._read(
            f"SELECT COUNT(*) AS number FROM rounds WHERE {_MINE}"  # noqa: S608
            f" AND is_open AND holds_slot AND row != ?{early}",
            *key_values(entry.key)[:3],
            entry.row,
        )
        return int(found["number"])

    def models_needed(self) -> set[str]:
        """CIDs of the models that rounds in work need, of whichever wallet and network."""
        rows = self._read(
            "SELECT DISTINCT json_extract(seen, '$.model_cid') AS cid FROM rounds"
            " WHERE is_open AND state IN ('watching', 'fetched', 'joined', 'trained')"
            " AND seen IS NOT NULL"
        )
        return {row["cid"] for row in rows if isinstance(row["cid"], str)}

    def events(self, entry: Entry) -> list[Event]:
        rows = self._read("SELECT * FROM events WHERE row = ? ORDER BY id", entry.row)
        return [event_of(row, entry.key.round_id) for row in rows]

    def problems(self, most: int) -> list[Event]:
        """The latest troubles of all rounds, newest first."""
        rows = self._read(
            "SELECT e.*, r.round_id FROM events e JOIN rounds r ON r.row = e.row"
            " WHERE e.kind = 'problem' OR e.to_state = 'failed' ORDER BY e.id DESC LIMIT ?",
            most,
        )
        return [event_of(row, read_id(row["round_id"])) for row in rows]

    # Intents

    def record_intent(self, entry: Entry, intent: Intent) -> None:
        """Durable when this returns; only then may the intent be sent.

        The same bytes may come again after they were refused unsent: signing is deterministic,
        and a blockhash is the newest one for some time."""
        action = intent.action
        with self._transaction("record_intent"):
            self._db.execute(
                "INSERT INTO intents VALUES"
                " (?, ?, ?, ?, ?, ?, ?, 'open', NULL, 0, 0, '', NULL, '')"
                " ON CONFLICT (signature) DO UPDATE SET state = 'open'"
                " WHERE state = 'rejected' AND slot IS NULL",
                (
                    intent.signature,
                    entry.row,
                    action.kind.value,
                    action.cid,
                    intent.raw,
                    intent.last_valid_height,
                    self._clock(),
                ),
            )
            text = f"{action.kind.value}: signed {intent.signature}"
            self._event(entry.row, "intent", entry.state.value, entry.state.value, text)

    def open_intent(self, entry: Entry, kind: ActionKind) -> Intent | None:
        rows = self._read(
            "SELECT * FROM intents WHERE row = ? AND kind = ? AND state = 'open'",
            entry.row,
            kind.value,
        )
        return intent_of(rows[0], entry.key.round_id) if rows else None

    def settle_intent(self, entry: Entry, intent: Intent, outcome: Outcome) -> None:
        with self._transaction("settle_intent"):
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
        rows = self._read(
            "SELECT i.*, r.round_id FROM intents i JOIN rounds r ON r.row = i.row"
            " WHERE ?1 IS NULL OR i.row = ?1 ORDER BY i.rowid",
            entry.row if entry else None,
        )
        return [sent_intent_of(row) for row in rows]

    def intents_by_row(self) -> dict[int, list[SentIntent]]:
        """Every intent under the row of its round, which alone tells rounds of the same number
        on other networks apart; oldest first."""
        found: dict[int, list[SentIntent]] = {}
        for row in self._read(
            "SELECT i.*, r.round_id FROM intents i JOIN rounds r ON r.row = i.row ORDER BY i.rowid"
        ):
            found.setdefault(row["row"], []).append(sent_intent_of(row))
        return found

    def spent(self, key: RowKey, since: float) -> list[Spent]:
        """What this wallet's transactions took out of it on this network: all for the round, and
        all since that time."""
        rows = self._read(
            "SELECT i.signature, i.kind, i.created_at, i.state, i.slot, i.change, r.round_id"  # noqa: S608
            " FROM intents i CROSS JOIN rounds r ON r.row = i.row"
            f" WHERE {_MINE}"
            " AND (i.created_at >= ? OR r.round_id = ?)",
            *key_values(key)[:3],
            since,
            key_values(key)[3],
        )
        return [spent_of(row) for row in rows]

    def latest_rounds(self, most: int) -> dict[int, str]:
        """Ids of the rounds that something happened to last, the latest first, with their
        state."""
        found: dict[int, str] = {}
        for row in self._read(
            "SELECT round_id, state FROM rounds ORDER BY updated_at DESC LIMIT ?", most
        ):
            found.setdefault(read_id(row["round_id"]), row["state"])
        return found

    # Requests

    def ask(self, kind: str, key: RowKey, args: dict[str, Any]) -> int:
        """Leave a request for the daemon that works for the key's network and wallet; its
        number."""
        with self._transaction("ask"):
            cursor = self._db.execute(
                "INSERT INTO requests (genesis, program, wallet, round_id, kind, args, state,"
                " answer, created_at) VALUES (?, ?, ?, ?, ?, ?, 'new', '', ?)",
                (*key_values(key), kind, json.dumps(args), self._clock()),
            )
        return int(cursor.lastrowid or 0)

    def new_requests(self) -> list[Request]:
        """Requests that nobody has answered, whoever they are for."""
        rows = self._read("SELECT * FROM requests WHERE state = 'new' ORDER BY id")
        return [request_of(row) for row in rows]

    def answer(self, request: int, text: str) -> None:
        """Mark a request as taken (empty text) or refused (why), unless it was withdrawn."""
        with self._transaction("answer"):
            self._db.execute(
                "UPDATE requests SET state = ?, answer = ? WHERE id = ? AND state = 'new'",
                ("refused" if text else "taken", text, request),
            )

    def withdraw(self, request: int) -> None:
        """Nobody waits for it any more: if no daemon has taken it yet, none will."""
        self.answer(request, "withdrawn: the command that asked has ended")

    def answer_of(self, request: int) -> tuple[str, str]:
        """(state, answer) of a request: new, taken or refused."""
        (row,) = self._read("SELECT state, answer FROM requests WHERE id = ?", request)
        return row["state"], row["answer"]

    # Marks

    def set_mark(self, name: str, value: Any) -> None:
        """Keep a JSON value under a name; None forgets it."""
        with self._transaction("set_mark"):
            if value is None:
                self._db.execute("DELETE FROM marks WHERE name = ?", (name,))
                return
            self._db.execute(
                "INSERT INTO marks VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (name, json.dumps(value)),
            )

    def mark(self, name: str) -> Any:
        """The value under that name, or None."""
        rows = self._read("SELECT value FROM marks WHERE name = ?", name)
        return json.loads(rows[0]["value"]) if rows else None

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """What a reading query of this room's own modules finds, such as those of `figures`."""
        return self._read(query, *values)

    def change(self, name: str, query: str, *values: Any) -> None:
        """One write of this room's own modules, durable when this returns.

        Args:
            name: of its fault points.
        """
        with self._transaction(name):
            self._db.execute(query, values)

    def check(self) -> None:
        """Have SQLite look at every page, and read all that a daemon may ever read, row by row:
        years of rounds don't fit into memory. CorruptionError for what is damaged."""
        (found,) = self._read("PRAGMA quick_check(1)")
        if found[0] != "ok":
            raise CorruptionError(
                f"the journal {self._path} is damaged: {found[0]}", hint=AT_NEXT_START
            )
        with self._translated():
            for row in self._db.execute("SELECT * FROM rounds"):
                entry_of(row)
            for row in self._db.execute(
                "SELECT i.*, r.round_id FROM intents i JOIN rounds r ON r.row = i.row"
            ):
                sent_intent_of(row)
        self.new_requests()

    # Internals

    def _create(self) -> None:
        with self._transaction("create"):
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in SCHEMA.split(";\n"):
                    if statement.strip():
                        self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version < SCHEMA_VERSION:
                for step in MIGRATIONS[version - 1 :]:
                    for statement in step.split(";\n"):
                        if statement.strip():
                            self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version > SCHEMA_VERSION:
                raise DecloudError(
                    f"the journal {self._path} was written by a newer version",
                    hint="upgrade decloud-trainer, or set DECLOUD_HOME to another folder",
                )

    @contextlib.contextmanager
    def _transaction(self, name: str) -> Iterator[None]:
        with self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                reach(f"journal.{name}.writing")
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # after a commit that failed, too: a full disk
                    self._db.execute("ROLLBACK")
                raise
            reach(f"journal.{name}.written")

    def _read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._translated():
            return self._db.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where SQLite's errors become ours."""
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
            raise  # a mistake of ours: not the file's fault
        except (sqlite3.OperationalError, OSError) as error:
            raise StorageError(
                f"can't use the journal {self._path}: {error}",
                hint="check the disk's free space and the file's owner",
            ) from error
        except sqlite3.DatabaseError as error:
            raise CorruptionError(
                f"the journal {self._path} can't be read: {error}",
                hint=AT_NEXT_START,
            ) from error

    def _find(self, key: RowKey) -> sqlite3.Row | None:
        rows = self._read(
            f"SELECT * FROM rounds WHERE {_MINE} AND round_id = ?",  # noqa: S608
            *key_values(key),
        )
        return rows[0] if rows else None

    def _due_at(self, entry: Entry, until: float) -> float:
        """`until`, or now if the round is no longer as the step found it when it began."""
        (row,) = self._db.execute("SELECT seen FROM rounds WHERE row = ?", (entry.row,))
        known = None if entry.round is None else round_json(entry.round)
        return until if known in (None, row["seen"]) else 0.0

    def _offer_slot(self, before: Entry, state: State, facts: Facts) -> None:
        """If the row has given up a slot: the skipped rounds that may want it are due."""
        if takes_slot(before.state, before.facts) and not takes_slot(state, facts):
            self._db.execute(
                f"UPDATE rounds SET not_before = 0 WHERE {_MINE}"  # noqa: S608
                " AND state = 'skipped' AND not_before < ? AND row != ?",
                (*key_values(before.key)[:3], self._clock() + OFFER_WITHIN_S, before.row),
            )

    def _reread(self, entry: Entry) -> Entry:
        (row,) = self._read("SELECT * FROM rounds WHERE row = ?", entry.row)
        return entry_of(row)

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
