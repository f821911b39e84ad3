"""Commits beside a training: a store that is slow, one that is stuck, one that fails oddly."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import pytest
import torch

from decloud_trainer.store.backend import Buffer, Folder
from decloud_trainer.store.chain import Store
from decloud_trainer.training import commits
from decloud_trainer.training.checkpoint import Checkpoint
from decloud_trainer.training.commits import Commits


class Slow(Folder):
    """Its first write waits until it may go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.began, self.go_on = threading.Event(), threading.Event()

    def write_all(self, wanted: MutableMapping[str, Buffer]) -> None:
        self.began.set()
        assert self.go_on.wait(10)
        super().write_all(wanted)


def state(step: int) -> Checkpoint:
    return Checkpoint({"step": step}, {"model/a": torch.full((1000,), float(step))})


def offered(folder: Folder, first: threading.Event, *steps: int) -> Commits:
    """These states, all but the first while that one is being written."""
    made = Commits(Store(folder, "slow", sleep=lambda _: None))
    for step in steps:
        made.offer(state(step), f"step {step}", {"step": float(step)})
        assert first.wait(10)
    return made


def test_all_that_was_offered_to_a_slow_store_arrives(tmp_path: Path) -> None:
    """Nobody waits when a state is offered; all are committed in their order, none is merged."""
    folder = Slow(tmp_path / "chain")
    made = offered(folder, folder.began, *range(5))
    assert not made.is_idle
    folder.go_on.set()
    report = made.close()
    assert (report.committed, report.failed, report.left_out) == (5, 0, 0)
    steps = [version.metrics["step"] for version in Store(folder, "slow").log()]
    assert steps == [4, 3, 2, 1, 0]


def test_what_waits_has_room_for_so_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a store that is stuck the oldest give way, are counted, and the newest always stays."""
    monkeypatch.setattr(commits, "MAX_WAITING_BYTES", 2 * 4000)
    folder = Slow(tmp_path / "chain")
    made = offered(folder, folder.began, *range(6))
    folder.go_on.set()
    report = made.close()
    assert (report.committed, report.failed, report.left_out) == (3, 0, 3)
    steps = [version.metrics["step"] for version in Store(folder, "slow").log()]
    assert steps == [5, 4, 0]


class Watched(Folder):
    """Holds the first commit up until it may go on; notes the policy that each writer runs by."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.began, self.go_on = threading.Event(), threading.Event()
        self.policies: list[int] = []

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        self.began.set()
        assert self.go_on.wait(10)
        with super().exclusive():
            yield

    def write_all(self, wanted: MutableMapping[str, Buffer]) -> None:
        self.policies.append(os.sched_getscheduler(threading.get_native_id()))
        super().write_all(wanted)


linux = pytest.mark.skipif(sys.platform != "linux", reason="its threads can give way")


@linux
def test_a_commit_gives_way_to_the_training_beside_it(tmp_path: Path) -> None:
    folder = Watched(tmp_path / "chain")
    made = offered(folder, folder.began, 1)
    folder.go_on.set()
    while not made.is_idle:
        time.sleep(0.001)
    assert made.close().committed == 1
    assert set(folder.policies) == {os.SCHED_IDLE}


@linux
def test_a_commit_that_gave_way_for_long_does_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is left over for it, a state is nevertheless kept soon."""
    monkeypatch.setattr(commits, "PATIENCE_S", 0.0)
    folder = Watched(tmp_path / "chain")
    folder.go_on.set()
    made = offered(folder, folder.began, 1, 2)
    while not made.is_idle:
        time.sleep(0.001)
    assert made.close().committed == 2
    assert set(folder.policies) == {os.sched_getscheduler(0)}


@linux
def test_who_waits_for_the_last_commits_waits_for_no_one_who_gives_way(tmp_path: Path) -> None:
    """The one under way is begun anew; each is there once, in their order."""
    folder = Watched(tmp_path / "chain")
    made = offered(folder, folder.began, 1, 2)
    closing = threading.Thread(target=made.close)
    closing.start()
    while not made._is_closed:
        time.sleep(0.001)
    folder.go_on.set()
    closing.join(10)
    assert made.close().committed == 2
    assert set(folder.policies) == {os.sched_getscheduler(0)}
    steps = [version.metrics["step"] for version in Store(folder, "watched").log()]
    assert steps == [2, 1]


def test_an_unexpected_error_ends_no_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and logged with where it came from; the next state is committed."""

    class Odd(Folder):
        is_odd = True

        def write_all(self, wanted: MutableMapping[str, Buffer]) -> None:
            if self.is_odd:
                self.is_odd = False
                raise ZeroDivisionError("nobody thought of that")
            super().write_all(wanted)

    ready = threading.Event()
    ready.set()
    report = offered(Odd(tmp_path / "chain"), ready, 1, 2).close()
    assert (report.committed, report.failed) == (1, 1)
    assert "nobody thought of that" in caplog.text
