"""The child that trains images trains tables and texts, too; a preview says what that was worth."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from workers import Event, working

from decloud_trainer.errors import TrainingError, UnknownArchitecture
from decloud_trainer.training.artifacts import serialise
from decloud_trainer.training.encoders import EncoderSizes
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.inspection import inspect_model
from decloud_trainer.training.networks import MLP, Architecture, TextCNN
from decloud_trainer.training.results import ModelInfo, TrainResult
from decloud_trainer.training.runs import train_model
from decloud_trainer.training.spec import InspectSpec, TrainSpec

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fine", "great", "dull", "awful", "the"]
SIZES = EncoderSizes(vocabulary=len(WORDS), positions=32, width=128, layers=1, inner=32)


def trained(folder: Path, spec: Event) -> TrainResult:
    return train_model(TrainSpec.from_json(spec), folder, Hooks(time.time))


def inspected(model: Path) -> ModelInfo:
    spec = InspectSpec(model, max_bytes=10**8, threads=1)
    return inspect_model(spec, Hooks(time.time))


def model_file(tmp_path: Path, network: torch.nn.Module) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(serialise(network.state_dict()))
    return path


def corpus(tmp_path: Path) -> Path:
    """Sentences of a few words, half of them with a kind one, half with an unkind one."""
    mixed = random.Random(0)
    rows = []
    for number in range(200):
        word = mixed.choice([["dull", "awful"], ["fine", "great"]][number % 2])
        filler = ["the"] * mixed.randrange(6)
        rows.append(f"{' '.join([*filler, word, *filler])},{number % 2}")
    path = tmp_path / "corpus" / "reviews.csv"
    path.parent.mkdir()
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def training(tmp_path: Path, model: Path, data: Event, **changes: Any) -> Event:
    return {
        "model": {"path": str(model), "sha256": hashlib.sha256(model.read_bytes()).hexdigest()},
        "data": data,
        "preview": data,
        "threads": 1,
        "until_improved": False,
        **changes,
    }


def test_a_table_is_trained(tmp_path: Path) -> None:
    """An mlp on iris: recognised, trained, scored on rows that it never saw."""
    torch.manual_seed(0)
    model = model_file(tmp_path, MLP(4, 3))
    found = inspected(model)
    assert (found.architecture, found.classes, found.modality, found.columns) == (
        *("mlp", 3, "tabular", 4),
    )
    assert found.samples_per_s > 0
    data = {"name": "iris", "path": None, "data_dir": str(tmp_path / "data")}
    job = training(tmp_path, model, data, architecture="mlp", classes=3, epochs=40)
    env = {"HOME": str(tmp_path), "PATH": ""}
    with working(tmp_path, "train", job | {"learning_rate": 0.01}, env=env) as worker:
        result = worker.result()
    assert result["preview"]["samples"] == 30
    assert result["preview"]["after"] > 85
    wine = {**data, "name": "wine"}
    with pytest.raises(TrainingError, match="wine has 13 columns, the model takes 4"):
        trained(tmp_path, job | {"data": wine, "preview": None})
    digits = {**data, "name": "digits"}
    with pytest.raises(TrainingError, match="digits holds images, but mlp takes rows of numbers"):
        trained(tmp_path, job | {"data": digits, "preview": None})


@pytest.mark.parametrize("name", ["text_cnn", "distilbert"])
def test_texts_are_trained(tmp_path: Path, name: str) -> None:
    """Words of our own for the one, a tokenizer in a folder for the other."""
    torch.manual_seed(0)
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    if name == "text_cnn":
        network: torch.nn.Module = TextCNN(2)
    else:
        network = Architecture(name, 2, encoder=SIZES).empty().to_empty(device="cpu")
        for value in network.state_dict().values():
            value.normal_(0, 0.1)
    model = model_file(tmp_path, network)
    data = {"name": "mine", "path": str(corpus(tmp_path)), "data_dir": str(tmp_path / "data")}
    job = training(tmp_path, model, data, architecture=name, classes=2, epochs=6)
    job |= {"batch_size": 16, "learning_rate": 0.005}
    result = trained(tmp_path, job | {"tokenizer": str(tokenizer)})
    assert result.preview is not None
    assert result.preview.samples == 40
    assert result.preview.after >= 95 > 80 > result.preview.before
    if name == "distilbert":
        (tokenizer / "vocab.txt").write_text("\n".join([*WORDS, "more"]) + "\n")
        with pytest.raises(TrainingError, match="has 11 tokens, the model knows 10"):
            trained(tmp_path, job | {"tokenizer": str(tokenizer)})


def test_without_a_tokenizer_the_model_is_refused(tmp_path: Path) -> None:
    """Before a round is joined, with what would help."""
    network = Architecture("distilbert", 2, encoder=SIZES).empty().to_empty(device="cpu")
    for value in network.state_dict().values():
        value.zero_()
    with pytest.raises(
        UnknownArchitecture, match=r"distilbert .* no tokenizer for it is"
    ) as caught:
        inspected(model_file(tmp_path, network))
    assert "tokenizer_path" in caught.value.hint
