"""What the supervisor relies on in a worker, real or scripted: lines in, lines out, exit codes."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from workers import Worker, working

from decloud_trainer import errors
from decloud_trainer.jobs.scripted import gradient_file, simple_cnn_shapes
from decloud_trainer.jobs.supervisor import SCRIPTED_WORKER, TRAINING_WORKER

WORKERS = {"scripted": SCRIPTED_WORKER, "training": TRAINING_WORKER}
TOLD = {"epoch", "epochs", "batch", "batches", "loss"}
# What the real one tells and notes beyond that.
MORE_TOLD = {"scripted": set(), "training": {"accuracy", "eta_s"}}
NOTED = {"scripted": "nothing is learned", "training": "ignored an unknown command"}


class Kind:
    """One of the workers, its folder, and specs that both kinds understand."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.folder = home / "job"
        self.cache = home / "cache"
        self.model = home / "model.pt"
        self.model.write_bytes(gradient_file(1))  # a gradient has a model's keys and shapes

    def run(self, kind: str, spec: dict[str, Any]) -> AbstractContextManager[Worker]:
        return working(self.folder, kind, spec, worker=WORKERS[self.name])

    def train_spec(self, **changes: Any) -> dict[str, Any]:
        digits = {"name": "digits", "path": None, "data_dir": str(self.cache)}
        spec: dict[str, Any] = {
            "model": {"path": str(self.model), "sha256": digest(self.model)},
            "architecture": "simple_cnn",
            "classes": 10,
            "data": digits,
            "preview": digits,
            "epochs": 1,
            "batch_size": 32,
            "learning_rate": 0.001,
            "max_batches": 2,
            "seed": 0,
            "device": "cpu",
            "threads": 1,
            "artifact": {"apply_scale": -0.1, "dtype": "float32"},
            "deadline": None,
            "until_improved": False,
        }
        if self.name == "scripted":
            long = changes.get("max_batches") == 0
            spec["script"] = {"seconds": 60 if long else 0.1, "heartbeat_s": 0.2}
        return {**spec, **changes}

    def long_spec(self, **changes: Any) -> dict[str, Any]:
        """A training that takes much longer than the test."""
        return self.train_spec(epochs=10_000, max_batches=0, **changes)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(params=sorted(WORKERS))
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    return Kind(request.param, tmp_path)


def check_training(worker: Kind, running: Worker, result: dict[str, Any]) -> None:
    """What every training's end has, complete or not."""
    kinds = [event["event"] for event in running.events]
    assert kinds.count("result") == 1
    assert {"heartbeat", "progress"} <= set(kinds)
    artifact = worker.folder / result["artifact"]
    assert result["artifact"] == artifact.name
    assert (result["bytes"], result["sha256"]) == (artifact.stat().st_size, digest(artifact))
    gradient = torch.load(artifact, weights_only=True)
    assert {name: tuple(t.shape) for name, t in gradient.items()} == simple_cnn_shapes(10)
    assert set(result["preview"]) == {"before", "after", "samples"}
    for key in ("epochs", "batches", "samples", "samples_per_s", "seconds", "loss", "device"):
        assert key in result
    assert result.get("scripted", False) == (worker.name == "scripted")


# The real worker costs seconds per run, so its complete training is tested with the training.
@pytest.mark.parametrize("worker", ["scripted"], indirect=True)
def test_a_training_ends_with_a_valid_artefact(worker: Kind) -> None:
    """Heartbeats and progress, then one result that tells the artefact's true size and digest."""
    with worker.run("train", worker.train_spec()) as running:
        result = running.until("result")["result"]
        assert running.end() == 0
    assert result["stopped"] == "complete"
    check_training(worker, running, result)


def test_an_inspection_tells_the_model(worker: Kind) -> None:
    """Architecture, size and digest of a model file, and this machine's speed."""
    spec = {"model": str(worker.model), "max_bytes": 10_000_000, "sha256": digest(worker.model)}
    with worker.run("inspect", spec) as running:
        result = running.until("result")["result"]
        assert running.end() == 0
    assert result["architecture"] == "simple_cnn"
    assert (result["classes"], result["parameters"]) == (10, 586_250)
    size = worker.model.stat().st_size
    assert (result["bytes"], result["sha256"]) == (size, spec["sha256"])
    assert result["samples_per_s"] > 10


def test_a_refused_file_is_an_error_event(worker: Kind) -> None:
    """What can't be done is one error event with a class of ours, and exit code 1."""
    spec = {"model": str(worker.model), "max_bytes": 1000}
    with worker.run("inspect", spec) as running:
        error = running.until("error")["error"]
        assert running.end() == 1
    assert errors.by_name(error["type"]) is errors.TooLarge
    assert error["message"]


def test_preparing_data_counts_it(worker: Kind) -> None:
    """Prepared data is told by its sizes and a fingerprint."""
    spec = {"data": {"name": "digits", "path": None, "data_dir": str(worker.cache)}}
    with worker.run("prepare", spec) as running:
        result = running.until("result")["result"]
        assert running.end() == 0
    assert (result["train"], result["test"], result["classes"]) == (1347, 450, 10)
    assert result["fingerprint"]


def test_a_stop_brings_the_result_early(worker: Kind) -> None:
    """After a stop the best state so far is written and told, as at a training's end."""
    with worker.run("train", worker.long_spec()) as running:
        first = running.until_learning()
        running.say({"command": "stop"})
        result = running.until("result")["result"]
        assert running.end() == 0
    assert set(first) >= TOLD | MORE_TOLD[worker.name]
    assert result["stopped"] == "stop"
    assert result["preview"]["samples"] == 450
    assert "error" not in {event["event"] for event in running.events}
    check_training(worker, running, result)


def test_a_cancel_ends_it_without_a_result(worker: Kind) -> None:
    """Exit code 130, soon, and neither result nor error nor artefact; what is no command changes
    nothing."""
    with worker.run("train", worker.long_spec()) as running:
        running.until_learning()
        running.say({"command": "nonsense"})
        running.say({"command": "cancel"})
        assert running.end(within_s=3) == 130
    assert {event["event"] for event in running.events} == {"heartbeat", "progress"}
    assert not (worker.folder / "gradient.pt").exists()
    assert NOTED[worker.name] in running.log()


def test_the_parent_s_death_ends_it(worker: Kind) -> None:
    """End of file on stdin: the worker is gone within 2 s, without a result."""
    with worker.run("train", worker.long_spec()) as running:
        running.until("progress")
        running.lose_parent()
        assert running.end(within_s=2) == 1
    assert "result" not in {event["event"] for event in running.events}
