"""The journal: what we did for each round, durable, on SQLite.

A row is known by (genesis hash, program, round id, wallet). Rows change state and never vanish;
every transition is an event row. A signed transaction is here before it is sent. Another process
may read at any time, and leaves requests and marks; everything else has one writer.

A `Journal` belongs to the thread that opened it. `JournalThread` gives async code one. What else
the file holds is read and written by functions of a journal: signed transactions in `intents` and
`transfers`, the rest in `asking` and `marks`; `figures` looks back.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Collection, Generator, Iterator
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
    RowKey,
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
    key_values,
    read_id,
    round_json,
)
from decloud_trainer.rounds.model import Round, RoundStatus

# A free slot is offered to skipped rounds that would be decided again so soon anyway: not to
# those that are refused for good, or that let others go first after a failure.
OFFER_WITHIN_S = 60.0

# As `State.is_in_work`.
IN_WORK = "is_open AND state NOT IN ('seen', 'skipped')"
MINE = "genesis = ? AND program = ? AND wallet = ?"
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
        self.clock = clock
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
                # In KiB: a daemon's memory is not to grow with the years in its journal.
                self._db.execute("PRAGMA cache_size = -512")
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
        now = self.clock()
        with self.transaction("saw"):
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
                self.add_event(int(cursor.lastrowid or 0), "state", None, state, reason)
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
            rows = self.rows("SELECT * FROM rounds ORDER BY row")
        else:
            rows = self.rows(
                f"SELECT * FROM rounds WHERE {MINE} ORDER BY round_id",  # noqa: S608
                *key_values(scope)[:3],
            )
        return [entry_of(row) for row in rows]

    def due(self, scope: RowKey, now: float) -> list[Entry]:
        """Rows of the scope that aren't final and whose time has come, oldest first."""
        rows = self.rows(
            f"SELECT * FROM rounds WHERE {MINE}"  # noqa: S608
            " AND is_open AND not_before <= ? ORDER BY row",
            *key_values(scope)[:3],
            now,
        )
        return [entry_of(row) for row in rows]

    def next_time(self, scope: RowKey, besides: Collection[int] = ()) -> float | None:
        """The earliest `not_before` among open rows, besides the rows of those numbers."""
        rows = self.rows(
            f"SELECT row, not_before FROM rounds WHERE {MINE} AND is_open"  # noqa: S608
            " ORDER BY not_before LIMIT ?",
            *key_values(scope)[:3],
            len(besides) + 1,
        )
        return next((row["not_before"] for row in rows if row["row"] not in besides), None)

    def active_ids(self, scope: RowKey) -> set[int]:
        """Rounds that we take part in, or are about to."""
        rows = self.rows(
            f"SELECT round_id FROM rounds WHERE {MINE} AND {IN_WORK}",  # noqa: S608
            *key_values(scope)[:3],
        )
        return {read_id(row["round_id"]) for row in rows}

    def move(
        self, entry: Entry, state: State, reason: str, facts: Facts, *, until: float = 0.0
    ) -> Entry:
        """Put the row into a state; the event row says why.

        Its next step is due at once, or at `until`; a change of the round that came during the
        step isn't overslept. A slot that becomes free makes skipped rows due."""
        with self.transaction("move"):
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
                    self.clock(),
                    entry.row,
                ),
            )
            if state is not entry.state or reason != entry.reason:
                self.add_event(entry.row, "state", entry.state, state, reason)
            self._offer_slot(entry, state, facts)
        return self._reread(entry)

    def wait(
        self, entry: Entry, reason: str, until: float, *, facts: Facts, failed: bool = False
    ) -> Entry:
        """Leave the row in its state until a time, or until the round changes.

        A change of the round that came during the step isn't overslept, except by the back-off
        of a step that failed."""
        with self.transaction("wait"):
            self._db.execute(
                "UPDATE rounds SET reason = ?, facts = ?, holds_slot = ?, not_before = ?,"
                " failures = ?, updated_at = ? WHERE row = ?",
                (
                    reason,
                    facts_json(facts),
                    takes_slot(entry.state, facts),
                    until if failed else self._due_at(entry, until),
                    entry.failures + 1 if failed else 0,
                    self.clock(),
                    entry.row,
                ),
            )
            if reason != entry.reason:
                kind = "problem" if failed else "wait"
                self.add_event(entry.row, kind, entry.state, entry.state, reason)
            self._offer_slot(entry, entry.state, facts)
        return self._reread(entry)

    def revise(self, entry: Entry, facts: Facts) -> Entry:
        """Replace the row's facts and make it due."""
        self.change(
            "revise",
            "UPDATE rounds SET facts = ?, holds_slot = ?, not_before = 0 WHERE row = ?",
            facts_json(facts),
            takes_slot(entry.state, facts),
            entry.row,
        )
        return self._reread(entry)

    def reconsider(self, scope: RowKey) -> None:
        """Have skipped rounds that could still be joined decided anew: the settings, or what
        is on this machine, may have changed."""
        self.change(
            "reconsider",
            f"UPDATE rounds SET {_FRESH} WHERE {MINE}"  # noqa: S608
            f" AND state = 'skipped' AND {_JOINABLE}",
            *key_values(scope)[:3],
        )

    def catch_up(self, scope: RowKey) -> None:
        """Have every round that we are in looked at: much may have happened meanwhile."""
        self.change(
            "catch_up",
            f"UPDATE rounds SET not_before = 0 WHERE {MINE}"  # noqa: S608
            " AND is_open AND state != 'skipped'",
            *key_values(scope)[:3],
        )

    def slots_in_use(self, key: RowKey, *, with_early: bool) -> int:
        """How many rounds of the key's scope hold a slot, besides its own.

        Args:
            with_early: count also rounds that only wait for a validator.
        """
        early = "" if with_early else f" AND NOT ({_EARLY})"
        (found,) = self.rows(
            f"SELECT COUNT(*) AS number FROM rounds WHERE {MINE}"  # noqa: S608
            f" AND is_open AND holds_slot AND round_id != ?{early}",
            *key_values(key),
        )
        return int(found["number"])

    def events(self, entry: Entry) -> list[Event]:
        rows = self.rows("SELECT * FROM events WHERE row = ? ORDER BY id", entry.row)
        return [event_of(row, entry.key.round_id) for row in rows]

    # For this room's other modules

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """What a reading query finds."""
        with self._translated():
            return self._db.execute(query, values).fetchall()

    def each(self, query: str) -> Generator[sqlite3.Row, None, None]:
        """What a reading query finds, row by row: years of rounds don't fit into memory."""
        with self._translated(), contextlib.closing(self._db.execute(query)) as found:
            yield from found

    def change(self, name: str, query: str, *values: Any) -> None:
        """One write that is a transaction of its own.

        Args:
            name: of its fault points.
        """
        with self.transaction(name) as db:
            db.execute(query, values)

    @contextlib.contextmanager
    def transaction(self, name: str) -> Iterator[sqlite3.Connection]:
        """All that is written in the block, or nothing; durable when the block is left.

        Args:
            name: of its fault points.
        """
        with self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                reach(f"journal.{name}.writing")
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # after a commit that failed, too: a full disk
                    self._db.execute("ROLLBACK")
                raise
            reach(f"journal.{name}.written")

    def add_event(self, row: int, kind: str, before: State | None, after: State, text: str) -> None:
        """What happened with a row, within the transaction that did it.

        Args:
            before: None for a row that is new.
        """
        self._db.execute(
            "INSERT INTO events (row, at, kind, from_state, to_state, text)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (row, self.clock(), kind, before.value if before else "", after.value, text),
        )

    def check(self) -> None:
        """Have SQLite look at every page; CorruptionError if one is damaged."""
        (found,) = self.rows("PRAGMA quick_check(1)")
        if found[0] != "ok":
            raise CorruptionError(
                f"the journal {self._path} is damaged: {found[0]}", hint=AT_NEXT_START
            )

    # Internals

    def _create(self) -> None:
        with self.transaction("create"):
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise DecloudError(
                    f"the journal {self._path} was written by a newer version",
                    hint="upgrade decloud-trainer, or set DECLOUD_HOME to another folder",
                )
            if version < SCHEMA_VERSION:
                script = "".join(MIGRATIONS[version - 1 :]) if version else SCHEMA
                for statement in filter(str.strip, script.split(";\n")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where SQLite's errors become ours."""
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
            raise  # a mistake of ours: not the file's fault
        except (sqlite3.OperationalError, OSError) as error:
            if isinstance(error, sqlite3.Error) and not hasattr(error, "sqlite_errorcode"):
                # Not SQLite's: Python couldn't read the bytes of a text.
                raise self._unreadable(error) from error
            raise StorageError(
                f"can't use the journal {self._path}: {error}",
                hint="check the disk's free space and the file's owner",
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> CorruptionError:
        return CorruptionError(
            f"the journal {self._path} can't be read: {error}", hint=AT_NEXT_START
        )

    def _find(self, key: RowKey) -> sqlite3.Row | None:
        rows = self.rows(
            f"SELECT * FROM rounds WHERE {MINE} AND round_id = ?",  # noqa: S608
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
                f"UPDATE rounds SET not_before = 0 WHERE {MINE}"  # noqa: S608
                " AND state = 'skipped' AND not_before < ? AND row != ?",
                (*key_values(before.key)[:3], self.clock() + OFFER_WITHIN_S, before.row),
            )

    def _reread(self, entry: Entry) -> Entry:
        (row,) = self.rows("SELECT * FROM rounds WHERE row = ?", entry.row)
        return entry_of(row)


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
