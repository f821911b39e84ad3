"""The jobs' database."""

from __future__ import annotations

import dataclasses
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from decloud_trainer.errors import AlreadyRunning, CorruptionError, DecloudError
from decloud_trainer.jobs.model import ChildId, JobError, JobState, Wish
from decloud_trainer.jobs.store import SCHEMA_VERSION, JobStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "jobs.sqlite3", tmp_path / "jobs")
    store.open()
    yield store
    store.close()


def reopened(store: JobStore) -> JobStore:
    store.close()
    store.open()
    return store


def test_a_job_survives_with_all_it_holds(store: JobStore, tmp_path: Path) -> None:
    """What was submitted and told is read back equal after closing and opening."""
    spec = {"model": {"path": "/m.pt"}, "epochs": 2, "deadline": None, "name": "ä\ud800"}
    store.submit("a", "train", spec, 99.5, at=1.0)
    store.start("a", "me", lease_until=61.0, at=2.0)
    store.keep_child("a", "me", ChildId(4711, "boot 12"))
    store.renew("a", "me", 71.0, {"epoch": 1, "loss": 0.5})
    store.keep_wish("a", Wish.STOP)
    job = reopened(store).get("a")
    assert job is not None
    assert (job.kind, dict(job.spec), job.kill_after) == ("train", spec, 99.5)
    assert (job.state, job.attempts, job.lease_until) == (JobState.RUNNING, 1, 71.0)
    assert (job.progress, job.wish) == ({"epoch": 1, "loss": 0.5}, Wish.STOP)
    assert (job.child, job.folder) == (ChildId(4711, "boot 12"), tmp_path / "jobs" / "a")


def test_submitting_again_changes_nothing(store: JobStore) -> None:
    """The first spec of an id stays, in whatever state the job is."""
    first = store.submit("a", "train", {"epochs": 1}, None, at=1.0)
    again = store.submit("a", "inspect", {"epochs": 9}, 5.0, at=2.0)
    assert again == first
    assert len(store.events("a")) == 1


def test_every_change_of_state_stays_on_record(store: JobStore) -> None:
    """The events tell a job's whole life, with reasons."""
    store.submit("a", "train", {}, None, at=1.0)
    job = store.start("a", "me", 61.0, at=2.0)
    job = dataclasses.replace(job, error=JobError("JobFailed", "it hung"))
    store.requeue(job, "me", 3.0, "it hung", not_before=5.0)
    job = store.start("a", "me", 61.0, at=5.0)
    job = dataclasses.replace(job, state=JobState.DONE, result={"bytes": 3}, error=None)
    done = store.finish(job, "me", 6.0, "done")
    assert (done.state, done.result, done.error, done.attempts) == (
        JobState.DONE,
        {"bytes": 3},
        None,
        2,
    )
    told = [(e.at, e.before, e.after, e.attempts, e.note) for e in store.events("a")]
    queued, running = JobState.QUEUED, JobState.RUNNING
    assert told == [
        (1.0, None, queued, 0, "submitted"),
        (2.0, queued, running, 1, "started"),
        (3.0, running, queued, 1, "it hung"),
        (5.0, queued, running, 2, "started"),
        (6.0, running, JobState.DONE, 2, "done"),
    ]


def test_a_final_job_can_not_move(store: JobStore) -> None:
    """Final is final; the refused change leaves no trace."""
    job = store.submit("a", "train", {}, None, at=1.0)
    store.finish(dataclasses.replace(job, state=JobState.CANCELLED), "me", 2.0, "cancelled")
    before = store.get("a")
    with pytest.raises(DecloudError, match="is cancelled, it can't be running"):
        store.start("a", "me", 61.0, at=3.0)
    assert store.get("a") == before
    assert len(store.events("a")) == 2


def test_an_interrupted_attempt_is_not_counted(store: JobStore) -> None:
    """A job that was sent back by a clean shutdown has all its attempts left."""
    store.submit("a", "train", {}, None, at=1.0)
    job = store.start("a", "me", 61.0, at=2.0)
    assert store.requeue(job, "me", 3.0, "stopped", counted=False).attempts == 0


def test_who_lost_the_lease_can_not_write(store: JobStore) -> None:
    """After another supervisor has taken over, the old one's words are refused."""
    store.submit("a", "train", {}, None, at=1.0)
    job = store.start("a", "old", 61.0, at=2.0)
    assert [j.state for j in store.take_over("new", at=3.0)] == [JobState.QUEUED]
    store.start("a", "new", 63.0, at=3.0)
    done = dataclasses.replace(job, state=JobState.DONE, result={})
    with pytest.raises(AlreadyRunning, match="taken over"):
        store.finish(done, "old", 4.0, "done")
    with pytest.raises(AlreadyRunning, match="taken over"):
        store.renew("a", "old", 99.0, None)
    kept = store.get("a")
    assert kept is not None
    assert (kept.state, kept.lease_until) == (JobState.RUNNING, 63.0)


def test_taking_over_lists_what_has_not_ended(store: JobStore) -> None:
    """Queued and running jobs come in the order of their submission, ended ones don't."""
    for name in ("z", "b", "a"):
        store.submit(name, "train", {}, None, at=1.0)
    store.start("z", "old", 61.0, at=2.0)
    ended = store.start("b", "old", 61.0, at=2.0)
    store.finish(dataclasses.replace(ended, state=JobState.FAILED), "old", 3.0, "failed")
    assert [(job.id, job.attempts, job.deaths) for job in store.take_over("new", at=4.0)] == [
        ("z", 0, 1),
        ("a", 0, 0),
    ]


def test_the_database_is_private(store: JobStore) -> None:
    """Nobody else can read the database or its companions."""
    store.submit("a", "train", {}, None, at=1.0)
    files = list(store.path.parent.glob("jobs.sqlite3*"))
    assert len(files) >= 2  # the write-ahead log is among them
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    """A database of a later version is left alone, and the user told to update."""
    path = tmp_path / "jobs.sqlite3"
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(DecloudError, match="newer") as caught:
        JobStore(path, tmp_path).open()
    assert caught.value.hint == "update decloud-trainer"


def test_a_file_that_is_no_database_is_called_damaged(tmp_path: Path) -> None:
    """Garbage in place of the database is our corruption error, exit code 4."""
    path = tmp_path / "jobs.sqlite3"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(CorruptionError, match="is damaged"):
        JobStore(path, tmp_path).open()


@pytest.mark.parametrize("column", ["state", "spec", "error", "wish"])
def test_a_damaged_row_is_called_damaged(store: JobStore, column: str) -> None:
    """A value that we never wrote is an error, not a guess."""
    store.submit("a", "train", {}, None, at=1.0)
    with sqlite3.connect(store.path) as db:
        db.execute(f"UPDATE jobs SET {column} = '\"x'")
    db.close()
    with pytest.raises(CorruptionError, match="is damaged"):
        store.get("a")


def test_a_store_belongs_to_one_thread(store: JobStore) -> None:
    """Use from a second thread is caught at once."""
    caught: list[BaseException] = []

    def use() -> None:
        try:
            store.get("a")
        except sqlite3.ProgrammingError as error:
            caught.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(caught) == 1
