"""The training child and jobs that it refuses; what else it does, the workers' contract tests."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from workers import Event, working


def done(tmp_path: Path, kind: str, spec: Event) -> tuple[int, list[Event]]:
    """Exit code and events of a job, in an environment with nothing of ours."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    with working(tmp_path / "job", kind, spec, env=env) as worker:
        return worker.end(), worker.events


def test_a_hostile_model_is_refused_and_not_executed(tmp_path: Path) -> None:
    """Inspecting a file that would run a command gives HostileFile, and the command never ran."""
    marker = tmp_path / "executed"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {marker}",)

    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"conv1.weight": Attack()}, protocol=2))
        archive.writestr("evil/version", b"3\n")
    code, events = done(tmp_path, "inspect", {"model": str(path), "max_bytes": 10_000_000})
    assert events[0] == {"event": "heartbeat"}, "before anything heavy is loaded"
    assert (code, events[-1]["event"]) == (1, "error")
    assert events[-1]["error"]["type"] == "HostileFile"
    assert "not run" in events[-1]["error"]["message"]
    assert events[-1]["error"]["hint"]
    assert not marker.exists()


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("dance", {}, "job kind 'dance' is none of inspect, prepare, train"),
        ("train", {"model": 3}, "TrainSpec lacks architecture"),
        ("inspect", {"model": "x", "max_bytes": 1}, "absolute path"),
    ],
)
def test_a_wrong_job_is_an_error_event(tmp_path: Path, kind: str, spec: Event, words: str) -> None:
    """What isn't a job is said as one, before anything heavy is loaded."""
    code, events = done(tmp_path, kind, spec)
    assert (code, events[-1]["error"]["type"]) == (1, "SettingsError")
    assert words in events[-1]["error"]["message"]
