"""Whole runs in this process, on the packaged digits: artefact, preview, limits."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import referee
import torch

from decloud_trainer.errors import (
    ContentMismatch,
    DatasetUnavailable,
    Diverged,
    HostileFile,
    OutOfTime,
    SettingsError,
    TrainingError,
    UnknownArchitecture,
)
from decloud_trainer.training import runs
from decloud_trainer.training.artifacts import serialise
from decloud_trainer.training.device import Device, choose_device
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.inspection import inspect_model
from decloud_trainer.training.networks import Architecture, SimpleCNN
from decloud_trainer.training.results import Preview, Progress, TrainResult
from decloud_trainer.training.runs import train_model
from decloud_trainer.training.spec import ArtifactSpec, DataSpec, InspectSpec, ModelFile, TrainSpec

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


def write_model(path: Path, classes: int = 10, scale: float = 1.0) -> ModelFile:
    torch.manual_seed(1)
    state = SimpleCNN(classes).state_dict()
    path.write_bytes(serialise({key: value * scale for key, value in state.items()}))
    return ModelFile(path, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def spec(shared: Path) -> TrainSpec:
    """Twenty batches of digits on a fresh network."""
    digits = DataSpec("digits", None, shared / "data")
    model = write_model(shared / "model.pt")
    return TrainSpec(
        model, "simple_cnn", 10, digits, digits, max_batches=20, threads=1, device="cpu"
    )


def run(
    spec: TrainSpec,
    folder: Path,
    clock: Callable[[], float] = lambda: 0.0,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> TrainResult:
    return train_model(spec, folder, Hooks(clock, progress, should_stop))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_preview_is_the_number_that_the_scoring_side_gets(
    spec: TrainSpec, tmp_path: Path, dtype: str
) -> None:
    """An independent implementation of the scoring rule arrives at the very same accuracies."""
    result = run(dataclasses.replace(spec, artifact=ArtifactSpec(-0.1, dtype)), tmp_path)
    before, after = referee.scored(SimpleCNN(10), spec.model.path, tmp_path / result.artifact)
    assert result.preview == Preview(before, after, 450)
    assert result.preview.improvement > 20
    stored = (tmp_path / result.artifact).read_bytes()
    assert (result.bytes, result.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())


def test_equal_specs_give_equal_bytes(spec: TrainSpec, tmp_path: Path) -> None:
    """A run that is repeated, after a crash or for proof, gives the same file, so the same CID."""
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    for folder in folders:
        folder.mkdir()
    spec = dataclasses.replace(spec, max_batches=5)
    first, second = run(spec, folders[0]), run(spec, folders[1])
    assert first.sha256 == second.sha256
    assert first.loss == second.loss
    other = run(dataclasses.replace(spec, seed=5), folders[2])
    assert other.sha256 != first.sha256


def test_without_a_preview_the_epochs_are_exact(spec: TrainSpec, tmp_path: Path) -> None:
    """Nothing can be scored: train exactly what was asked for, and say that it isn't known."""
    result = run(dataclasses.replace(spec, preview=None, epochs=3, max_batches=2), tmp_path)
    assert result.preview is None
    assert (result.epochs, result.batches, result.samples) == (3, 6, 192)
    assert len(result.loss) == 3
    assert (result.stopped, result.device, result.threads) == ("complete", "cpu", 1)


def test_training_goes_on_until_the_preview_improves(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rate that changes nothing, it gives up after the extra epochs; or after none."""
    assert runs.EXTRA_EPOCHS == 20
    monkeypatch.setattr(runs, "EXTRA_EPOCHS", 3)
    hopeless = dataclasses.replace(spec, learning_rate=1e-12, max_batches=1)
    result = run(hopeless, tmp_path)
    assert result.epochs == 1 + 3
    assert result.preview is not None
    assert result.preview.improvement == 0
    assert run(dataclasses.replace(hopeless, until_improved=False), tmp_path).epochs == 1


def test_a_deadline_ends_it_with_what_there_is(spec: TrainSpec, tmp_path: Path) -> None:
    """The artefact stands, scored, when time runs out in the middle of an epoch."""
    ticks = itertools.count(1000.0, 1.0)
    late = dataclasses.replace(spec, epochs=50, deadline=1030.0)
    result = run(late, tmp_path, clock=lambda: next(ticks))
    assert result.stopped == "deadline"
    assert 0 < result.batches < 30
    assert result.preview is not None
    assert (tmp_path / result.artifact).exists()


def test_no_time_for_one_batch_is_no_result(spec: TrainSpec, tmp_path: Path) -> None:
    """A deadline that has passed, or passes before the first batch, or a stop at once."""
    for deadline in (999.0, 1002.0):
        ticks = itertools.count(1000.0, 1.0)
        late = dataclasses.replace(spec, deadline=deadline)
        with pytest.raises(OutOfTime):
            run(late, tmp_path, clock=lambda ticks=ticks: next(ticks))
    with pytest.raises(OutOfTime, match="before its first batch"):
        run(spec, tmp_path, should_stop=lambda: True)
    assert not (tmp_path / "gradient.pt").exists()


def test_a_stop_between_epochs_keeps_the_state_of_the_last(spec: TrainSpec, tmp_path: Path) -> None:
    """Stopped as the second of five epochs begins: the first one's state is scored and stored."""
    looks = itertools.count()
    plan = dataclasses.replace(spec, epochs=5, max_batches=2)
    result = run(plan, tmp_path, should_stop=lambda: next(looks) >= 2)
    assert (result.epochs, result.batches, result.stopped) == (1, 2, "stop")
    assert result.preview is not None


def test_weights_that_explode_are_never_a_result(
    spec: TrainSpec, shared: Path, tmp_path: Path
) -> None:
    """A loss that isn't finite ends in Diverged and leaves no artefact."""
    model = write_model(shared / "exploding.pt", scale=1e12)
    with pytest.raises(Diverged, match="loss became"):
        run(dataclasses.replace(spec, model=model, until_improved=False), tmp_path)
    assert not (tmp_path / "gradient.pt").exists()


def test_progress_tells_every_stage(spec: TrainSpec, tmp_path: Path) -> None:
    """load, data, baseline, train, preview, in this order."""
    seen: list[Progress] = []
    run(dataclasses.replace(spec, max_batches=2), tmp_path, progress=seen.append)
    stages = [stage for stage, _ in itertools.groupby(seen, key=lambda p: p.stage)]
    assert stages[:5] == ["load", "data", "baseline", "train", "preview"]


def test_what_cannot_be_used_is_refused(spec: TrainSpec, shared: Path, tmp_path: Path) -> None:
    """Another model than inspected, other bytes, missing data, a head too small."""
    five = write_model(shared / "five.pt", classes=5)
    cases: list[tuple[dict[str, object], type[Exception], str]] = [
        ({"model": five}, UnknownArchitecture, "5 classes"),
        ({"model": five, "classes": 5}, TrainingError, "label 9"),
        ({"model": ModelFile(five.path, "0" * 64)}, ContentMismatch, "digest"),
        ({"data": DataSpec("cifar10", None, shared)}, DatasetUnavailable, "Dataset not found"),
        ({"device": "cuda:7"}, SettingsError, "cuda:7 is not on this machine"),
    ]
    for change, error, words in cases:
        with pytest.raises(error, match=words):
            run(dataclasses.replace(spec, **change), tmp_path)  # type: ignore[arg-type]


def test_inspecting_tells_network_size_and_speed(spec: TrainSpec, tmp_path: Path) -> None:
    """What the decision to join needs, from a file that passed every check."""
    hooks = Hooks(itertools.count(0.0, 0.05).__next__, lambda _: None, lambda: False)
    info = inspect_model(InspectSpec(spec.model.path, 3_000_000, spec.model.sha256), hooks)
    assert (info.architecture, info.classes, info.parameters) == ("simple_cnn", 10, 586_250)
    assert info.sha256 == spec.model.sha256
    assert info.samples_per_s > 0
    bad = tmp_path / "bad.pt"
    bad.write_bytes(serialise({"w": torch.tensor(float("nan"))}))
    with pytest.raises(HostileFile, match="not finite"):
        inspect_model(InspectSpec(bad, 3_000_000), hooks)


def test_devices_are_probed_and_cpu_stays_in_single_precision() -> None:
    """On a CPU nothing is computed in less than float32; thread counts are as asked for."""
    device = choose_device("cpu", 1)
    assert device == Device("cpu", None, 1)
    with device.precision():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32
    with Device("cpu", torch.bfloat16, 1).precision():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16


def test_a_network_holds_copies_of_the_weights(spec: TrainSpec) -> None:
    """Training changes the network, never the base that the artefact is measured from."""
    base = SimpleCNN(3).state_dict()
    kept = {key: value.clone() for key, value in base.items()}
    model = Architecture("simple_cnn", 3).with_weights(base)
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.requires_grad
            parameter.add_(1)
    assert all(torch.equal(base[key], kept[key]) for key in base)
