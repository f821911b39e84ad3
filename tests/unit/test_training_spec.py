"""Specs and results: checked at birth, the same after a trip through JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decloud_trainer.errors import SettingsError
from decloud_trainer.training.choices import Choices
from decloud_trainer.training.commit_plan import CommitPlan
from decloud_trainer.training.results import DataInfo, ModelInfo, Preview, Progress, TrainResult
from decloud_trainer.training.spec import DataSpec, InspectSpec, PrepareSpec, TrainSpec
from decloud_trainer.training.strategy import Strategy

DATA: dict[str, Any] = {"name": "fashionmnist", "path": None, "data_dir": "/cache"}
TRAIN: dict[str, Any] = {
    "model": {"path": "/jobs/1/model.pt", "sha256": "ab" * 32},
    "architecture": "simple_cnn",
    "classes": 10,
    "data": DATA,
    "preview": DATA,
    "epochs": 1,
    "batch_size": 32,
    "learning_rate": 0.001,
    "max_batches": 0,
    "seed": 0,
    "device": "auto",
    "threads": 0,
    "artifact": {"apply_scale": -0.1, "dtype": "float32"},
    "deadline": None,
    "until_improved": True,
    "strategy": Strategy.plain().to_json(),
    "precision": "float32",
    "checkpoint_every_s": 30.0,
    "choices": None,
    "tensorboard": False,
    "tokenizer": None,
    "commits": CommitPlan().to_json(),
}


def with_value(path: str, value: Any) -> dict[str, Any]:
    spec = json.loads(json.dumps(TRAIN))
    *parents, last = path.split(".")
    target = spec
    for parent in parents:
        target = target[parent]
    target[last] = value
    return spec  # type: ignore[no-any-return]


def test_a_train_spec_survives_json() -> None:
    """What is written is what was read, field by field."""
    spec = TrainSpec.from_json(TRAIN)
    assert spec.to_json() == TRAIN
    assert TrainSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert spec.data.data_dir == Path("/cache")


def test_a_replay_survives_json() -> None:
    """A spec with an earlier run's choices is the same after a trip; they tell each step's plan."""
    choices = Choices(stop_step=9, micro_batches=((4, 2),), rate_changes=((0, 0.5), (6, 0.25)))
    spec = TrainSpec.from_json({**TRAIN, "epochs": "auto", "choices": choices.to_json()})
    assert TrainSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert [choices.parts(step) for step in (0, 3, 4)] == [1, 1, 2]
    assert [choices.rate_factor(step) for step in (0, 5, 6)] == [0.5, 0.5, 0.25]


def test_what_has_a_default_may_be_left_out() -> None:
    """Only model, architecture, classes, data and preview must be said."""
    needed = {key: TRAIN[key] for key in ("model", "architecture", "classes", "data", "preview")}
    assert TrainSpec.from_json(needed) == TrainSpec.from_json(TRAIN)


def test_dataset_names_have_one_spelling() -> None:
    """FashionMnist, fashion-mnist and fashion_mnist are one dataset."""
    for name in ("FashionMnist", "fashion-mnist", "fashion_mnist"):
        assert DataSpec.from_json({**DATA, "name": name}).name == "fashionmnist"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("epochs", 0, "epochs"),
        ("epochs", "3", "epochs must be a whole number"),
        ("precision", "float8", "precision"),
        ("checkpoint_every_s", -1, "checkpoint_every_s"),
        ("strategy.optimizer", "rmsprop", "optimizer"),
        ("choices", {"stop_step": 3, "chosen_step": 4}, "chosen_step"),
        ("choices", {"rate_changes": [[1]]}, "rate_changes"),
        ("epochs", True, "epochs"),
        ("epochs", 1.5, "epochs"),
        ("batch_size", 0, "batch_size"),
        ("max_batches", -1, "max_batches"),
        ("seed", 2**63, "seed"),
        ("threads", -1, "threads"),
        ("classes", 1, "classes"),
        ("learning_rate", 0, "learning_rate"),
        ("learning_rate", float("nan"), "learning_rate"),
        ("learning_rate", "0.1", "learning_rate"),
        ("deadline", float("inf"), "deadline"),
        ("device", "tpu", "device"),
        ("architecture", "resnet19", "architecture"),
        ("until_improved", 1, "until_improved"),
        ("model.sha256", "AB" * 32, "sha256"),
        ("model.path", "model.pt", "absolute"),
        ("data.path", "relative", "absolute"),
        ("data.name", "../etc", "no dataset name"),
        ("data.name", 7, "must be a text"),
        ("data.data_dir", None, "data_dir"),
        ("artifact.dtype", "int8", "int8"),
        ("artifact.apply_scale", 0, "apply_scale"),
        ("artifact", [], "JSON object"),
        ("commits", {"commit_interval": 5}, "commit_interval requires auto_commit"),
        ("commits", {"auto_commit": True, "commit_interval": 0}, "1 or more"),
        ("commits", {"auto_commit": 1}, "true or false"),
        ("commits", {"message": "{price}"}, "unknown field"),
        ("surprise", 1, "has no field surprise"),
    ],
)
def test_wrong_values_are_refused_at_birth(path: str, value: Any, words: str) -> None:
    """A spec that could fail later in a training child is refused before, by the field's name."""
    with pytest.raises(SettingsError, match=words):
        TrainSpec.from_json(with_value(path, value))


def test_missing_fields_are_named() -> None:
    """A spec without its model says so."""
    with pytest.raises(SettingsError, match="TrainSpec lacks model"):
        TrainSpec.from_json({key: value for key, value in TRAIN.items() if key != "model"})


def test_the_other_values_survive_json() -> None:
    """Inspect and prepare specs, and every answer of the child."""
    inspect = InspectSpec(Path("/m.pt"), 1000, "cd" * 32)
    assert InspectSpec.from_json(inspect.to_json()) == inspect
    prepare = PrepareSpec.from_json({"data": DATA})
    assert PrepareSpec.from_json(prepare.to_json()) == prepare
    model = ModelInfo("simple_cnn", 10, 586_250, "ab" * 32, 2_348_437, 1500.0)
    assert ModelInfo.from_json(json.loads(json.dumps(model.to_json()))) == model
    data = DataInfo(60_000, 10_000, 10, "ef" * 32)
    assert DataInfo.from_json(json.loads(json.dumps(data.to_json()))) == data
    result = TrainResult(
        artifact="gradient.pt",
        sha256="ab" * 32,
        bytes=1,
        preview=Preview(10.0, 82.5, 10_000),
        epochs=1,
        batches=1,
        samples=1,
        samples_per_s=1.0,
        seconds=1.0,
        loss=(0.5,),
        stopped="complete",
        device="cpu",
        threads=2,
        torch="2.15.0",
    )
    assert TrainResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert result.preview is not None
    assert result.preview.improvement == 72.5


def test_progress_leaves_out_what_is_unknown() -> None:
    """Only known fields travel."""
    assert Progress("load").to_json() == {"stage": "load"}
    assert Progress("train", epoch=1, loss=0.5).to_json() == {
        "stage": "train",
        "epoch": 1,
        "loss": 0.5,
    }
