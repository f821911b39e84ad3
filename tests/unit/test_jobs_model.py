"""Jobs as values."""

from __future__ import annotations

import pytest

from decloud_trainer.errors import DecloudError, HostileFile, JobFailed, RpcError
from decloud_trainer.jobs.model import (
    TRANSITIONS,
    JobError,
    JobState,
    check_job_id,
    printable,
)


def test_every_state_says_where_it_can_lead() -> None:
    """Three states are final; every other one leads to an end."""
    assert set(TRANSITIONS) == set(JobState)
    final = {state for state in JobState if state.is_final}
    assert final == {JobState.DONE, JobState.FAILED, JobState.CANCELLED}
    assert all(TRANSITIONS[state] & final for state in JobState if state not in final)


@pytest.mark.parametrize("job_id", ["a", "r12-3f-train", "0" * 80])
def test_a_job_id_is_a_plain_name(job_id: str) -> None:
    """Small letters, digits and dashes name a job and its folder."""
    assert check_job_id(job_id) == job_id


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "A", "a.b", "a\n", "ä", "0" * 81])
def test_a_job_id_can_not_leave_the_jobs_folder(job_id: str) -> None:
    """Whatever could be a path, or be cut off by a file system, names no job."""
    with pytest.raises(DecloudError, match="can't name a job"):
        check_job_id(job_id)


def test_a_worker_s_error_becomes_the_error_of_that_name() -> None:
    """The class that the worker named is raised again, with message and hint."""
    error = JobError.from_worker("HostileFile", "a pickle that runs code", "refuse it").exception()
    assert type(error) is HostileFile
    assert (error.message, error.hint) == ("a pickle that runs code", "refuse it")


@pytest.mark.parametrize(("name", "kind"), [("RpcError", RpcError), ("os.system", JobFailed)])
def test_only_a_class_of_the_tree_decides_about_retries(
    name: str, kind: type[DecloudError]
) -> None:
    """A retryable class is retried; a name that isn't in the tree is a failed job."""
    error = JobError.from_worker(name, "")
    assert type(error.exception()) is kind
    assert error.is_retryable == kind.retryable


def test_a_child_s_words_can_not_steer_the_terminal() -> None:
    """Escape sequences and lone surrogates are taken out, and long texts cut."""
    assert printable("\x1b[2Jred\ud800\r\nnext") == "[2Jred  \nnext"
    assert len(printable("x" * 1_000_000)) <= 4000
