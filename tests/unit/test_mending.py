"""Damaged databases of a home are set aside, older ones migrated, newer ones left alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from roundvalues import a_round

from decloud_trainer.errors import DecloudError
from decloud_trainer.jobs.store import JobStore
from decloud_trainer.rounds import marks, transfers
from decloud_trainer.rounds.entry import RowKey
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.mending import mend

KEY = RowKey("genesis", "program", "wallet", 7)


def filled(path: Path) -> Path:
    journal = Journal(path)
    for number in range(200):
        journal.saw(RowKey("genesis", "program", "wallet", number), a_round(id=number))
    journal.close()
    return path


def no_database(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 1000)


def torn_pages(path: Path) -> None:
    """The pages in the middle are those of another file, the first one is whole."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 8192] = b"\xa5" * 8192
    path.write_bytes(data)


def wrong_values(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE rounds SET state = 'nonsense' WHERE round_id = 7")
    db.close()


def no_text(path: Path) -> None:
    """Bytes of a reason that no text has."""
    with sqlite3.connect(path) as db:
        db.execute("UPDATE rounds SET reason = CAST(x'ff' AS TEXT) WHERE round_id = 7")
    db.close()


def wrong_mark(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO marks VALUES ('session', '{torn')")
    db.close()


def wrong_transfer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(
            "INSERT INTO transfers VALUES"
            " ('s', 'g', 'p', 'w', 'a', 1, x'', 1, 1.0, 'nonsense', NULL, 0, 0, '', NULL, '')"
        )
    db.close()


@pytest.mark.parametrize(
    "damage", [no_database, torn_pages, wrong_values, no_text, wrong_mark, wrong_transfer]
)
def test_a_damaged_journal_is_set_aside_and_named(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The file is kept, a new journal takes its place, and the text names what is lost."""
    path = filled(tmp_path / "journal.sqlite")
    damage(path)
    before = path.read_bytes()
    text = mend(path, lambda: 1_000_000.0)
    (kept,) = tmp_path.glob("journal.damaged-*.sqlite")
    assert kept.read_bytes() == before
    assert str(kept) in text
    assert "Not rebuilt: why rounds were skipped" in text
    assert text in caplog.text
    journal = Journal(path)
    assert journal.entries() == []
    assert marks.mark(journal, marks.REBUILT) == {"at": 1_000_000.0, "kept_as": kept.name}
    journal.close()


def test_a_sound_journal_is_left_alone(tmp_path: Path) -> None:
    """Nothing is said and nothing is moved; a journal that isn't there yet is no damage."""
    assert mend(tmp_path / "none.sqlite", lambda: 0.0) == ""
    path = filled(tmp_path / "journal.sqlite")
    assert mend(path, lambda: 0.0) == ""
    journal = Journal(path)
    assert len(journal.entries()) == 200
    journal.close()


def test_what_a_newer_version_wrote_is_refused_and_not_moved(tmp_path: Path) -> None:
    """An older program doesn't touch it; the message says what to do."""
    path = filled(tmp_path / "journal.sqlite")
    jobs = JobStore(tmp_path / "jobs.sqlite", tmp_path / "jobs")
    jobs.open()
    jobs.close()
    for name in ("journal.sqlite", "jobs.sqlite"):
        with sqlite3.connect(tmp_path / name) as db:
            db.execute("PRAGMA user_version = 999")
        db.close()
    with pytest.raises(DecloudError, match="written by a newer"):
        mend(path, lambda: 0.0)
    with pytest.raises(DecloudError, match="written by a newer"):
        jobs.mend(0.0)
    assert not list(tmp_path.glob("*damaged*"))


def test_damaged_jobs_are_set_aside(tmp_path: Path) -> None:
    """A new list takes the place; the jobs' folders, with their checkpoints, stay."""
    jobs = JobStore(tmp_path / "jobs.sqlite", tmp_path / "jobs")
    jobs.open()
    jobs.submit("a", "train", {}, None, at=1.0)
    jobs.close()
    (tmp_path / "jobs" / "a").mkdir(parents=True)
    no_database(tmp_path / "jobs.sqlite")
    assert "Trainings under way go again, from their checkpoints" in jobs.mend(1_000_000.0)
    jobs.open()
    assert jobs.get("a") is None
    jobs.close()
    assert (tmp_path / "jobs" / "a").is_dir()
    assert len(list(tmp_path.glob("jobs.damaged-*.sqlite"))) == 1


def test_jobs_of_an_older_version_are_migrated(tmp_path: Path) -> None:
    """A job that the first version wrote is there with all that it had."""
    jobs = JobStore(tmp_path / "jobs.sqlite", tmp_path / "jobs")
    jobs.open()
    jobs.submit("a", "train", {"seed": 1}, None, at=1.0)
    jobs.close()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as db:
        db.execute("ALTER TABLE jobs DROP COLUMN deaths")
        db.execute("PRAGMA user_version = 1")
    db.close()
    jobs.open()
    job = jobs.get("a")
    assert job is not None
    assert (job.spec, job.deaths) == ({"seed": 1}, 0)
    jobs.start("a", "old", 61.0, at=2.0)
    (again,) = jobs.take_over("new", at=3.0)
    assert (again.attempts, again.deaths) == (0, 1)
    jobs.close()


def test_a_journal_of_an_older_version_is_migrated(tmp_path: Path) -> None:
    """Its rows are there, and what came since then works."""
    path = filled(tmp_path / "journal.sqlite")
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE transfers")
        db.execute("PRAGMA user_version = 1")
    db.close()
    journal = Journal(path)
    assert len(journal.entries()) == 200
    assert transfers.under_way(journal, KEY) is None
    journal.close()
