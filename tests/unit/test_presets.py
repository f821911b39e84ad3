"""The presets that belong to this program: complete, valid, and named when one is misspelt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decloud_trainer import config, presets
from decloud_trainer.errors import SettingsError

SHIPPED = {
    "cifar-only": (("cifar10", "cifar100"), 0, 0),
    "high-reward": ((), 100_000_000, 0),
    "image-all": (
        ("cifar10", "cifar100", "mnist", "fashionmnist", "emnist", "kmnist", "svhn"),
        0,
        0,
    ),
    "image-small": (("mnist", "fashionmnist", "cifar10"), 0, 0),
    "mnist-only": (("mnist", "fashionmnist", "emnist", "kmnist"), 0, 0),
    "quick-test": (("cifar10", "mnist"), 0, 50),
    "text-all": (("imdb", "sst2", "agnews"), 0, 0),
}


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_preset_is_what_the_documents_say(name: str, tmp_path: Path) -> None:
    """Datasets, least reward and batches; a description for the list."""
    preset = presets.load(name)
    datasets, least, batches = SHIPPED[name]
    loaded = config.load(
        path=tmp_path / "none.json", preset=(preset.name, preset.values), environ={}
    )
    settings = loaded.settings
    assert settings.datasets == datasets
    assert (settings.min_reward_lamports, settings.max_batches) == (least, batches)
    assert settings.preset == name
    assert len(preset.description) > 5


def test_every_preset_is_there_and_complete() -> None:
    """A preset sets all of what presets set, so that none of another one stays behind."""
    assert set(presets.names()) == set(SHIPPED)
    keys = {frozenset(presets.load(name).values) for name in SHIPPED}
    assert len(keys) == 1


def test_a_preset_lies_above_the_file_and_below_options(tmp_path: Path) -> None:
    """For its session alone: the file isn't touched."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"epochs": 7, "datasets": ["svhn"], "threads": 3}))
    preset = presets.load("quick-test")
    loaded = config.load(
        path=path, preset=(preset.name, preset.values), options={"epochs": 2}, environ={}
    )
    assert loaded.settings.datasets == ("cifar10", "mnist")
    assert (loaded.settings.epochs, loaded.settings.threads) == (2, 3)
    assert loaded.sources["datasets"] == "preset quick-test"


@pytest.mark.parametrize("name", ["nothing", "", "../config", "quick-test.json"])
def test_a_name_that_is_none_is_answered_with_those_there_are(name: str) -> None:
    """Also what would be a path."""
    with pytest.raises(SettingsError) as caught:
        presets.load(name)
    assert "quick-test" in caught.value.hint
