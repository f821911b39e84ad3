"""The v1 network's scoring rule: baseline, one score per submission, shares.

Written from the network's published behaviour with torchvision's transforms and DataLoader.
It is deliberately no part of the training core and shares nothing with it.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.localnet.actors.images import IdxImages, batches
from decloud_trainer.localnet.actors.shares import FAILED, contribution_bps, fallback_split
from decloud_trainer.localnet.actors.simple_cnn import SimpleCNN

MAX_FILE_BYTES = 64 * 2**20  # a SimpleCNN in float64 is 4.7 MB
STEP = 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Score:
    """What a submission got.

    Attributes:
        after: accuracy in percent with the submission applied; None if it could not be scored.
        improvement: percentage points over the baseline; -100 if it could not be scored.
        bps: its share in basis points.
        error: why it could not be scored, or "".
    """

    trainer: str
    after: float | None
    improvement: float
    bps: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A scored round.

    Attributes:
        baseline: accuracy of the unchanged model in percent; None if the round as such could
            not be scored and all submitters share equally.
        samples: size of the held-out split, 0 with `baseline` None.
        scores: in the order of the submissions.
        settled: False when no submission could be scored: no share is set and the round is
            left to its time-out.
    """

    baseline: float | None
    samples: int
    scores: tuple[Score, ...]
    settled: bool
    error: str = ""


class HeldOut:
    """A held-out split, transformed once and kept: every model sees the very same batches.

    Raises:
        DatasetUnavailable: the data isn't there, or is no IDX.
    """

    def __init__(self, folder: Path) -> None:
        self.batches = list(batches(IdxImages(folder, "test")))
        self.samples = sum(len(labels) for _, labels in self.batches)
        if not self.samples:
            raise DatasetUnavailable(f"{folder}: the held-out split is empty")


def accuracy(model: SimpleCNN, held_out: HeldOut) -> float:
    """Percent of the held-out split that the model names right, in evaluation mode."""
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in held_out.batches:
            correct += int((model(images).argmax(dim=1) == labels).sum())
    return 100 * correct / held_out.samples


def baseline_score(model_file: Path, held_out: HeldOut) -> int:
    """The number for ``start_training``: hundredths of a percent, truncated.

    Raises whatever loading a stranger's file can raise; the caller sends 0 then.
    """
    return int(accuracy(load_model(model_file), held_out) * 100)


def load_model(path: Path) -> SimpleCNN:
    """A fresh network with the weights of a round's model file, strictly by key and shape."""
    model = SimpleCNN()
    model.load_state_dict(load_untrusted(path))
    return model


def load_untrusted(path: Path) -> Any:
    """What `torch.load` makes of a stranger's file, without code and within bounds.

    The bound on the unpacked size keeps a small deflated archive from filling the memory; the
    network's own validator has none, and no honest file comes near it.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_FILE_BYTES:
            raise ValueError(f"unpacks to {unpacked} bytes, at most {MAX_FILE_BYTES} are allowed")
    return torch.load(path, map_location="cpu", weights_only=True)


def apply_gradient(model: SimpleCNN, gradient: Any) -> None:
    """``param <- param - 0.1 * g`` in place for each named parameter that the file has.

    Missing keys keep the base's value, keys of no parameter are ignored. In place: a float64
    file is subtracted in double precision and rounded once.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in gradient:
                step = gradient[name]
                if isinstance(step, torch.Tensor):
                    # Before the product: a file of one number can claim a shape of terabytes.
                    step.expand_as(parameter)
                parameter.sub_(STEP * step)


def score_round(
    fetch_model: Callable[[], Path],
    load_held_out: Callable[[], HeldOut],
    submissions: Sequence[tuple[str, Callable[[], Path]]],
) -> Verdict:
    """Score all submissions of a round.

    Args:
        fetch_model: gives the path of the round's model.
        load_held_out: gives the split; when it or the model fails, all submitters share alike.
        submissions: (trainer, fetch) in the order of getProgramAccounts; `fetch` gives the
            path of the downloaded file, or raises.
    """
    try:
        model_file = fetch_model()
        held_out = load_held_out()
        baseline = accuracy(load_model(model_file), held_out)
    except Exception as error:  # the network's rule: any error means equal shares
        log.warning("the round can't be scored, all submitters share equally", exc_info=True)
        return _unscored(submissions, _brief(error))
    scored = [_score(model_file, held_out, fetch, baseline) for _, fetch in submissions]
    shares = contribution_bps([improvement for _, improvement, _ in scored])
    scores = tuple(
        Score(trainer, after, improvement, bps, error)
        for (trainer, _), (after, improvement, error), bps in zip(
            submissions, scored, shares or [0] * len(scored), strict=True
        )
    )
    return Verdict(baseline, held_out.samples, scores, settled=shares is not None)


def _score(
    model_file: Path, held_out: HeldOut, fetch: Callable[[], Path], baseline: float
) -> tuple[float | None, float, str]:
    try:
        model = load_model(model_file)
        apply_gradient(model, load_untrusted(fetch()))
        after = accuracy(model, held_out)
    except Exception as error:  # the network's rule: any error is -100
        log.warning("a submission can't be scored", exc_info=True)
        return None, FAILED, _brief(error)
    return after, after - baseline, ""


def _unscored(submissions: Sequence[tuple[str, Callable[[], Path]]], error: str) -> Verdict:
    shares = fallback_split(len(submissions)) if submissions else []
    scores = tuple(
        Score(trainer, None, 0.0, bps)
        for (trainer, _), bps in zip(submissions, shares, strict=True)
    )
    return Verdict(None, 0, scores, settled=bool(submissions), error=error)


def _brief(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
