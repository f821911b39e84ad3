"""A supervisor killed by kill -9, its children, and its successor."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decloud_trainer.jobs.child import process_started
from decloud_trainer.jobs.model import ChildId, JobState
from decloud_trainer.jobs.store import JobStore
from decloud_trainer.jobs.supervisor import SCRIPTED_WORKER, Limits, Supervisor

# A program that supervises one job until it is killed; says its child's number.
PARENT = """
import asyncio, json, sys
from pathlib import Path
from decloud_trainer.jobs.store import JobStore
from decloud_trainer.jobs.supervisor import Supervisor

async def main():
    home, worker, spec = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
    store = JobStore(home / "jobs.sqlite3", home / "jobs")
    async with Supervisor(store, worker) as supervisor:
        await supervisor.submit("a", "train", spec)
        async for job in supervisor.watch("a"):
            if job.progress:
                break
        print((await asyncio.to_thread(reader, store)), flush=True)
        await supervisor.wait("a")

def reader(store):
    other = JobStore(store.path, store.jobs_dir)
    other.open()
    child = other.get("a").child
    other.close()
    return child.pid

asyncio.run(main())
"""

# Deaf to its parent's death: no worker of ours, but what a stuck driver can look like.
UNDEAD = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"event":"progress","batch":1}', flush=True)
time.sleep(60)
"""


def supervise_and_kill(home: Path, worker: tuple[str, ...], spec: dict[str, Any]) -> int:
    """Run the program until its child is at work, kill it with SIGKILL; the child's number."""
    command = (sys.executable, "-c", PARENT, str(home), json.dumps(worker), json.dumps(spec))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert process_started(child) != ""
        parent.send_signal(signal.SIGKILL)
    return child


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (alive := process_started(pid) != "") and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive


def successor(home: Path, worker: tuple[str, ...] = SCRIPTED_WORKER, **limits: Any) -> Supervisor:
    store = JobStore(home / "jobs.sqlite3", home / "jobs")
    return Supervisor(store, worker, limits=Limits(tick_s=0.05, **limits))


async def test_a_child_dies_with_its_parent_and_the_job_goes_on(tmp_path: Path) -> None:
    """kill -9 of the program: the child is gone within 2 s; the next start runs the job again,
    and waits for no lease to run out."""
    spec = {"seed": 1, "script": {"seconds": 30}}
    child = supervise_and_kill(tmp_path, SCRIPTED_WORKER, spec)
    assert gone_within(child, 2)
    async with successor(tmp_path) as supervisor:
        again = await supervisor.submit("a", "train", spec)
        assert not again.state.is_final
        await supervisor.stop("a")
        job = await asyncio.wait_for(supervisor.wait("a"), 5)
    assert (job.state, job.attempts, job.deaths) == (JobState.DONE, 1, 1)
    assert job.child is not None
    assert job.child.pid != child


async def test_a_child_that_survived_is_killed_before_its_successor_starts(
    tmp_path: Path,
) -> None:
    """Two children of one job are never at work at the same time."""
    child = supervise_and_kill(tmp_path, (sys.executable, "-c", UNDEAD), {})
    assert not gone_within(child, 0.2)
    async with successor(tmp_path) as supervisor:
        async for job in supervisor.watch("a"):
            if job.state is JobState.RUNNING:
                assert process_started(child) == ""
    assert (job.state, job.attempts, job.deaths) == (JobState.DONE, 1, 1)


async def test_a_job_that_takes_the_program_down_ends_some_day(tmp_path: Path) -> None:
    """A job whose every attempt ended with the program's death isn't started for ever."""
    supervise_and_kill(tmp_path, SCRIPTED_WORKER, {"script": {"seconds": 30}})
    async with successor(tmp_path, max_deaths=1) as supervisor:
        job = await asyncio.wait_for(supervisor.wait("a"), 5)
    assert (job.state, job.attempts, job.deaths) == (JobState.FAILED, 0, 1)
    assert job.error is not None
    assert "the program died" in job.error.message


@pytest.fixture
def innocent() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours, leading its own group."""
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        yield process
        process.kill()


async def test_another_process_with_the_old_number_is_left_alone(
    tmp_path: Path, innocent: subprocess.Popen[bytes]
) -> None:
    """Process numbers come round: only the very same process is killed."""
    store = JobStore(tmp_path / "jobs.sqlite3", tmp_path / "jobs")
    store.open()
    store.submit("a", "train", {}, None, at=1.0)
    store.start("a", "old", lease_until=1e12, at=1.0)
    store.keep_child("a", "old", ChildId(innocent.pid, "an earlier boot 12345"))
    store.close()
    async with successor(tmp_path) as supervisor:
        job = await asyncio.wait_for(supervisor.wait("a"), 5)
    assert job.state is JobState.DONE
    assert innocent.poll() is None
