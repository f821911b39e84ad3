"""The pieces of a training strategy: values, rates, averages, changes to images, held-out parts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from decloud_trainer.errors import SettingsError
from decloud_trainer.training.augment import NOTHING, Changes, augment, changes_for
from decloud_trainer.training.averaging import Average
from decloud_trainer.training.holdout import hold_out
from decloud_trainer.training.schedule import RATE_BEYOND, rate
from decloud_trainer.training.strategy import SCHEDULES, Strategy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the value ------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [Strategy(), Strategy.plain(), Strategy(optimizer="sgd")])
def test_a_strategy_survives_json(strategy: Strategy) -> None:
    """What a record holds is the strategy that it was written from."""
    assert Strategy.from_json(json.loads(json.dumps(strategy.to_json()))) == strategy


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer", "lion"),
        ("schedule", None),
        ("averaging", True),
        ("augment", ["light"]),
        ("warmup", 0.6),
        ("warmup", "0.1"),
        ("label_smoothing", float("nan")),
        ("label_smoothing", -0.1),
        ("weight_decay", True),
        ("clip_norm", float("inf")),
        ("validation", 0.9),
        ("patience", 1.5),
        ("speed", 1),
    ],
)
def test_a_strategy_takes_only_what_makes_sense(field: str, value: object) -> None:
    """A wrong name, kind or range is refused, and the message names the field."""
    with pytest.raises(SettingsError, match=field):
        Strategy.from_json({field: value})


def test_patience_needs_something_to_be_judged_by() -> None:
    """Early stopping without a held-out part would never happen, so it can't be asked for."""
    with pytest.raises(SettingsError, match="validation"):
        Strategy(validation=0.0, patience=3)


# --- the rate -------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_every_step_learns_and_none_exceeds_the_peak(
    schedule: str, warmup: float, total: int
) -> None:
    """The factor is above 0 and at most 1, in the shortest run, too."""
    strategy = Strategy(schedule=schedule, warmup=warmup)
    factors = [rate(strategy, step, total) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)


@pytest.mark.parametrize("schedule", ["cosine", "triangular", "trapezoidal"])
def test_the_rate_rises_then_falls(schedule: str) -> None:
    """Up during the warm-up, down to nearly nothing afterwards."""
    strategy = Strategy(schedule=schedule, warmup=0.2)
    factors = [rate(strategy, step, 1000) for step in range(1000)]
    assert factors[:200] == sorted(factors[:200])
    assert factors[200:] == sorted(factors[200:], reverse=True)
    assert min(factors[199:201]) > 0.99
    assert factors[-1] < 0.002


def test_a_constant_rate_is_the_peak_for_ever() -> None:
    """The plain strategy has one rate, in the steps after its plan, too."""
    assert {rate(Strategy.plain(), step, 10) for step in range(50)} == {1.0}


def test_a_run_that_goes_on_still_learns() -> None:
    """After its planned steps a falling rate doesn't stay at nothing, nor return to the peak."""
    strategy = Strategy(schedule="cosine")
    assert {rate(strategy, step, 10) for step in (10, 11, 500)} == {RATE_BEYOND}


# --- averages -------------------------------------------------------------------------------


def set_weights(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_an_average_lies_between_and_near_the_latest_weights() -> None:
    """The mean forgets where a run began, and follows what came last."""
    model = nn.Linear(2, 2)
    average = Average(model, Strategy(averaging="ema"))
    for step in range(1001):
        set_weights(model, float(step))
        average.update(step)
        if step in (100, 1000):
            means = torch.cat([value.flatten() for value in average.weights().values()])
            assert ((means > 0.8 * step) & (means < 0.99 * step)).all()


def test_an_average_begins_with_the_first_step() -> None:
    """The base model itself is not in the mean: one step gives that step's weights."""
    model = nn.Linear(2, 2)
    set_weights(model, -1000.0)
    average = Average(model, Strategy(averaging="ema"))
    set_weights(model, 3.0)
    average.update(0)
    assert all((value == 3.0).all() for value in average.weights().values())


def test_an_average_goes_on_bit_for_bit_from_its_state() -> None:
    """A resumed average equals the one that was never interrupted."""
    strategy, model = Strategy(averaging="ema"), nn.Linear(3, 3)
    first, second = Average(model, strategy), Average(model, strategy)
    for step in range(6):
        with torch.no_grad():
            model.weight.copy_(torch.randn(3, 3, generator=generator(step)))
        first.update(step)
        if step == 2:
            second.load({key: value.clone() for key, value in first.state().items()})
        elif step > 2:
            second.update(step)
    assert all(torch.equal(first.weights()[key], second.weights()[key]) for key in ("weight",))


def test_averages_of_half_precision_keep_their_digits() -> None:
    """Steps too small for bfloat16 still move the mean; complex weights are averaged, too."""
    model = nn.Module()
    model.small = nn.Parameter(torch.full((1,), 256.0, dtype=torch.bfloat16))
    model.wave = nn.Parameter(torch.zeros(1, dtype=torch.complex64))
    average = Average(model, Strategy(averaging="ema"))
    average.update(0)
    with torch.no_grad():
        model.small.fill_(258.0)
        model.wave.fill_(2j)
    average.update(200)
    mean = average.weights()
    assert 256 < mean["small"].item() < 257
    assert 0 < mean["wave"].imag.item() < 1


def test_without_averaging_there_is_nothing_to_lay_over() -> None:
    """The plain strategy hands in the weights as they are, at no cost."""
    model = nn.Linear(2, 2)
    average = Average(model, Strategy.plain())
    average.update(0)
    assert average.weights() == {}
    assert average.state() == {}


# --- changes to images ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 32, 32), (8, 32, 32, 3)])
def test_changes_are_flips_and_shifts_of_the_same_image(shape: tuple[int, ...]) -> None:
    """Each image comes out as itself, mirrored or not, moved by at most the shift."""
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator())
    changed = augment(images, Changes(flip=True, shift=2), generator(1))
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
    inner = slice(2, 30)
    for before, after in zip(images, changed, strict=True):
        found = [
            (down, right, mirrored)
            for down in range(-2, 3)
            for right in range(-2, 3)
            for mirrored in (False, True)
            for source in [before.flip(1) if mirrored else before]
            if torch.equal(
                after[inner, inner], source[2 + down : 30 + down, 2 + right : 30 + right]
            )
        ]
        assert len(found) == 1
    assert not torch.equal(changed, images)


def test_changes_depend_on_the_seed_alone() -> None:
    """A resumed run sees the batch that the uninterrupted one saw."""
    images = torch.randint(0, 256, (16, 32, 32), dtype=torch.uint8, generator=generator())
    once, again, other = (
        augment(images, Changes(flip=True, shift=1), generator(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


@pytest.mark.parametrize("name", ["digits", "MNIST", "emnist", "kmnist", "svhn", "my-own-images"])
def test_writing_is_never_mirrored(name: str) -> None:
    """Digits, letters and images that nobody knows keep their left and right."""
    assert not changes_for("light", name).flip


def test_clothes_may_be_mirrored_and_nothing_is_done_unasked() -> None:
    """Flips come with ``light`` where the classes survive them."""
    assert changes_for("light", "fashion_mnist").flip
    assert changes_for("none", "cifar10") == NOTHING
    images = torch.zeros(2, 32, 32)
    assert augment(images, NOTHING, generator()) is images


# --- the held-out part ----------------------------------------------------------------------


def test_every_class_gives_its_part() -> None:
    """A held-out tenth has a tenth of each class, and what is left is all the rest."""
    labels = np.repeat(np.arange(4), [1000, 100, 40, 10]).astype(np.int64)
    kept, held = hold_out(labels, 0.1, seed=3)
    assert np.bincount(labels[held]).tolist() == [100, 10, 4, 1]
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    assert kept.dtype == held.dtype == np.int64


def test_a_class_never_loses_its_last_sample() -> None:
    """Training sees every class, however few samples it has."""
    labels = np.array([0, 0, 1, 2, 2], dtype=np.int64)
    kept, held = hold_out(labels, 0.5, seed=0)
    assert set(labels[kept]) == {0, 1, 2}
    assert len(held) == 2


def test_the_split_is_the_seeds_and_the_same_everywhere() -> None:
    """These indices were fixed when the split was designed; a record's replay relies on them."""
    labels = np.arange(40, dtype=np.int64) % 4
    assert np.array_equal(hold_out(labels, 0.2, 1)[1], hold_out(labels, 0.2, 1)[1])
    assert not np.array_equal(hold_out(labels, 0.2, 1)[1], hold_out(labels, 0.2, 2)[1])
    assert hold_out(labels, 0.2, 1)[1].tolist() == [2, 3, 21, 22, 29, 31, 32, 36]


def test_nothing_is_held_out_unasked() -> None:
    """A fraction of 0 leaves all samples to the training, also when there are none."""
    kept, held = hold_out(np.array([1, 0, 1], dtype=np.int64), 0.0, 0)
    assert (kept.tolist(), held.tolist()) == ([0, 1, 2], [])
    assert len(hold_out(np.array([], dtype=np.int64), 0.1, 0)[0]) == 0
