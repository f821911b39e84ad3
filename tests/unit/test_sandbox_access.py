"""Which files and resources a job is given, as plain values."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from decloud_trainer.training import sandbox
from decloud_trainer.training.spec import DataSpec, InspectSpec, ModelFile, PrepareSpec, TrainSpec


def inspect(device: str = "auto") -> InspectSpec:
    return InspectSpec(Path("/models/m.pt"), 1000, device=device)


def train(folder: Path, deadline: float | None = None) -> TrainSpec:
    data = DataSpec("digits", None, folder / "data")
    model = ModelFile(Path("/models/m.pt"), "0" * 64)
    return TrainSpec(model, "simple_cnn", 10, data, None, deadline=deadline)


def test_only_a_job_for_a_gpu_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is there and what is asked for; its driver's cache is then a folder of ours, and
    memory isn't limited, since the driver maps more than it uses."""
    node = Path("/dev/nvidia0")
    monkeypatch.setattr(sandbox, "_gpus", lambda: (node,))
    for name in sandbox._GPU_CACHES:
        monkeypatch.delenv(name, raising=False)
    assert node not in sandbox.access_of(inspect("cpu"), tmp_path).devices
    assert sandbox.bounds_of(inspect("cpu"), 0.0).memory_bytes > 0
    access = sandbox.access_of(inspect(), tmp_path)
    assert node in access.devices
    assert sandbox.bounds_of(inspect(), 0.0).memory_bytes == 0
    assert [path.name for path in access.change] == [tmp_path.name, "tuning", "gpu"]
    monkeypatch.setattr(sandbox, "_gpus", tuple)
    assert sandbox.bounds_of(inspect(), 0.0).memory_bytes > 0


def test_modules_in_the_home_don_t_open_the_home(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home among the module folders, or above the system's, is not readable."""
    (own_home / "lib").mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(own_home), str(own_home.parent), "/"])
    monkeypatch.setattr(sandbox, "_SYSTEM", (str(own_home.parent), "/usr"))
    read = sandbox.access_of(inspect("cpu"), tmp_path).read
    assert not [path for path in read if own_home.is_relative_to(path)]
    assert Path("/usr") in read
    assert Path(sandbox.__file__).parent.parent in read


def test_a_training_writes_to_few_places(tmp_path: Path) -> None:
    """Its folder, the decoded data, what it measured; neither downloads nor models."""
    change = sandbox.access_of(train(tmp_path), tmp_path / "job").change
    assert [path.name for path in change[:3]] == ["job", "tuning", "decoded"]
    data = DataSpec("digits", None, tmp_path / "data")
    prepared = sandbox.access_of(PrepareSpec(data), tmp_path / "job")
    assert prepared.change == (tmp_path / "job", tmp_path / "data")
    assert Path("/etc/resolv.conf") in prepared.read


def test_processor_time_follows_the_deadline(tmp_path: Path) -> None:
    """All processors until the deadline and some minutes more; without one there is no limit."""
    hour = sandbox.bounds_of(train(tmp_path, deadline=4600.0), 1000.0).cpu_s
    assert hour >= 2 * 3600
    assert sandbox.bounds_of(train(tmp_path), 1000.0).cpu_s == 0
    assert sandbox.bounds_of(train(tmp_path, deadline=1e300), 1000.0).cpu_s > hour
    assert sandbox.bounds_of(train(tmp_path, deadline=1.0), 1000.0).cpu_s > 0
