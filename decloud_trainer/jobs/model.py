"""The nouns of the queue: frozen values, free of SQLite and of processes."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decloud_trainer.errors import DecloudError, by_name

KINDS = ("inspect", "prepare", "train")
"""What a worker can be asked for."""

_ID = re.compile(r"[a-z0-9-]{1,80}")
# Room for a message and the last lines of a log, not for a whole log.
_MAX_TEXT = 4000


class JobState(enum.Enum):
    """Where a job stands. Values are what the store keeps."""

    QUEUED = "queued"
    """Waits for a free slot or, after a failed attempt, for the time of the next one."""
    RUNNING = "running"
    """A child works on it, or did when its supervisor died."""
    DONE = "done"
    """Final: the result is there, and so is the artefact that it names."""
    FAILED = "failed"
    """Final: `error` says why; another try is another job."""
    CANCELLED = "cancelled"
    """Final: somebody asked for it."""

    @property
    def is_final(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {
            JobState.RUNNING,  # a slot is free
            JobState.FAILED,  # its time ran out, or its attempts did, before it could start
            JobState.CANCELLED,  # cancelled before it started
        }
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.QUEUED,  # it goes again: a failed attempt, a shutdown, a dead supervisor
            JobState.DONE,  # the worker gave its result
            JobState.FAILED,  # an error for good, or the last attempt
            JobState.CANCELLED,  # the child has ended after a cancel
        }
    ),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class Wish(enum.Enum):
    """What somebody wants of a job. It is kept, so a restart doesn't forget it."""

    GO_ON = ""
    STOP = "stop"
    """Finish with the best state so far, with artefact and result."""
    CANCEL = "cancel"
    """End as soon as possible, without a result."""


@dataclass(frozen=True, slots=True)
class JobError:
    """Why an attempt failed; it has crossed a process boundary and a database.

    Attributes:
        type: the name of a class in `errors`.
    """

    type: str
    message: str
    hint: str = ""

    @classmethod
    def from_worker(cls, type_name: str, message: str, hint: str = "") -> JobError:
        """An error as a worker tells it: a known class, text that is fit to be shown."""
        return cls(by_name(type_name).__name__, printable(message), printable(hint))

    @property
    def is_retryable(self) -> bool:
        return by_name(self.type).retryable

    def exception(self) -> DecloudError:
        """The error to raise where the job's user is."""
        return by_name(self.type)(self.message, hint=self.hint)


@dataclass(frozen=True, slots=True)
class ChildId:
    """A child that can be told from a later process with the same number.

    Attributes:
        started: the machine's boot and the process's start in it, in the system's own terms.
    """

    pid: int
    started: str


@dataclass(frozen=True, slots=True)
class Job:
    """A snapshot of one job.

    Attributes:
        spec: what the worker gets; JSON.
        folder: the job's own folder; the worker's working directory; holds the artefact.
        attempts: how often it was started; those that the end of the program cut off don't count.
        deaths: how often the program died while it ran.
        lease_until: unix seconds; until then the supervisor that runs it is taken to be alive.
        progress: the worker's latest words; empty before the first.
        result: the worker's result when DONE; `result["artifact"]` is a file name in `folder`.
        error: of the latest failed attempt; final when FAILED.
        kill_after: unix seconds; the supervisor ends the job then, whatever the worker does.
        not_before: unix seconds; the next attempt waits for it.
        child: the latest child, which may be gone.
    """

    id: str
    kind: str
    spec: Mapping[str, Any]
    folder: Path
    state: JobState = JobState.QUEUED
    attempts: int = 0
    deaths: int = 0
    lease_until: float = 0.0
    progress: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    error: JobError | None = None
    kill_after: float | None = None
    not_before: float = 0.0
    wish: Wish = Wish.GO_ON
    child: ChildId | None = None

    @property
    def artifact(self) -> Path | None:
        """The file that the result names, if it names one."""
        name = (self.result or {}).get("artifact")
        return self.folder / name if isinstance(name, str) else None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One change of state, as it stays on record. `before` is None for the submission."""

    at: float
    before: JobState | None
    after: JobState
    attempts: int
    note: str


def check_job_id(job_id: str) -> str:
    """The id, which is also a folder's name.

    Raises DecloudError for anything but 1-80 of ``a-z``, ``0-9`` and ``-``."""
    if not _ID.fullmatch(job_id):
        raise DecloudError(
            f"{printable(job_id)[:100]!r} can't name a job",
            hint="use 1 to 80 of the characters a-z, 0-9 and -",
        )
    return job_id


def printable(text: str) -> str:
    """Text of a child without what could steer a terminal or break a database; shortened."""
    kept = "".join(c if c.isprintable() or c == "\n" else " " for c in text[:_MAX_TEXT])
    return kept.encode("utf-8", "replace").decode("utf-8").strip()
