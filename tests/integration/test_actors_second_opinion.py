"""The validator as a second opinion: it catches what would be wrong in the training core."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decloud_trainer.localnet.actors.datasets import DIGITS
from decloud_trainer.localnet.actors.images import IdxImages, batches
from decloud_trainer.localnet.actors.scoring import HeldOut, Score, Verdict, score_round
from decloud_trainer.localnet.actors.shipped import MODEL
from decloud_trainer.training import classifier_task, runs
from decloud_trainer.training.data import datasets, decoded
from decloud_trainer.training.results import Preview, TrainResult
from decloud_trainer.training.scoring import scoring_batches
from decloud_trainer.training.spec import ArtifactSpec, DataSpec, ModelFile, TrainSpec


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    return HeldOut(DIGITS)


def train(folder: Path, apply_scale: float = -0.1, **changes: Any) -> Preview:
    """Really train on digits; the trainer's own opinion of its artefact."""
    digits = DataSpec("digits", None, folder / "data")
    spec = TrainSpec(
        ModelFile(MODEL, hashlib.sha256(MODEL.read_bytes()).hexdigest()),
        "simple_cnn",
        10,
        digits,
        digits,
        max_batches=20,
        device="cpu",
        threads=1,
        artifact=ArtifactSpec(apply_scale, **changes),
        until_improved=False,
    )
    hooks = runs.Hooks(time.time, lambda _: None, lambda: False)
    result: TrainResult = runs.train_model(spec, folder, hooks)
    assert result.preview is not None
    return result.preview


def judge(folder: Path, held_out: HeldOut) -> tuple[Verdict, Score]:
    verdict = score_round(
        lambda: MODEL, lambda: held_out, [("trainer", lambda: folder / runs.ARTIFACT)]
    )
    return verdict, verdict.scores[0]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_trainer_and_validator_agree(tmp_path: Path, held_out: HeldOut, dtype: str) -> None:
    """The preview is the validator's number, before and after."""
    preview = train(tmp_path, dtype=dtype)
    verdict, score = judge(tmp_path, held_out)
    assert verdict.baseline == pytest.approx(preview.before, abs=0.01)
    assert score.after == pytest.approx(preview.after, abs=0.01)
    assert score.improvement > 20
    assert preview.samples == verdict.samples == 450


@pytest.mark.parametrize("apply_scale", [0.1, 1.0, -1.0])
def test_a_wrong_sign_or_scale_is_caught(
    tmp_path: Path, held_out: HeldOut, apply_scale: float
) -> None:
    """A trainer with another convention believes in its work; the validator doesn't."""
    preview = train(tmp_path, apply_scale)
    _, score = judge(tmp_path, held_out)
    assert preview.improvement > 20
    assert score.after is not None
    assert score.after < preview.after - 10


def nearest(images: Any) -> Any:
    return np.ascontiguousarray(images.repeat(4, axis=1).repeat(4, axis=2))


def in_0_to_1(grey: torch.Tensor, memory_format: torch.memory_format) -> torch.Tensor:
    scaled = (grey.to(torch.float32) / 255).unsqueeze(1).expand(-1, 3, -1, -1)
    return scaled.contiguous(memory_format=memory_format)


@pytest.mark.parametrize(
    ("module", "name", "wrong"),
    [(decoded, "resize", nearest), (classifier_task, "normalise", in_0_to_1)],
    ids=["nearest-resize", "not-normalised"],
)
def test_a_wrong_input_is_caught(
    tmp_path: Path,
    held_out: HeldOut,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    wrong: Any,
) -> None:
    """Images resized or scaled otherwise show up as numbers that aren't the validator's."""
    monkeypatch.setattr(module, name, wrong)
    preview = train(tmp_path)
    verdict, score = judge(tmp_path, held_out)
    assert verdict.baseline is not None
    assert score.after is not None
    assert abs(preview.before - verdict.baseline) > 0.1
    assert abs(preview.after - score.after) > 0.1


def test_the_inputs_are_equal_to_the_byte(tmp_path: Path) -> None:
    """Our preprocessing and torchvision's transforms give the same tensors."""
    loaded = datasets.load(DataSpec("digits", None, tmp_path)).split("test")
    theirs = torch.cat([images for images, _ in batches(IdxImages(DIGITS, "test"))])
    ours = torch.cat([images for images, _ in scoring_batches(loaded)])
    assert torch.equal(ours, theirs)
