"""The bench's loops are what they claim to be; no figure of speed is asserted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from decloud_trainer.training import bench
from decloud_trainer.training.bench import ARCHITECTURE, Wanted, compare
from decloud_trainer.training.contestants import Ceiling, Ours, Plain, accuracy, plan_of
from decloud_trainer.training.data.samples import Samples
from decloud_trainer.training.device import Device
from decloud_trainer.training.networks import SimpleCNN
from decloud_trainer.training.strategy import Strategy

CPU = Device("cpu", None, 1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def samples() -> Samples:
    """Two classes that a network tells apart at once: dark and bright."""
    labels = np.arange(70, dtype=np.int64) % 2
    images = np.broadcast_to((labels * 200).astype(np.uint8)[:, None, None], (70, 32, 32))
    return Samples(np.ascontiguousarray(images), labels)


@pytest.fixture
def plain(samples: Samples) -> Iterator[Plain]:
    torch.manual_seed(0)
    loop = Plain(SimpleCNN(10), samples, 32, CPU)
    yield loop
    loop.close()


def test_all_loops_train_the_same_network(samples: Samples, plain: Plain, tmp_path: Path) -> None:
    """Each learns what is there to be learned, and counts the samples that it has seen."""
    torch.manual_seed(0)
    ours = Ours(SimpleCNN(10), samples, 32, CPU, plan_of(Strategy(), 0), 16, tmp_path)
    ceiling = Ceiling(SimpleCNN(10), samples, 32, CPU)
    # Epochs of 32, 32 and 6; the ceiling has whole batches only.
    assert [loop.run(4) for loop in (plain, ours, ceiling)] == [102, 102, 128]
    ours.keep()
    assert [loop.run(12) for loop in (plain, ours, ceiling)] == [280, 280, 384]
    for loop in (plain, ours, ceiling):
        assert accuracy(ARCHITECTURE, loop.state(), samples, 70) == 100.0
    ours.close()
    assert (tmp_path / "chain" / "HEAD").exists()


def test_a_target_counts_once_it_is_held() -> None:
    """A lucky moment early on is no arrival; who never arrives has taken all the time."""
    curve = [(1.0, 80.0), (2.0, 91.0), (3.0, 85.0), (4.0, 92.0), (5.0, 93.0)]
    assert bench._reached(curve, 90.0) == 4.0
    assert bench._reached(curve, 50.0) == 1.0
    assert bench._reached(curve, 99.0) == 5.0


def test_a_precision_that_was_set_is_measured(tmp_path: Path) -> None:
    """Ours and the ceiling compute in it, and nothing is tried out."""
    quick = Wanted(tmp_path, threads=1, precision="float32", turns=1, steps=2)
    found = compare(dataclasses.replace(quick, races=0, memory=False))
    assert found.precision == "float32"
    assert not (tmp_path / "tuning").exists()


def test_a_report_holds_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rates, a race to an accuracy, memory of one process each, artefact and checkpoint."""
    for name, value in (("LOOKS", 2), ("RACE_STEPS", 4), ("MEMORY_STEPS", 2)):
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(bench, "_peak_mb", lambda wanted, name: float(len(name)))
    found = compare(Wanted(tmp_path, threads=1, turns=1, steps=3))
    assert set(found.rates) == set(found.peak_mb) == {"plain", "ours", "ceiling"}
    assert found.race is not None
    assert found.race.samples == 4 * 32
    assert (
        set(found.race.seconds)
        == set(found.race.accuracy)
        == {
            "plain",
            "ours",
            "ours, plain strategy",
        }
    )
    assert found.checkpoint_bytes > 4 * 586_250
