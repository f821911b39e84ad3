"""The training child as its parent meets it: JSON lines, commands, exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

Event = dict[str, Any]


class Child:
    """One worker process; every line that it writes must be an event."""

    def __init__(self, folder: Path, kind: str, spec: Event) -> None:
        self.folder = folder
        self.log = (folder / "worker.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "decloud_trainer.training.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            start_new_session=True,
        )
        self.say({"kind": kind, "spec": spec, "folder": str(folder)})

    def say(self, message: Event) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def events(self) -> Iterator[Event]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def until(self, **wanted: Any) -> Event:
        for event in self.events():
            if all(event.get(key) == value for key, value in wanted.items()):
                return event
        raise AssertionError(f"ended without {wanted}: {self.read_log()}")

    def finish(self) -> tuple[int, list[Event]]:
        events = list(self.events())
        return self.process.wait(30), events

    def read_log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    children: list[Child] = []

    def start(kind: str, spec: Event) -> Child:
        folder = tmp_path / f"job{len(children)}"
        folder.mkdir()
        children.append(Child(folder, kind, spec))
        return children[-1]

    yield start
    for child in children:
        child.close()


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, str]:
    import torch

    from decloud_trainer.training.artifacts import serialise
    from decloud_trainer.training.networks import SimpleCNN

    torch.manual_seed(0)
    path = tmp_path / "model.pt"
    path.write_bytes(serialise(SimpleCNN(10).state_dict()))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def train_spec(tmp_path: Path, model: tuple[Path, str], **changes: Any) -> Event:
    digits = {"name": "digits", "path": None, "data_dir": str(tmp_path / "data")}
    return {
        "model": {"path": str(model[0]), "sha256": model[1]},
        "architecture": "simple_cnn",
        "classes": 10,
        "data": digits,
        "preview": digits,
        "threads": 1,
        **changes,
    }


def test_a_stop_ends_a_long_run_with_its_best_state(
    tmp_path: Path, start: Any, model: tuple[Path, str]
) -> None:
    """Progress, then `stop`: artefact and result come soon, with a preview, and exit code 0."""
    child = start("train", train_spec(tmp_path, model, epochs=1000))
    first = child.until(event="progress", stage="train")
    assert {"epoch", "epochs", "batch", "batches", "loss", "accuracy", "eta_s"} <= set(first)
    child.say({"command": "stop"})
    code, events = child.finish()
    result = events[-1]["result"]
    assert (code, events[-1]["event"], result["stopped"]) == (0, "result", "stop")
    assert result["preview"]["samples"] == 450
    stored = (child.folder / result["artifact"]).read_bytes()
    assert hashlib.sha256(stored).hexdigest() == result["sha256"]
    assert {event["event"] for event in events} <= {"heartbeat", "progress", "result"}


def test_a_cancel_ends_it_at_once_without_a_result(
    tmp_path: Path, start: Any, model: tuple[Path, str]
) -> None:
    """`cancel` in the middle of training: exit code 130, no result, no artefact."""
    child = start("train", train_spec(tmp_path, model, epochs=1000))
    child.until(event="progress", stage="train")
    said = time.monotonic()
    child.say({"command": "nonsense"})
    child.say({"command": "cancel"})
    code, events = child.finish()
    assert code == 130
    assert time.monotonic() - said < 2
    assert not [event for event in events if event["event"] in ("result", "error")]
    assert not (child.folder / "gradient.pt").exists()
    assert "ignored an unknown command" in child.read_log()


def test_a_child_ends_with_its_parent(tmp_path: Path, start: Any, model: tuple[Path, str]) -> None:
    """When stdin ends, the parent is gone: nothing trains on unseen."""
    child = start("train", train_spec(tmp_path, model, epochs=1000))
    child.until(event="progress", stage="load")
    child.process.stdin.close()
    assert child.process.wait(5) == 1
    assert not [event for event in child.events() if event["event"] == "result"]


def test_a_hostile_model_is_refused_and_not_executed(tmp_path: Path, start: Any) -> None:
    """Inspecting a file that would run a command gives HostileFile, and the command never ran."""
    marker = tmp_path / "executed"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {marker}",)

    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"conv1.weight": Attack()}, protocol=2))
        archive.writestr("evil/version", b"3\n")
    code, events = start("inspect", {"model": str(path), "max_bytes": 10_000_000}).finish()
    assert (code, events[-1]["event"]) == (1, "error")
    assert events[-1]["error"]["type"] == "HostileFile"
    assert "not run" in events[-1]["error"]["message"]
    assert events[-1]["error"]["hint"]
    assert not marker.exists()


def test_inspecting_a_good_model_in_a_limited_child(start: Any, model: tuple[Path, str]) -> None:
    """Within its memory limit the child names the network and measures its speed."""
    spec = {"model": str(model[0]), "max_bytes": 10_000_000, "sha256": model[1]}
    code, events = start("inspect", spec).finish()
    result = events[-1]["result"]
    assert (code, result["architecture"], result["classes"]) == (0, "simple_cnn", 10)
    assert (result["parameters"], result["sha256"]) == (586_250, model[1])
    assert result["samples_per_s"] > 10
    assert events[0] == {"event": "heartbeat"}


def test_preparing_needs_no_torch(tmp_path: Path, start: Any) -> None:
    """Data that is here is prepared in a fraction of a second."""
    data = {"name": "digits", "path": None, "data_dir": str(tmp_path / "data")}
    code, events = start("prepare", {"data": data}).finish()
    assert (code, events[-1]["result"]["train"], events[-1]["result"]["test"]) == (0, 1347, 450)


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("dance", {}, "job kind 'dance' is none of inspect, prepare, train"),
        ("train", {"model": 3}, "TrainSpec lacks architecture"),
        ("inspect", {"model": "x", "max_bytes": 1}, "absolute path"),
    ],
)
def test_a_wrong_job_is_an_error_event(start: Any, kind: str, spec: Event, words: str) -> None:
    """What isn't a job is said as one, before anything heavy is loaded."""
    code, events = start(kind, spec).finish()
    assert (code, events[-1]["error"]["type"]) == (1, "SettingsError")
    assert words in events[-1]["error"]["message"]
