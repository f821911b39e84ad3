"""The supervisor and real child processes, well-behaved and not."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from decloud_trainer.errors import CorruptionError, DecloudError
from decloud_trainer.jobs import supervisor as supervisor_module
from decloud_trainer.jobs.child import process_started
from decloud_trainer.jobs.model import Job, JobState
from decloud_trainer.jobs.store import JobStore
from decloud_trainer.jobs.supervisor import SCRIPTED_WORKER, Limits, Supervisor

FAST: dict[str, Any] = {
    "tick_s": 0.05,
    "retry_wait_s": 0.02,
    "cancel_grace_s": 0.3,
    "end_grace_s": 0.3,
}
Start = Callable[..., Supervisor]


@pytest.fixture
def supervise(tmp_path: Path) -> Start:
    """A supervisor on this test's one database; call again for the next life of the program."""

    def start(worker: Sequence[str] = SCRIPTED_WORKER, **limits: Any) -> Supervisor:
        store = JobStore(tmp_path / "jobs.sqlite3", tmp_path / "jobs")
        return Supervisor(store, worker, limits=Limits(**{**FAST, **limits}))

    return start


def python(code: str) -> tuple[str, ...]:
    """A worker in a few lines."""
    return (sys.executable, "-c", code)


def script(**steps: Any) -> dict[str, Any]:
    return {"seed": 1, "script": steps}


async def run(supervisor: Supervisor, kind: str = "train", **steps: Any) -> Job:
    async with supervisor:
        await supervisor.submit("a", kind, script(**steps))
        return await asyncio.wait_for(supervisor.wait("a"), 10)


async def until_running(supervisor: Supervisor, job_id: str) -> Job:
    async for job in supervisor.watch(job_id):
        if job.progress and job.state is JobState.RUNNING:
            return job
    raise AssertionError("it ended before it told any progress")


async def events(supervise: Start, job_id: str = "a") -> list[tuple[str, str]]:
    store = supervise()._store
    store.open()
    try:
        return [(event.after.value, event.note) for event in store.events(job_id)]
    finally:
        store.close()


def is_alive(pid: int) -> bool:
    return process_started(pid) != ""


async def gone_within(pid: int, seconds: float) -> bool:
    return await comes_true(lambda: not is_alive(pid), seconds)


async def comes_true(question: Callable[[], bool], seconds: float) -> bool:
    """Ask again and again: processes and files of others send us no event."""
    deadline = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return answer


async def test_a_child_sees_no_secrets(supervise: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the program's environment reach neither the child's environment nor its argv."""
    monkeypatch.setenv("DECLOUD_PRIVATE_KEY", "my-secret-key")
    monkeypatch.setenv("PINATA_JWT", "my-secret-jwt")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    tell = (
        "import json, os, sys; sys.stdin.readline(); print(json.dumps({'event': 'result',"
        "'result': {'env': dict(os.environ), 'argv': sys.argv, 'cwd': os.getcwd(),"
        "'leads': os.getpid() == os.getpgid(0) == os.getsid(0)}}))"
    )
    job = await run(supervise(python(tell)), "inspect")
    assert job.result is not None
    assert "my-secret" not in json.dumps(job.result)
    assert job.result["env"]["OMP_NUM_THREADS"] == "3"
    assert job.result["cwd"] == str(job.folder)
    assert job.folder.stat().st_mode & 0o777 == 0o700
    assert job.result["leads"]


async def test_a_crash_is_tried_again(supervise: Start) -> None:
    """Two crashes cost two attempts; the third brings the result."""
    job = await run(supervise(), crash_attempts=2)
    assert (job.state, job.attempts, job.error) == (JobState.DONE, 3, None)
    notes = [note for state, note in await events(supervise) if state == "queued"]
    assert "exit code 70" in notes[1]
    assert "scripted crash in attempt 2" in notes[2]


async def test_a_job_that_always_crashes_fails_with_its_last_words(supervise: Start) -> None:
    """The error shows the end of the log, the log holds all attempts."""
    job = await run(supervise(), crash_attempts=9, log="CUDA error: \x1b[31mdevice lost")
    assert (job.state, job.attempts) == (JobState.FAILED, 3)
    assert job.error is not None
    assert "CUDA error:  [31mdevice lost\nscripted crash in attempt 3" in job.error.message
    assert job.error.hint == f"see {job.folder / 'worker.log'}"
    log = (job.folder / "worker.log").read_text()
    assert log.count("scripted worker: train") == 3


async def test_a_kill_from_outside_is_called_out_of_memory(supervise: Start) -> None:
    """SIGKILL that we didn't send is most likely the system's out-of-memory killer."""
    job = await run(supervise(), crash_attempts=9, crash_signal=int(signal.SIGKILL))
    assert job.error is not None
    assert "killed by the system, probably out of memory" in job.error.message
    assert "batch size" in job.error.hint


async def test_a_child_that_takes_too_much_memory_is_replaced(supervise: Start) -> None:
    """It is ended from outside, whatever it would still have done, and tried again; with or
    without a limit of its own, which there isn't beside a GPU."""
    supervisor = supervise(memory_bytes=200_000_000, memory_s=0.02, max_attempts=2)
    job = await run(supervisor, hold_mb=300, seconds=60)
    assert job.state is JobState.FAILED
    assert job.attempts == 2
    assert job.error is not None
    assert "children held more than 0.2 GB" in job.error.message
    assert "smaller batch size" in job.error.hint
    assert len(await events(supervise)) == 5


async def test_another_signal_is_told_by_name(supervise: Start) -> None:
    """A segmentation fault is shown as what it is."""
    job = await run(supervise(max_attempts=1), crash_attempts=9, crash_signal=int(signal.SIGSEGV))
    assert job.error is not None
    assert "ended by SIGSEGV" in job.error.message


async def test_a_hung_child_is_replaced(supervise: Start) -> None:
    """A child without heartbeats is killed, and the job goes again until its attempts end."""
    job = await run(supervise(heartbeat_s=0.3, max_attempts=2), hang=True)
    assert (job.state, job.attempts) == (JobState.FAILED, 2)
    assert job.error is not None
    assert "hung: it said nothing for 0.3 s" in job.error.message
    assert job.child is not None
    assert not is_alive(job.child.pid)


async def test_heartbeats_keep_a_slow_child_alive(supervise: Start) -> None:
    """Silence is what counts, not how long a job takes."""
    job = await run(supervise(heartbeat_s=0.8), seconds=1.2, heartbeat_s=0.05)
    assert (job.state, job.attempts) == (JobState.DONE, 1)


async def test_a_deaf_child_is_cancelled_by_force(supervise: Start) -> None:
    """Who ignores the command and SIGTERM is killed after two graces."""
    async with supervise() as supervisor:
        await supervisor.submit("a", "train", script(seconds=30, ignore_cancel=True))
        await until_running(supervisor, "a")
        await supervisor.cancel("a")
        job = await asyncio.wait_for(supervisor.wait("a"), 3)
    assert job.state is JobState.CANCELLED
    assert job.child is not None
    assert not is_alive(job.child.pid)


async def test_children_of_the_child_go_with_it(supervise: Start) -> None:
    """A worker's own processes end with it, when it is killed and also when it succeeds."""
    async with supervise() as supervisor:
        await supervisor.submit("killed", "train", script(seconds=30, children=1, hang=True))
        await supervisor.submit("done", "inspect", {"model": __file__, "script": {"children": 1}})
        done = await asyncio.wait_for(supervisor.wait("done"), 5)
        log = supervisor._store.jobs_dir / "killed" / "worker.log"
        assert await comes_true(lambda: log.exists() and "child" in log.read_text(), 5)
        await supervisor.cancel("killed")
        killed = await asyncio.wait_for(supervisor.wait("killed"), 5)
    assert (done.state, killed.state) == (JobState.DONE, JobState.CANCELLED)
    for job in (done, killed):
        words = (job.folder / "worker.log").read_text().split()
        assert await gone_within(int(words[words.index("child") + 1]), 1)


async def test_a_runaway_that_holds_the_pipes_does_not_hold_us(supervise: Start) -> None:
    """A process that left the group but inherited stdout delays the end by a second at most."""
    worker = python(
        "import subprocess, sys\n"
        "code = 'import time; time.sleep(4)'\n"
        "subprocess.Popen([sys.executable, '-c', code], start_new_session=True)\n"
        """print('{"event":"result","result":{}}', flush=True)"""
    )
    started = time.monotonic()
    job = await run(supervise(worker), "inspect")
    assert job.state is JobState.DONE
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("say", "message"),
    [
        ("Segmentation fine", "a line that is no event: b'Segmentation fine'"),
        ("x" * 1_100_000, "a line of more than 1,048,576 bytes"),
    ],
)
async def test_a_worker_that_talks_nonsense_fails_at_once(
    supervise: Start, say: str, message: str
) -> None:
    """Garbage and giant lines fail the job with a clear reason, and aren't tried again."""
    job = await run(supervise(), say=say, seconds=30)
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    assert job.error is not None
    assert job.error.type == "JobFailed"
    assert message in job.error.message


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("7", "is not a JSON object"),
        ("{}", "None is no file name"),
        ('{"artifact": "../a.pt"}', "'../a.pt' is no file name"),
        ('{"artifact": "/etc/passwd"}', "'/etc/passwd' is no file name"),
        ('{"artifact": "missing.pt"}', "missing.pt isn't there"),
        ('{"artifact": "."}', "'.' is no file name"),
        ('{"artifact": "link.pt"}', "link.pt is no plain file"),
    ],
)
async def test_a_result_is_checked(supervise: Start, result: str, message: str) -> None:
    """A training's result names a plain file of the job's own folder, or the job fails."""
    worker = python(
        "import os\n"
        "os.symlink('/etc/passwd', 'link.pt')\n"
        f"""print('{{"event":"result","result":{result}}}')"""
    )
    job = await run(supervise(worker))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert message in job.error.message


async def test_a_worker_that_can_not_be_started_fails_the_job(supervise: Start) -> None:
    """A missing program is said, not raised somewhere in the background."""
    job = await run(supervise(("/nowhere/python",)))
    assert (job.state, job.attempts) == (JobState.FAILED, 3)
    assert job.error is not None
    assert "can't start a worker" in job.error.message


async def test_a_folder_that_can_not_be_made_fails_its_job_alone(
    supervise: Start, tmp_path: Path
) -> None:
    """Something in the folder's place is that job's trouble; the others go on."""
    async with supervise() as supervisor:
        (tmp_path / "jobs" / "a").write_text("in the way")
        await supervisor.submit("a", "train", script())
        await supervisor.submit("b", "train", script())
        first, second = [await asyncio.wait_for(supervisor.wait(name), 5) for name in "ab"]
    assert (first.state, second.state) == (JobState.FAILED, JobState.DONE)
    assert first.error is not None
    assert "can't use the job's folder" in first.error.message


async def test_parallel_trainings_are_limited_and_small_jobs_pass(supervise: Start) -> None:
    """Never more trainings than slots; an inspection doesn't wait behind them."""
    most = 0
    async with supervise(max_parallel=2) as supervisor:
        names = [f"t{number}" for number in range(5)]
        for name in names:
            await supervisor.submit(name, "train", script(seconds=0.2))
        await supervisor.submit("small", "prepare", {"data": {"name": "digits"}})
        small = await asyncio.wait_for(supervisor.wait("small"), 5)
        last = await supervisor.get("t4")

        async def follow(name: str) -> None:
            nonlocal most
            async for _ in supervisor.watch(name):
                now = [await supervisor.get(other) for other in names]
                running = sum(job is not None and job.state is JobState.RUNNING for job in now)
                most = max(most, running)

        await asyncio.gather(*(follow(name) for name in names))
        done = [await supervisor.wait(name) for name in names]
    assert small.state is JobState.DONE
    assert last is not None
    assert last.state is JobState.QUEUED
    assert most == 2
    assert {job.state for job in done} == {JobState.DONE}


async def test_a_hard_limit_ends_a_job_that_has_none(supervise: Start) -> None:
    """`kill_after` ends a running job, and a waiting one without starting it."""
    async with supervise() as supervisor:
        limit = time.time() + 0.8
        await supervisor.submit("a", "train", script(seconds=30), kill_after=limit)
        await supervisor.submit("b", "train", script(), kill_after=limit - 0.2)
        waiting, running = await asyncio.wait_for(
            asyncio.gather(supervisor.wait("b"), supervisor.wait("a")), 5
        )
    for job, attempts in ((waiting, 0), (running, 1)):
        assert (job.state, job.attempts) == (JobState.FAILED, attempts)
        assert job.error is not None
        assert job.error.type == "OutOfTime"
    assert time.time() >= limit


async def test_leaving_ends_children_and_keeps_their_jobs(supervise: Start) -> None:
    """A clean shutdown is no failure and no attempt; the next start finishes all jobs."""
    async with supervise() as supervisor:
        await supervisor.submit("a", "train", script(seconds=30))
        await supervisor.submit("b", "train", script())
        running = await until_running(supervisor, "a")
        waiting = asyncio.create_task(supervisor.wait("a"))
        await asyncio.sleep(0.01)
    with pytest.raises(DecloudError, match="is closed"):
        await waiting
    assert running.child is None or not is_alive(running.child.pid)
    assert (await events(supervise))[-1] == ("queued", "interrupted: the program was stopped")
    async with supervise() as supervisor:
        again = await until_running(supervisor, "a")
        assert again.attempts == 1
        await supervisor.stop("a")
        done = [await asyncio.wait_for(supervisor.wait(name), 5) for name in ("a", "b")]
    assert [job.state for job in done] == [JobState.DONE, JobState.DONE]


async def test_a_stop_survives_the_shutdown(supervise: Start) -> None:
    """A job that was told to stop while it waited does so after a restart, as soon as it runs."""
    async with supervise() as supervisor:
        await supervisor.submit("first", "train", script(seconds=30))
        await supervisor.submit("a", "train", script(seconds=30))
        await supervisor.stop("a")
    async with supervise(max_parallel=2) as supervisor:
        job = await asyncio.wait_for(supervisor.wait("a"), 5)
    assert job.state is JobState.DONE
    assert job.result is not None
    assert job.result["stopped"] == "stop"


async def test_progress_is_no_storm_on_the_disk(
    supervise: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much a worker tells, the store is written at the set pace."""
    writes = 0
    renew = JobStore.renew

    def counted(*args: Any) -> None:
        nonlocal writes
        writes += 1
        renew(*args)

    monkeypatch.setattr(JobStore, "renew", counted)
    worker = python(
        "import time\n"
        "for batch in range(2000):\n"
        """    print('{"event":"progress","batch":%d}' % batch, flush=True)\n"""
        "    time.sleep(0.0003)\n"
        """print('{"event":"result","result":{}}')"""
    )
    started = time.monotonic()
    job = await run(supervise(worker, progress_s=0.3), "inspect")
    assert job.progress == {"batch": 1999}
    assert 1 <= writes <= (time.monotonic() - started) / 0.3 + 1


async def test_a_broken_store_is_told_to_who_waits(
    supervise: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the store is damaged, nobody waits for ever, and no child is left."""

    def damaged(*args: Any) -> None:
        raise CorruptionError("the store is damaged")

    async with supervise() as supervisor:
        await supervisor.submit("a", "train", script(seconds=0.1))
        await until_running(supervisor, "a")
        monkeypatch.setattr(JobStore, "finish", damaged)
        with pytest.raises(CorruptionError, match="the store is damaged"):
            await asyncio.wait_for(supervisor.wait("a"), 5)
        with pytest.raises(CorruptionError, match="broken down"):
            await supervisor.submit("b", "train", script())


async def test_a_full_disk_delays_a_jobs_end(
    supervise: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What can't be recorded now is recorded later: the finished work isn't done again."""
    monkeypatch.setattr(supervisor_module, "_STORE_PAUSE_S", 0.01)
    real, tries = JobStore.finish, 0

    def full(*args: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise DecloudError("the disk is full")
        return real(*args)

    monkeypatch.setattr(JobStore, "finish", full)
    job = await run(supervise(), "train")
    assert (job.state, job.attempts, tries) == (JobState.DONE, 1, 4)
    assert caplog.text.count("the disk is full; trying again") == 1


def test_limits_are_checked() -> None:
    """A limit that makes no sense is refused by name."""
    with pytest.raises(DecloudError, match="max_parallel must be greater than 0"):
        Limits(max_parallel=0)
    assert [Limits(retry_wait_s=2).wait_after(n) for n in (1, 2, 3, 9)] == [2, 4, 8, 60]
