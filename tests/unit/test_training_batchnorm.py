"""Networks with batch normalisation: what is trained is what is scored, under both conventions."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import referee
import torch
from torch import Tensor, nn
from torchvision import models

from decloud_trainer.errors import HostileFile, SettingsError
from decloud_trainer.training import selection
from decloud_trainer.training.artifacts import MODEL_DTYPES, load_model, parse, serialise
from decloud_trainer.training.classifier_task import ClassifierTask
from decloud_trainer.training.convention import carried, measure_statistics, submittable
from decloud_trainer.training.data.samples import Samples
from decloud_trainer.training.device import Device
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.inspection import inspect_model
from decloud_trainer.training.networks import Architecture, MediumCNN
from decloud_trainer.training.runs import train_model
from decloud_trainer.training.spec import (
    ArtifactSpec,
    DataSpec,
    InspectSpec,
    ModelFile,
    TrainSpec,
)

CPU = Device("cpu", None, 1)
HOOKS = Hooks(lambda: 0.0, lambda _: None, lambda: False)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TrainSpec:
    """Four batches of digits on a fresh resnet18, as a creator's script saves it."""
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(1)
    path = folder / "model.pt"
    torch.save(models.resnet18(num_classes=10).state_dict(), path)
    model = ModelFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
    digits = DataSpec("digits", None, folder / "data")
    return TrainSpec(
        model,
        "resnet18",
        10,
        digits,
        digits,
        max_batches=4,
        threads=1,
        device="cpu",
        until_improved=False,
    )


@pytest.mark.parametrize(
    ("convention", "scale", "dtype"),
    [("descent-0.1", -0.1, "float32"), ("delta", 1.0, "float16")],
)
def test_the_preview_is_the_number_that_the_scoring_side_gets(
    spec: TrainSpec, tmp_path: Path, convention: str, scale: float, dtype: str
) -> None:
    """For resnet18 under either convention, an independent scorer gets the previewed accuracies,
    and four batches are worth much."""
    changed = dataclasses.replace(spec, artifact=ArtifactSpec(scale, dtype))
    result = train_model(changed, tmp_path, HOOKS)
    assert result.preview is not None
    network = models.resnet18(num_classes=10)
    found = referee.scored(network, spec.model.path, tmp_path / result.artifact, convention)
    assert (result.preview.before, result.preview.after) == found
    assert result.preview.improvement > 25
    held = torch.load(tmp_path / result.artifact, weights_only=True)
    buffers = {key: value.dtype for key, value in held.items() if "running" in key}
    assert not any("num_batches" in key for key in held)
    if convention == "descent-0.1":
        assert set(held) == {name for name, _ in models.resnet18(num_classes=10).named_parameters()}
    else:
        assert set(buffers.values()) == {torch.float64}, "statistics are never rounded"
        assert held["conv1.weight"].dtype == torch.float16


def small_net() -> tuple[nn.Module, dict[str, Tensor], dict[str, Tensor]]:
    """A network of ours after some training, its state, and the base that it came from."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 4))
    base = {key: value.clone() for key, value in model.state_dict().items()}
    base["1.running_var"] *= 3.0
    base["1.running_mean"] += 0.25
    with torch.no_grad():
        for _ in range(5):
            model(torch.randn(16, 3, 8, 8) * 2 + 1)
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model, {key: value.clone() for key, value in model.state_dict().items()}, base


def test_weights_make_up_for_buffers_that_stay() -> None:
    """With the base's buffers, what is submitted computes what was trained with its own."""
    model, trained, base = small_net()
    names = [name for name, _ in model.named_parameters()]
    state = {**base, **submittable(model, trained, base, names)}
    x = torch.randn(4, 3, 8, 8)
    with torch.inference_mode():
        expected = model.eval()(x)
        model.load_state_dict(base)
        assert not torch.allclose(model(x), expected, atol=0.1)
        model.load_state_dict(state)
        assert torch.allclose(model(x), expected, atol=1e-4)


def test_where_buffers_are_carried_nothing_is_made_up_for() -> None:
    """Under the delta convention the trained values go out as they are; counters never do."""
    model, trained, base = small_net()
    floats = [key for key, value in trained.items() if value.is_floating_point()]
    state = submittable(model, trained, base, floats)
    assert all(torch.equal(state[key], trained[key]) for key in floats)
    architecture = Architecture("resnet18", 10)
    descent, delta = carried(architecture, -0.1), carried(architecture, 1.0)
    assert set(delta) - set(descent) == {k for k in delta if "running_" in k} != set()
    assert not any("num_batches" in key for key in delta)
    simple = Architecture("simple_cnn", 10)
    assert carried(simple, -0.1) == carried(simple, 1.0) == simple.shapes()


def test_statistics_are_the_mean_over_the_inputs_given() -> None:
    """Measured anew, without dropout, and without touching a weight or the momentum."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=0.25))
    model[1].running_mean += 100.0
    inputs = [torch.randn(50, 3) + shift for shift in (1.0, 2.0, 6.0)]
    measure_statistics(model, inputs, CPU)
    assert torch.allclose(model[1].running_mean, torch.full((3,), 3.0), atol=0.3)
    assert torch.allclose(model[1].running_mean, torch.cat(inputs).mean(0), atol=1e-5)
    assert model[1].momentum == 0.25
    assert all(
        bool((parameter == value).all())
        for parameter, value in zip(model.parameters(), (1.0, 0.0), strict=True)
    )


def test_equal_specs_give_equal_bytes(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measuring the statistics is repeatable, too: the same file, so the same CID."""
    monkeypatch.setattr(selection, "MEASURED_BATCHES", 3)
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        short = dataclasses.replace(spec, max_batches=2, preview=None)
        digests.append(train_model(short, tmp_path / name, HOOKS).sha256)
    assert digests[0] == digests[1]


def test_inspecting_counts_parameters_and_memory(spec: TrainSpec) -> None:
    """Buffers are no parameters; the memory for the batch size asked for is told."""
    clock = itertools.count(0.0, 0.5).__next__
    hooks = dataclasses.replace(HOOKS, clock=clock)
    wanted = InspectSpec(spec.model.path, 50_000_000, device="cpu", threads=1, batch_size=64)
    info = inspect_model(wanted, hooks)
    assert (info.architecture, info.classes, info.parameters) == ("resnet18", 10, 11_181_642)
    assert 1_200_000_000 < info.memory_bytes < 2_000_000_000
    with pytest.raises(SettingsError, match="batches of one sample"):
        inspect_model(dataclasses.replace(wanted, batch_size=1), hooks)


def test_the_speed_of_a_slow_network_is_measured_on_one_batch(spec: TrainSpec) -> None:
    """Where the first batch takes all the time that there is for measuring, it is the measure."""
    looks = itertools.count()

    def clock() -> float:
        """Ten seconds pass whenever someone looks."""
        return 10.0 * next(looks)

    wanted = InspectSpec(spec.model.path, 50_000_000, device="cpu", threads=1)
    info = inspect_model(wanted, dataclasses.replace(HOOKS, clock=clock))
    assert next(looks) < 12
    assert info.samples_per_s >= 0


def test_a_last_batch_of_one_sample_is_left_out() -> None:
    """Batch normalisation has no statistics of one sample; other networks lose none."""
    samples = Samples(np.zeros((9, 32, 32), np.uint8), np.zeros(9, np.int64))
    sizes = {}
    for name in ("medium_cnn", "simple_cnn"):
        architecture = Architecture(name, 2)
        state = {k: torch.zeros(s) for k, s in architecture.shapes().items()}
        task = ClassifierTask(architecture.with_weights(state), samples, 4, 0, CPU)
        sizes[name] = [len(labels) for _, labels in task.batches(1)]
        assert len(sizes[name]) == task.batches_per_epoch
    assert sizes == {"medium_cnn": [4, 4], "simple_cnn": [4, 4, 1]}
    with pytest.raises(SettingsError, match="batches of one sample"):
        ClassifierTask(MediumCNN(2), samples, 1, 0, CPU)


@pytest.mark.parametrize(
    ("counter", "words"),
    [
        (torch.tensor(3.0), "has the type float32, allowed: int64"),
        (torch.tensor(3, dtype=torch.int32), "has the type int32"),
        (torch.tensor([3]), "must be a single number"),
        (torch.tensor(-3), "counts -3 batches"),
    ],
)
def test_counters_are_single_whole_numbers(tmp_path: Path, counter: Tensor, words: str) -> None:
    """Exactly int64 and without dimensions, in a model file; nothing else may be an integer."""
    path = tmp_path / "model.pt"
    good = {"bn.weight": torch.ones(2), "bn.num_batches_tracked": torch.tensor(7)}
    path.write_bytes(serialise(good))
    assert int(load_model(path, 10**6).tensors["bn.num_batches_tracked"]) == 7
    path.write_bytes(serialise({**good, "bn.num_batches_tracked": counter}))
    with pytest.raises(HostileFile, match=words):
        load_model(path, 10**6)
    path.write_bytes(serialise({**good, "bn.bias": torch.tensor(7)}))
    with pytest.raises(HostileFile, match="has the type int64"):
        load_model(path, 10**6)
    with pytest.raises(HostileFile, match="has the type int64"):
        parse(serialise(good), MODEL_DTYPES)
