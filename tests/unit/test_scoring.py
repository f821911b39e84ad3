"""The network's scoring rule, as the local validator keeps it."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.localnet.actors.datasets import DIGITS
from decloud_trainer.localnet.actors.images import IdxImages
from decloud_trainer.localnet.actors.learning import gradient_of, train
from decloud_trainer.localnet.actors.scoring import (
    HeldOut,
    Verdict,
    accuracy,
    apply_gradient,
    baseline_score,
    load_model,
    load_untrusted,
    score_round,
)
from decloud_trainer.localnet.actors.shares import contribution_bps, equal_split, fallback_split
from decloud_trainer.localnet.actors.shipped import MODEL
from decloud_trainer.localnet.actors.simple_cnn import SimpleCNN

Weights = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    ("improvements", "bps"),
    [
        ([5.0], [10_000]),
        ([30.0, 10.0], [7500, 2500]),
        ([1.0, 1.0, 1.0], [3334, 3333, 3333]),  # the remainder goes to the first with a share
        ([-3.0, 1.0, 1.0, 1.0], [0, 3334, 3333, 3333]),
        ([0.0, 4.0], [0, 10_000]),  # no improvement, no share
        ([-100.0, 4.0], [0, 10_000]),
        ([0.0, -2.0], [5000, 5000]),  # none improved: equal among those that could be scored
        ([0.0, -100.0, -2.0, -98.9], [3334, 0, 3333, 3333]),
        ([-1.0] * 7, [1429, 1429, 1429, 1429, 1428, 1428, 1428]),  # one more to the first ones
        ([-99.0, 0.0], [0, 10_000]),  # -99 is failed already
        ([100.0, 0.001], [10_000, 0]),  # too little for one basis point
        ([-100.0, -99.5], None),  # nothing to share: left to the time-out
        ([], None),
    ],
)
def test_shares_follow_the_networks_arithmetic(
    improvements: list[float], bps: list[int] | None
) -> None:
    """Proportional with floors, remainder to the first, equal without improvement."""
    assert contribution_bps(improvements) == bps
    assert bps is None or sum(bps) == 10_000


@pytest.mark.parametrize("count", range(1, 11))
def test_equal_splits_use_up_the_whole(count: int) -> None:
    """Both equal splits sum to 10,000; they differ in where the remainder goes."""
    spread, first = equal_split(count), fallback_split(count)
    assert sum(spread) == sum(first) == 10_000
    assert max(spread) - min(spread) <= 1
    assert len(set(first[1:])) <= 1


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    torch.set_num_threads(1)
    return HeldOut(DIGITS)


@pytest.fixture(scope="module")
def base() -> SimpleCNN:
    return load_model(MODEL)


@pytest.fixture(scope="module")
def trained(base: SimpleCNN) -> SimpleCNN:
    torch.set_num_threads(1)
    return train(base, IdxImages(DIGITS, "train"), seed=1, batches=20)


@pytest.fixture
def verdict(tmp_path: Path, held_out: HeldOut) -> Callable[..., Verdict]:
    """Score files on the shipped model: bytes, or a state_dict to be saved."""

    def score(*files: bytes | Weights) -> Verdict:
        fetches = []
        for index, content in enumerate(files):
            path = tmp_path / f"{index}.pt"
            path.write_bytes(content if isinstance(content, bytes) else saved(content))
            fetches.append((f"trainer{index}", lambda path=path: path))
        return score_round(lambda: MODEL, lambda: held_out, fetches)

    return score


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_the_shipped_model_has_begun_and_leaves_work(held_out: HeldOut) -> None:
    """Ten classes, float32, about 2.35 MB, better than chance and far from done."""
    weights = load_untrusted(MODEL)
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert sum(value.numel() for value in weights.values()) == 586_250
    assert 2_345_000 < MODEL.stat().st_size < 2_360_000
    assert 40 < accuracy(load_model(MODEL), held_out) < 70
    assert baseline_score(MODEL, held_out) == 5422


def test_honest_work_arrives_as_trained(
    verdict: Callable[..., Verdict], base: SimpleCNN, trained: SimpleCNN, held_out: HeldOut
) -> None:
    """(base - trained) / 0.1 is scored as the trained model itself, in any float type."""
    gradient = gradient_of(base, trained)
    half = {name: value.half() for name, value in gradient.items()}
    result = verdict(gradient, half)
    expected = accuracy(trained, held_out)
    assert expected > 75
    assert [score.after for score in result.scores] == pytest.approx([expected] * 2, abs=0.5)
    assert result.scores[0].after == pytest.approx(expected, abs=0.01)
    assert result.baseline == pytest.approx(54.22, abs=0.01)
    assert sum(score.bps for score in result.scores) == 10_000


def test_a_double_precision_file_is_applied_exactly(base: SimpleCNN, trained: SimpleCNN) -> None:
    """In double precision the validator arrives at the trained weights bit for bit."""
    model, after = load_model(MODEL), dict(trained.named_parameters())
    gradient = {
        name: (value.detach().double() - after[name].detach().double()) / 0.1
        for name, value in base.named_parameters()
    }
    apply_gradient(model, gradient)
    for name, value in model.named_parameters():
        assert torch.equal(value, after[name])


def test_wrong_conventions_are_caught(
    verdict: Callable[..., Verdict], base: SimpleCNN, trained: SimpleCNN
) -> None:
    """The wrong sign and a missing scale score lower than the right file, and get less."""
    right = gradient_of(base, trained)
    wrong_sign = {name: -value for name, value in right.items()}
    unscaled = {name: value * 0.1 for name, value in right.items()}
    difference = {name: value * -0.1 for name, value in right.items()}  # trained - base
    good, negative, tenth, kit = verdict(right, wrong_sign, unscaled, difference).scores
    assert good.improvement > 20
    assert negative.improvement < 0
    assert negative.bps == 0
    assert tenth.improvement < good.improvement / 2
    assert kit.improvement <= 1
    assert good.bps > 2 * tenth.bps


def test_partial_and_surplus_keys_follow_the_rule(
    verdict: Callable[..., Verdict], base: SimpleCNN, trained: SimpleCNN
) -> None:
    """Missing parameters keep the base's values, unknown keys are ignored."""
    gradient = gradient_of(base, trained)
    surplus = {**gradient, "running_mean": torch.ones(3)}
    nothing, whole, extra = verdict({}, gradient, surplus).scores
    assert nothing.improvement == 0
    assert whole.after == extra.after


class Marker:
    """A pickle that leaves a file behind when it is executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def stride_zero() -> torch.Tensor:
    return torch.zeros(1).expand(10**11)


def deflated() -> bytes:
    """65 MiB of zeros in a small archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(65 * 2**20))
    return buffer.getvalue()


def test_hostile_files_get_nothing_and_harm_nobody(
    verdict: Callable[..., Verdict], base: SimpleCNN, trained: SimpleCNN, tmp_path: Path
) -> None:
    """Code, garbage, bombs and wrong shapes count -100; the others share what there is."""
    marker = tmp_path / "executed"
    name = "conv1.weight"
    hostile = [
        saved({name: Marker(marker)}),
        pickle.dumps(Marker(marker)),
        b"<html>not found</html>",
        b"",
        saved({name: stride_zero()}),
        deflated(),
        saved({name: torch.zeros(7, 7)}),
        saved({name: "text"}),
        saved(None),
    ]
    result = verdict(*hostile, gradient_of(base, trained))
    assert [score.improvement for score in result.scores[:-1]] == [-100.0] * len(hostile)
    assert all(score.error for score in result.scores[:-1])
    assert [score.bps for score in result.scores] == [0] * len(hostile) + [10_000]
    assert not marker.exists()


def test_a_failed_download_is_a_failed_submission(held_out: HeldOut) -> None:
    """What can't be fetched is -100; with nobody left the round stays unsettled."""

    def gone() -> Path:
        raise OSError("no gateway has it")

    result = score_round(lambda: MODEL, lambda: held_out, [("alice", gone)])
    assert result.scores[0].improvement == -100
    assert result.scores[0].error == "OSError: no gateway has it"
    assert not result.settled


def test_a_round_that_cant_be_scored_is_shared_equally(tmp_path: Path, held_out: HeldOut) -> None:
    """Unknown architecture or data: all submitters share, whatever they sent."""
    other = tmp_path / "resnet.pt"
    other.write_bytes(saved({"layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}))
    fetches = [(name, lambda: tmp_path / "nothing.pt") for name in ("alice", "bob", "carol")]
    result = score_round(lambda: other, lambda: held_out, fetches)
    assert result.baseline is None
    assert [score.bps for score in result.scores] == [3334, 3333, 3333]
    no_data = score_round(lambda: MODEL, lambda: HeldOut(tmp_path), fetches)
    assert [score.bps for score in no_data.scores] == [3334, 3333, 3333]
    assert "DatasetUnavailable" in no_data.error


def test_torchvisions_folder_layout_is_found(tmp_path: Path) -> None:
    """A folder that torchvision downloaded serves as it is, with its own file names."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for kind in ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"):
        (raw / f"t10k-{kind}").write_bytes((DIGITS / f"test-{kind}").read_bytes())
    assert len(IdxImages(tmp_path, "test")) == 450
    with pytest.raises(DatasetUnavailable, match="no train images-idx3-ubyte"):
        IdxImages(tmp_path, "train")
