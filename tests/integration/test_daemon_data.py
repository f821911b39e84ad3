"""Data that can't be had is said before a join, a score that can't be known after training."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import torch
from daemonworld import a_world

from decloud_trainer.rounds.entry import State
from decloud_trainer.training.artifacts import serialise
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.networks import SimpleCNN
from decloud_trainer.training.runs import train_model
from decloud_trainer.training.spec import DataSpec, ModelFile, TrainSpec


async def test_data_that_cannot_be_had_is_said_before_a_join(tmp_path: Path) -> None:
    """The fetch child's sentence ends the round here; no transaction is sent."""
    script = {"prepare": {"fail": "DatasetUnavailable"}}
    async with a_world(tmp_path) as world, world.daemon(script=script) as running:
        number = world.open()
        entry = await running.until(number, State.SKIPPED)
        assert "can't be trained here: scripted failure: DatasetUnavailable" in entry.reason
        assert world.transactions() == {}
        assert await running.history(number) == ["seen", "watching", "skipped"]


async def test_an_unknown_score_is_said(tmp_path: Path) -> None:
    """Without the requested test split, the report says that the score can't be known."""
    script = {"train": {"preview": None}}
    async with a_world(tmp_path) as world, world.daemon(script=script) as running:
        number = world.open()
        await running.until(number, State.JOINED)
        world.net.start_training(number)
        await running.until(number, State.SUBMITTED)
        reasons = [event.entry.reason for event in running.told]
        assert any("score unknown: the scored dataset isn't here" in told for told in reasons)
        assert any("its score can't be previewed here" in told for told in reasons)


def test_a_mapping_without_the_requested_data_has_no_preview(tmp_path: Path) -> None:
    """Trained on digits for another dataset that isn't here, or doesn't fit: no failure."""
    path = tmp_path / "model.pt"
    torch.manual_seed(1)
    path.write_bytes(serialise(SimpleCNN(10).state_dict()))
    digits = DataSpec("digits", None, tmp_path / "data")
    spec = TrainSpec(
        ModelFile(path, hashlib.sha256(path.read_bytes()).hexdigest()),
        "simple_cnn",
        10,
        digits,
        DataSpec("cifar10", None, tmp_path / "data"),
        max_batches=1,
        threads=1,
        device="cpu",
        until_improved=False,
        precision="float32",
        checkpoint_every_s=0.0,
    )
    hooks = Hooks(lambda: 0.0, lambda _: None, lambda: False)
    assert train_model(spec, tmp_path, hooks).preview is None
    # A table is no test for a network of images.
    wine = dataclasses.replace(spec, preview=DataSpec("wine", None, tmp_path / "data"))
    assert train_model(wine, tmp_path, hooks).preview is None
