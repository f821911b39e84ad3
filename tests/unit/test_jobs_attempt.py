"""When a child is given up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from decloud_trainer.jobs.attempt import Attempt, Limits
from decloud_trainer.jobs.child import Child, WorkerLog
from decloud_trainer.jobs.memory import MemoryWatch
from decloud_trainer.jobs.model import Job


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    log = WorkerLog(tmp_path / "worker.log")
    yield Child(log, lambda _: None)
    log.close()


def attempt(child: Child, tmp_path: Path, now: list[float], **limits: float) -> Attempt:
    job = Job("a", "train", {}, tmp_path, kill_after=500.0)
    # A child that was never started has no memory to look at.
    given = Limits(tick_s=0.01, memory_s=3600.0, **limits)
    return Attempt(job, child, given, MemoryWatch(), lambda: now[0])


async def test_silence_counts_only_while_we_are_awake(child: Child, tmp_path: Path) -> None:
    """A program that stood still finds its child's words in the pipe, not a hung child."""
    looked = attempt(child, tmp_path, [0.0], heartbeat_s=0.05)
    for _ in range(3):
        assert not await looked.look()
    time.sleep(0.1)  # noqa: ASYNC251 - the whole program stands still
    child.pipe_data_received(1, b'{"event":"heartbeat"}\n')
    for _ in range(3):
        assert not await looked.look()
    for _ in range(3):
        over = await looked.look()
    assert over


async def test_the_hard_limit_is_by_the_clock(child: Child, tmp_path: Path) -> None:
    """A deadline that passed while the machine slept has passed."""
    now = [499.0]
    looked = attempt(child, tmp_path, now)
    assert not await looked.look()
    now[0] = 500.0
    assert await looked.look()
