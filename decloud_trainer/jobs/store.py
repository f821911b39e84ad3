"""Jobs in SQLite: each change of state is one durable transaction with an event row."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from decloud_trainer.errors import AlreadyRunning, CorruptionError, DecloudError, StorageError
from decloud_trainer.faultpoints import reach
from decloud_trainer.files import make_private_dir, make_private_file, set_aside
from decloud_trainer.jobs.model import (
    TRANSITIONS,
    ChildId,
    Job,
    JobEvent,
    JobState,
    Wish,
    check_job_id,
)
from decloud_trainer.jobs.rows import dumped, event_of, job_of, outcome

log = logging.getLogger(__name__)

SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    spec TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    kill_after REAL,
    wish TEXT NOT NULL DEFAULT '',
    lease_owner TEXT NOT NULL DEFAULT '',
    lease_until REAL NOT NULL DEFAULT 0,
    child_pid INTEGER,
    child_started TEXT,
    progress TEXT,
    result TEXT,
    error TEXT
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs (id),
    at REAL NOT NULL,
    before TEXT,
    after TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    note TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_job ON events (job_id, seq);
"""
# From each version to the next.
_MIGRATIONS = {1: "ALTER TABLE jobs ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0"}


class JobStore:
    """The jobs of one home. Open, use and close it on one thread.

    Every method is one transaction, and raises CorruptionError for a damaged file and
    DecloudError for one that can't be used. Rows are never deleted.

    Args:
        path: the database file; created with mode 0600.
        jobs_dir: holds one folder per job, named by its id.
    """

    def __init__(self, path: Path, jobs_dir: Path) -> None:
        self.path = path
        self.jobs_dir = jobs_dir
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        make_private_dir(self.path.parent)
        with self._translated():
            make_private_file(self.path)
            # isolation_level=None: transactions are ours alone, begun in _transaction.
            self._connection = sqlite3.connect(self.path, timeout=10, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            # In KiB: a daemon's memory is not to grow with the jobs of years.
            self._connection.execute("PRAGMA cache_size = -512")
        try:
            self._check_schema()
        except DecloudError:
            self.close()
            raise

    def mend(self, at: float) -> str:
        """Set a damaged file aside, so that jobs begin anew; what was done, empty if nothing.

        The caller holds the home's lock, and opens the store after this.

        Raises:
            DecloudError: it was written by a newer version, or can't be used now.
        """
        if not self.path.exists():
            return ""
        try:
            self.open()
            try:
                self._check()
            finally:
                self.close()
        except CorruptionError as damage:
            kept = set_aside(self.path, at)
            text = (
                f"the list of jobs was damaged ({damage}) and is kept as {kept}. Trainings under "
                "way go again, from their checkpoints. Not rebuilt: how often they had failed"
            )
            log.warning("%s", text)
            return text
        return ""

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def submit(
        self, job_id: str, kind: str, spec: Mapping[str, Any], kill_after: float | None, at: float
    ) -> Job:
        """Insert the job unless its id is known; the job as it stands."""
        check_job_id(job_id)
        spec_text = dumped(spec)
        with self._transaction("submit") as db:
            if db.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone() is None:
                db.execute(
                    "INSERT INTO jobs (id, kind, spec, state, kill_after) VALUES (?, ?, ?, ?, ?)",
                    (job_id, kind, spec_text, JobState.QUEUED.value, kill_after),
                )
                self._record(db, job_id, at, None, JobState.QUEUED, 0, "submitted")
            return self._read(db, job_id)

    def get(self, job_id: str) -> Job | None:
        with self._reading() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
            return None if row is None else self._job(row)

    def running(self, prefix: str) -> list[Job]:
        """Jobs at work whose ids begin with `prefix` and a dash, for display."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE state = ? AND substr(id, 1, ?) = ? ORDER BY rowid",
                (JobState.RUNNING.value, len(prefix) + 1, f"{prefix}-"),
            ).fetchall()
            return [self._job(row) for row in rows]

    def of(self, prefix: str) -> list[Job]:
        """All jobs whose ids begin with `prefix` and a dash, the oldest first."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE substr(id, 1, ?) = ? ORDER BY rowid",
                (len(prefix) + 1, f"{prefix}-"),
            ).fetchall()
            return [self._job(row) for row in rows]

    def take_over(self, owner: str, at: float) -> list[Job]:
        """Queue every RUNNING job again, whoever held it, and list all that aren't final.

        What was cut off was no failed attempt of the job: it counts as a death of the program.
        The caller holds the home's single-instance lock, so no other supervisor can be alive;
        what remains of the old one's children stands in `Job.child`.
        """
        with self._transaction("take_over") as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE state = ?", (JobState.RUNNING.value,)
            ).fetchall()
            for row in rows:
                note = f"taken over by {owner}: its supervisor {row['lease_owner']} is gone"
                self._move(db, row["id"], JobState.QUEUED, at, note, lease_owner="", lease_until=0)
                db.execute(
                    "UPDATE jobs SET attempts = attempts - 1, deaths = deaths + 1 WHERE id = ?",
                    (row["id"],),
                )
            open_states = [state.value for state in JobState if not state.is_final]
            rows = db.execute(
                "SELECT * FROM jobs WHERE state IN (?, ?) ORDER BY rowid", open_states
            ).fetchall()
            return [self._job(row) for row in rows]

    def start(self, job_id: str, owner: str, lease_until: float, at: float) -> Job:
        """QUEUED -> RUNNING under a lease; one attempt more."""
        with self._transaction("start") as db:
            db.execute("UPDATE jobs SET attempts = attempts + 1 WHERE id = ?", (job_id,))
            changes = {"lease_owner": owner, "lease_until": lease_until, "progress": None}
            self._move(db, job_id, JobState.RUNNING, at, "started", **changes)
            return self._read(db, job_id)

    def keep_child(self, job_id: str, owner: str, child: ChildId) -> None:
        """Record the child before it gets to know its work."""
        with self._transaction("keep_child") as db:
            self._check_owner(db, job_id, owner)
            db.execute(
                "UPDATE jobs SET child_pid = ?, child_started = ? WHERE id = ?",
                (child.pid, child.started, job_id),
            )

    def renew(
        self, job_id: str, owner: str, lease_until: float, progress: Mapping[str, Any] | None
    ) -> None:
        """Renew the lease and keep the progress."""
        with self._transaction("renew") as db:
            self._check_owner(db, job_id, owner)
            db.execute(
                "UPDATE jobs SET lease_until = ?, progress = ? WHERE id = ?",
                (lease_until, dumped(progress), job_id),
            )

    def keep_wish(self, job_id: str, wish: Wish) -> None:
        with self._transaction("keep_wish") as db:
            db.execute("UPDATE jobs SET wish = ? WHERE id = ?", (wish.value, job_id))

    def requeue(
        self,
        job: Job,
        owner: str,
        at: float,
        note: str,
        *,
        not_before: float = 0.0,
        counted: bool = True,
    ) -> Job:
        """RUNNING -> QUEUED; the job's progress and error are kept as given in `job`."""
        with self._transaction("requeue") as db:
            self._check_owner(db, job.id, owner)
            if not counted:
                db.execute("UPDATE jobs SET attempts = attempts - 1 WHERE id = ?", (job.id,))
            changes = {"lease_owner": "", "lease_until": 0, "not_before": not_before}
            self._move(db, job.id, JobState.QUEUED, at, note, **changes, **outcome(job))
            return self._read(db, job.id)

    def finish(self, job: Job, owner: str, at: float, note: str) -> Job:
        """To the final state of `job`, with its progress, result and error."""
        with self._transaction("finish") as db:
            if self._read(db, job.id).state is JobState.RUNNING:
                self._check_owner(db, job.id, owner)
            changes = {"lease_owner": "", "lease_until": 0, "result": dumped(job.result)}
            self._move(db, job.id, job.state, at, note, **changes, **outcome(job))
            return self._read(db, job.id)

    def events(self, job_id: str) -> list[JobEvent]:
        """The job's changes of state, oldest first."""
        with self._reading() as db:
            rows = db.execute("SELECT * FROM events WHERE job_id = ? ORDER BY seq", (job_id,))
            return [self._event(row) for row in rows]

    def _check(self) -> None:
        """Read all that may ever be read; CorruptionError if something can't be."""
        with self._reading() as db:
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise self._damaged(found)
            for row in db.execute("SELECT * FROM jobs"):
                self._job(row)

    def _check_schema(self) -> None:
        with self._transaction("create") as db:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > SCHEMA_VERSION:
                raise DecloudError(
                    f"{self.path} was written by a newer decloud-trainer "
                    f"(schema {version}, this one knows {SCHEMA_VERSION})",
                    hint="update decloud-trainer",
                )
            statements = _SCHEMA.split(";") if version == 0 else []
            if version > 0:
                statements = [_MIGRATIONS[step] for step in range(version, SCHEMA_VERSION)]
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _transaction(self, name: str) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                reach(f"jobs.{name}.writing")
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # after a commit that failed, too: a full disk
                    db.execute("ROLLBACK")
                raise
            reach(f"jobs.{name}.written")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self._connection is None:
            raise DecloudError(f"{self.path} is not open")
        with self._translated():
            yield self._connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where SQLite's errors become ours."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a mistake of ours, such as a second thread: not the file's fault
        except (sqlite3.OperationalError, OSError) as error:
            raise StorageError(
                f"can't use {self.path}: {error}",
                hint="check the disk's free space and the file's owner",
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception | str) -> CorruptionError:
        return CorruptionError(
            f"{self.path} is damaged: {error}",
            hint="`decloud-trainer start` sets it aside; jobs under way go again",
        )

    def _move(
        self,
        db: sqlite3.Connection,
        job_id: str,
        after: JobState,
        at: float,
        note: str,
        **changes: object,
    ) -> None:
        job = self._read(db, job_id)
        if after not in TRANSITIONS[job.state]:
            raise DecloudError(f"job {job_id} is {job.state.value}, it can't be {after.value}")
        columns = {"state": after.value, **changes}
        assignments = ", ".join(f"{name} = ?" for name in columns)
        # The names are literals of this file, the values are bound.
        statement = f"UPDATE jobs SET {assignments} WHERE id = ?"  # noqa: S608
        db.execute(statement, (*columns.values(), job_id))
        self._record(db, job_id, at, job.state, after, job.attempts, note)

    def _record(
        self,
        db: sqlite3.Connection,
        job_id: str,
        at: float,
        before: JobState | None,
        after: JobState,
        attempts: int,
        note: str,
    ) -> None:
        db.execute(
            "INSERT INTO events (job_id, at, before, after, attempts, note)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (job_id, at, before.value if before else None, after.value, attempts, note),
        )

    def _check_owner(self, db: sqlite3.Connection, job_id: str, owner: str) -> None:
        row = db.execute("SELECT lease_owner FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None or row["lease_owner"] != owner:
            raise AlreadyRunning(
                f"job {job_id} was taken over by another supervisor",
                hint="run one decloud-trainer per home",
            )

    def _read(self, db: sqlite3.Connection, job_id: str) -> Job:
        row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise DecloudError(f"there is no job {job_id}")
        return self._job(row)

    def _event(self, row: sqlite3.Row) -> JobEvent:
        try:
            return event_of(row)
        except (ValueError, TypeError) as error:
            raise self._damaged(error) from error

    def _job(self, row: sqlite3.Row) -> Job:
        try:
            return job_of(row, self.jobs_dir)
        except (ValueError, TypeError) as error:
            raise self._damaged(error) from error
