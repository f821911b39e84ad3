"""A training child that is killed in the middle of an epoch, and one that takes its place."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from decloud_trainer.errors import CorruptionError
from decloud_trainer.training.checkpoint import LATEST, Checkpoint, decode

STRATEGY = {
    "schedule": "cosine",
    "averaging": "ema",
    "augment": "light",
    "validation": 0.1,
}


def start(folder: Path, spec: dict[str, Any]) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "decloud_trainer.training.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdin is not None
    job = {"kind": "train", "spec": spec, "folder": str(folder)}
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    return process


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    with process:
        assert process.stdout is not None
        events = [json.loads(line) for line in process.stdout]
        assert process.wait(60) == 0, events[-1]
    return events[-1]["result"]  # type: ignore[no-any-return]


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    """Two epochs of digits, with everything that a training can have on the way."""
    import torch

    from decloud_trainer.training.artifacts import serialise
    from decloud_trainer.training.networks import SimpleCNN

    torch.manual_seed(0)
    model = tmp_path / "model.pt"
    model.write_bytes(serialise(SimpleCNN(10).state_dict()))
    return {
        "model": {"path": str(model), "sha256": hashlib.sha256(model.read_bytes()).hexdigest()},
        "architecture": "simple_cnn",
        "classes": 10,
        "data": {"name": "digits", "path": None, "data_dir": str(tmp_path / "data")},
        "preview": None,
        "epochs": 2,
        "device": "cpu",
        "threads": 1,
        "strategy": STRATEGY,
        "artifact": {"apply_scale": -0.1, "dtype": "auto"},
        "checkpoint_every_s": 0.05,
    }


def kept(folder: Path) -> Checkpoint | None:
    """The checkpoint that is there at the moment."""
    try:
        return decode(folder / LATEST)
    except CorruptionError:
        return None  # none yet


def test_killed_in_mid_epoch_it_ends_as_if_nothing_had_been(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    """After kill -9 the same job, begun again in its folder, gives the same artefact byte for byte
    and the same curve as a run that nobody disturbed; its record says that it was resumed."""
    with start(tmp_path / "killed", spec) as process:
        ends = time.monotonic() + 60
        while (found := kept(tmp_path / "killed")) is None or not found.document["batch"]:
            assert process.poll() is None, "it was over before it could be killed"
            assert time.monotonic() < ends
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "killed" / "gradient.pt").exists()
    assert (tmp_path / "killed" / "so-far.pt").exists()

    again, undisturbed = start(tmp_path / "killed", spec), start(tmp_path / "whole", spec)
    resumed, whole = result(again), result(undisturbed)
    assert resumed["sha256"] == whole["sha256"]
    assert resumed["loss"] == whole["loss"]
    records = [
        json.loads((tmp_path / name / "run.json").read_bytes()) for name in ("killed", "whole")
    ]
    assert records[0]["choices"] == records[1]["choices"]
    for first, second in zip(records[0]["curve"], records[1]["curve"], strict=True):
        assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert "resumed at step" in records[0]["notes"][0]
    assert records[1]["notes"] == []
    left = sorted(path.name for path in (tmp_path / "killed").iterdir())
    assert left == ["gradient.pt", "run.json", "worker.log"]
