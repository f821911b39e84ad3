"""Jobs as rows of a database, both ways."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decloud_trainer.jobs.model import ChildId, Job, JobError, JobEvent, JobState, Wish


def job_of(row: sqlite3.Row, jobs_dir: Path) -> Job:
    """Raises ValueError or TypeError for a row that is none of ours."""
    error = _loaded(row["error"])
    pid = row["child_pid"]
    return Job(
        id=row["id"],
        kind=row["kind"],
        spec=_loaded(row["spec"]),
        folder=jobs_dir / row["id"],
        state=JobState(row["state"]),
        attempts=row["attempts"],
        deaths=row["deaths"],
        lease_until=row["lease_until"],
        progress=_loaded(row["progress"]),
        result=_loaded(row["result"]),
        error=None if error is None else JobError(**error),
        kill_after=row["kill_after"],
        not_before=row["not_before"],
        wish=Wish(row["wish"]),
        child=None if pid is None else ChildId(pid, row["child_started"]),
    )


def event_of(row: sqlite3.Row) -> JobEvent:
    """Raises as `job_of`."""
    before = JobState(row["before"]) if row["before"] else None
    return JobEvent(row["at"], before, JobState(row["after"]), row["attempts"], row["note"])


def outcome(job: Job) -> dict[str, object]:
    """The columns that tell how far it came and why it failed."""
    error = job.error
    told = None if error is None else dataclasses.asdict(error)
    return {"progress": dumped(job.progress), "error": dumped(told)}


def dumped(value: Mapping[str, Any] | None) -> str | None:
    # ASCII: a lone surrogate in a child's text can be kept, and can't break the database.
    return None if value is None else json.dumps(value, allow_nan=False)


def _loaded(text: str | None) -> Any:
    return None if text is None else json.loads(text)
