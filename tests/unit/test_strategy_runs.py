"""The settings of a training strategy reach the training, and each of them does something."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from decloud_trainer import config, plans
from decloud_trainer.errors import SettingsError
from decloud_trainer.training.artifacts import serialise
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.networks import SimpleCNN
from decloud_trainer.training.record import RECORD, read
from decloud_trainer.training.runs import train_model
from decloud_trainer.training.selection import look_every
from decloud_trainer.training.spec import DataSpec, ModelFile, TrainSpec
from decloud_trainer.training.strategy import Strategy


def strategy_with(**settings: object) -> Strategy:
    """As a user gets it who sets these."""
    loaded = config.load(environ={}, options=settings)
    return Strategy.from_json(plans.strategy_of(loaded.settings))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TrainSpec:
    """Four batches of made-up images on a fresh network."""
    folder = tmp_path_factory.mktemp("shared")
    torch.manual_seed(1)
    data = serialise(SimpleCNN(10).state_dict())
    (folder / "model.pt").write_bytes(data)
    model = ModelFile(folder / "model.pt", hashlib.sha256(data).hexdigest())
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (240, 32, 32), dtype=np.uint8)
    np.savez(folder / "images" / "train.npz", images=images, labels=np.arange(240) % 10)
    images_spec = DataSpec("mnist", folder / "images", folder / "data")
    return TrainSpec(
        model, "simple_cnn", 10, images_spec, None, max_batches=4, threads=1, device="cpu"
    )


@pytest.fixture(scope="module")
def default_digest(spec: TrainSpec, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the artefact that the default strategy makes."""
    return trained(spec, Strategy(), tmp_path_factory.mktemp("default"))


def trained(spec: TrainSpec, strategy: Strategy, folder: Path) -> str:
    spec = dataclasses.replace(spec, strategy=strategy)
    return train_model(spec, folder, Hooks(clock=lambda: 0.0)).sha256


def test_the_default_settings_are_the_measured_strategy() -> None:
    """Whoever sets nothing gets the defaults of the training core."""
    assert strategy_with() == Strategy()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("optimizer", "sgd"),
        ("schedule", "cosine"),
        ("warmup", 0.5),
        ("averaging", "none"),
        ("label_smoothing", 0.3),
        ("augment", "light"),
        ("weight_decay", 0.1),
        ("clip_norm", 0.01),
        ("validation_split", 0.2),
    ],
)
def test_every_setting_changes_what_is_trained(
    spec: TrainSpec, default_digest: str, tmp_path: Path, setting: str, value: object
) -> None:
    """No setting is taken and ignored."""
    assert trained(spec, strategy_with(**{setting: value}), tmp_path) != default_digest


def test_patience_ends_a_run_that_gets_no_better(spec: TrainSpec, tmp_path: Path) -> None:
    """A rate of nearly nothing changes nothing: the second look, more than two epochs after the
    first, finds nothing better and ends the run. Between looks nothing is known, so it goes on."""
    hopeless = dataclasses.replace(
        spec,
        strategy=strategy_with(validation_split=0.25, patience=2, averaging="none"),
        epochs=100,
        batch_size=64,
        max_batches=1,
        learning_rate=1e-30,
    )
    result = train_model(hopeless, tmp_path, Hooks(clock=lambda: 0.0))
    assert result.stopped == "patience"
    between_looks = look_every(60, 64, 1, averages=False)
    assert between_looks > 2
    assert result.epochs == 2 * between_looks


def test_a_part_too_small_to_choose_by_is_said(spec: TrainSpec, tmp_path: Path) -> None:
    """A tenth of 240 images is not held out: all are trained on, and the record says why."""
    small = dataclasses.replace(spec, strategy=Strategy(validation=0.1, patience=1), epochs=3)
    result = train_model(small, tmp_path, Hooks(clock=lambda: 0.0))
    assert (result.stopped, result.epochs) == ("complete", 3)
    (note,) = read(tmp_path / RECORD).notes
    assert note == "nothing was held out to choose by: a part of 0.1 of 240 samples is less than 50"


def test_patience_without_a_held_out_part_is_refused() -> None:
    """The mistake is told when the settings are read, with the setting that is missing."""
    with pytest.raises(SettingsError, match="validation_split"):
        strategy_with(patience=3)
