"""What every implementation of the Jobs port promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from decloud_trainer.errors import DecloudError, HostileFile
from decloud_trainer.jobs.model import Job, JobState
from decloud_trainer.jobs.ports import Jobs
from decloud_trainer.jobs.store import JobStore
from decloud_trainer.jobs.supervisor import SCRIPTED_WORKER, Limits, Supervisor

FAST = Limits(tick_s=0.05, retry_wait_s=0.02)


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Jobs]:
    store = JobStore(tmp_path / "jobs.sqlite3", tmp_path / "jobs")
    async with Supervisor(store, SCRIPTED_WORKER, limits=FAST) as supervisor:
        yield supervisor


def script(**steps: Any) -> dict[str, Any]:
    return {"seed": 1, "script": steps}


async def until_running(jobs: Jobs, job_id: str) -> Job:
    async for job in jobs.watch(job_id):
        if job.progress and job.state is JobState.RUNNING:
            return job
    raise AssertionError("it ended before it told any progress")


async def test_a_job_ends_with_its_result_and_artefact(jobs: Jobs) -> None:
    """A training that succeeds is DONE; its artefact is a file in its own folder."""
    await jobs.submit("a", "train", script())
    job = await jobs.wait("a")
    assert (job.state, job.attempts, job.error) == (JobState.DONE, 1, None)
    assert job.result is not None
    assert job.artifact is not None
    assert job.artifact.parent == job.folder
    assert job.artifact.stat().st_size == job.result["bytes"]


async def test_submitting_twice_is_one_job(jobs: Jobs) -> None:
    """The same id gives the same job, with its first spec, before and after its end."""
    first, second = await asyncio.gather(
        jobs.submit("a", "train", script()), jobs.submit("a", "train", script(fail="Diverged"))
    )
    assert first.spec == second.spec
    done = await jobs.wait("a")
    assert done.state is JobState.DONE
    assert await jobs.submit("a", "train", script(fail="Diverged")) == done
    assert await jobs.get("a") == await jobs.wait("a") == done


async def test_watching_shows_progress_and_ends_with_the_end(jobs: Jobs) -> None:
    """Snapshots come in order, and the last one is final."""
    await jobs.submit("a", "train", script(seconds=0.2))
    seen = [job async for job in jobs.watch("a")]
    batches = [job.progress["batch"] for job in seen if job.progress]
    assert batches == sorted(batches)
    assert batches[-1] == 10
    assert [job.state.is_final for job in seen] == [False] * (len(seen) - 1) + [True]
    assert [job.state async for job in jobs.watch("a")] == [JobState.DONE]


async def test_a_stopped_job_is_done_early(jobs: Jobs) -> None:
    """A stop is no failure: artefact and result come all the same."""
    await jobs.submit("a", "train", script(seconds=30))
    await asyncio.sleep(0)
    await jobs.stop("a")
    job = await jobs.wait("a")
    assert job.state is JobState.DONE
    assert job.result is not None
    assert job.result["stopped"] == "stop"
    await jobs.stop("a")


async def test_a_cancelled_job_has_no_result(jobs: Jobs) -> None:
    """A cancel ends a running job soon; repeating it changes nothing."""
    await jobs.submit("a", "train", script(seconds=30))
    await until_running(jobs, "a")
    await jobs.cancel("a")
    job = await asyncio.wait_for(jobs.wait("a"), 10)
    assert (job.state, job.result) == (JobState.CANCELLED, None)
    await jobs.cancel("a")
    await jobs.stop("a")
    assert await jobs.get("a") == job


async def test_a_queued_job_can_be_cancelled(jobs: Jobs) -> None:
    """It ends without ever having been started, while another one holds the slot."""
    await jobs.submit("a", "train", script(seconds=30))
    await jobs.submit("b", "train", script())
    await jobs.cancel("b")
    job = await asyncio.wait_for(jobs.wait("b"), 10)
    assert (job.state, job.attempts) == (JobState.CANCELLED, 0)
    assert not job.folder.exists()


async def test_the_worker_s_error_is_the_job_s(jobs: Jobs) -> None:
    """An error that no repetition mends fails the job at once, class and message kept."""
    await jobs.submit("a", "inspect", {"model": "/nowhere", "script": {"fail": "HostileFile"}})
    job = await jobs.wait("a")
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    assert job.error is not None
    error = job.error.exception()
    assert isinstance(error, HostileFile)
    assert "scripted failure" in error.message


async def test_a_passing_error_is_tried_again(jobs: Jobs) -> None:
    """An error of a retryable class costs attempts, up to the limit."""
    await jobs.submit("a", "prepare", {"data": {"name": "x"}, "script": {"fail": "NetworkError"}})
    job = await jobs.wait("a")
    assert (job.state, job.attempts) == (JobState.FAILED, FAST.max_attempts)
    assert job.error is not None
    assert job.error.type == "NetworkError"


async def test_unknown_jobs_and_kinds_are_refused(jobs: Jobs) -> None:
    """An id that was never submitted is an error, only `get` answers None."""
    assert await jobs.get("nobody") is None
    for call in (jobs.wait, jobs.stop, jobs.cancel):
        with pytest.raises(DecloudError, match="there is no job nobody"):
            await call("nobody")
    with pytest.raises(DecloudError, match="no kind of job"):
        await jobs.submit("a", "dance", {})
    with pytest.raises(DecloudError, match="can't name a job"):
        await jobs.submit("../a", "train", {})
