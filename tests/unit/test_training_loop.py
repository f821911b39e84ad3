"""The loop, with a task that is no image classification: a polynomial fitted to points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decloud_trainer.errors import DecloudError, Diverged
from decloud_trainer.training.checkpoint import Checkpoint, decode, encode
from decloud_trainer.training.choices import Choices
from decloud_trainer.training.classifier_task import ClassifierTask
from decloud_trainer.training.data.samples import Samples
from decloud_trainer.training.device import Device
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.loop import Epoch, state_of, train
from decloud_trainer.training.networks import SimpleCNN
from decloud_trainer.training.results import Progress
from decloud_trainer.training.state import Plan, Training
from decloud_trainer.training.strategy import Strategy
from decloud_trainer.training.task import Step, seed_for

CPU = Device("cpu", None, 1)
TRUE = torch.tensor([[0.5, -1.0, 2.0]])


class Polynomial:
    """Fit y = 0.5 - x + 2x^2 from 40 points; carries the points' mean as extra state."""

    def __init__(self, seed: int = 0, size: int = 40, dropout: float = 0.0) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Dropout(dropout), nn.Linear(3, 1, bias=False))
        x = torch.linspace(-1, 1, size)
        self.inputs = torch.stack([x**0, x, x**2], dim=1)
        self.targets = self.inputs @ TRUE.T
        self.seed = seed

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.targets) // 8)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed_for(self.seed, epoch, "order"))
        for chosen in torch.randperm(len(self.targets), generator=generator).split(8)[start:]:
            yield self.inputs[chosen], self.targets[chosen]

    def step(self, batch: tuple[Tensor, Tensor]) -> Step:
        inputs, targets = batch
        error = self.model(inputs) - targets
        return Step((error**2).mean(), len(targets), {"absolute": error.detach().abs().sum()})

    def split(self, batch: tuple[Tensor, Tensor], parts: int) -> list[tuple[Tensor, Tensor]]:
        inputs, targets = batch
        return list(zip(inputs.chunk(parts), targets.chunk(parts), strict=True))

    def metrics(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        return {"mean_error": sums["absolute"] / samples}

    def extra_state(self) -> dict[str, Tensor]:
        return {"mean": self.targets.mean()}


class Clock:
    """A clock that moves by a fixed step whenever it is read."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 1000.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def fit(
    task: Polynomial,
    epochs: int = 1,
    clock: Callable[[], float] = lambda: 0.0,
    progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    **plan: Any,
) -> list[Epoch]:
    training = make(task, epochs, **plan)
    hooks = Hooks(clock, progress, should_stop)
    moments = train(training, epochs * training.per_epoch, hooks)
    return [moment.epoch for moment in moments if moment.kind == "epoch"]


def make(task: Polynomial, epochs: int = 1, **plan: Any) -> Training[tuple[Tensor, Tensor]]:
    full = Plan(**{"learning_rate": 0.05, "seed": task.seed, **plan})
    return Training(task, full, CPU, Choices(total_steps=epochs * task.batches_per_epoch))


def weights(task: Polynomial) -> Tensor:
    return task.model.state_dict()["1.weight"]


def test_the_loop_learns_what_the_task_holds() -> None:
    """Without knowing what it trains, the loop finds the polynomial."""
    task = Polynomial()
    epochs = fit(task, epochs=150)
    assert torch.allclose(weights(task), TRUE, atol=0.02)
    assert epochs[-1].loss is not None
    assert epochs[0].loss is not None
    assert epochs[-1].loss < epochs[0].loss / 1000
    assert epochs[-1].metrics["mean_error"] < epochs[0].metrics["mean_error"]
    assert [epoch.number for epoch in epochs] == list(range(1, 151))
    assert (epochs[0].batches, epochs[0].samples, epochs[0].stopped) == (5, 40, None)


def test_a_seed_decides_everything() -> None:
    """Equal seeds give equal weights bit for bit, other seeds others; dropout included."""

    def trained(seed: int) -> Tensor:
        task = Polynomial(seed, dropout=0.3)
        fit(task, epochs=3)
        return weights(task)

    assert torch.equal(trained(7), trained(7))
    assert not torch.equal(trained(7), trained(8))


def test_training_does_not_depend_on_what_happens_at_its_moments() -> None:
    """Whoever iterates may use random numbers or evaluate: the training stays the same."""

    def trained(meddle: bool) -> Tensor:
        task = Polynomial(dropout=0.3)
        for _ in train(make(task, look_every=2), 15, Hooks(lambda: 0.0)):
            if meddle:
                torch.rand(5)
                task.model.eval()
        return weights(task)

    assert torch.equal(trained(True), trained(False))


def test_a_deadline_ends_the_run_before_the_next_batch() -> None:
    """No batch begins at or after the deadline; what was trained until then is kept."""
    task = Polynomial()
    before = weights(task).clone()
    epochs = fit(task, epochs=100, clock=Clock(1.0), deadline=1012.0)
    assert epochs[-1].stopped == "deadline"
    assert [epoch.batches for epoch in epochs] == [5, 3]
    assert not torch.equal(weights(task), before)
    nothing = fit(Polynomial(), clock=Clock(1.0), deadline=1.0)
    assert (nothing[0].batches, nothing[0].loss, nothing[0].stopped) == (0, None, "deadline")


def test_a_stop_is_obeyed_within_one_batch() -> None:
    """The third look says stop: two batches were trained, and the run is over."""
    answers = iter([False, False, True])
    epochs = fit(Polynomial(), epochs=9, should_stop=lambda: next(answers))
    assert [(epoch.batches, epoch.stopped) for epoch in epochs] == [(2, "stop")]


def test_a_cancel_is_an_exception_from_a_callback() -> None:
    """What a callback raises ends the run where it is raised."""

    class Cancelled(Exception):
        pass

    def cancel() -> bool:
        raise Cancelled

    task = Polynomial()
    before = weights(task).clone()
    with pytest.raises(Cancelled):
        fit(task, should_stop=cancel)
    assert torch.equal(weights(task), before)


def test_max_batches_limits_every_epoch() -> None:
    """Three batches of five, in each epoch."""
    assert [epoch.batches for epoch in fit(Polynomial(), epochs=2, max_batches=3)] == [3, 3]
    assert [epoch.batches for epoch in fit(Polynomial(), epochs=2, max_batches=99)] == [5, 5]


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    """NaN is noticed and said with its place."""
    task = Polynomial()
    task.targets[3] = float("nan")
    with pytest.raises(Diverged, match="epoch 1") as caught:
        fit(task)
    assert "learning rate" in caught.value.hint


def test_progress_is_reported_by_time_and_at_the_end() -> None:
    """About once a second, with speed and remaining time; never per batch."""
    seen: list[Progress] = []
    fit(Polynomial(size=800), epochs=2, clock=Clock(0.1), progress=seen.append)
    assert 20 < len(seen) < 30, "200 batches in 20 s"
    assert [p.batch for p in seen if p.epoch == 1 and p.batch is not None] == sorted(
        p.batch for p in seen if p.epoch == 1 and p.batch is not None
    )
    assert all((p.stage, p.epochs, p.batches) == ("train", 2, 100) for p in seen)
    middle = seen[5]
    assert middle.samples_per_s == pytest.approx(80, rel=0.1)
    assert middle.eta_s == pytest.approx((200 - (middle.batch or 0)) * 0.1, rel=0.1)
    assert seen[-1].eta_s == pytest.approx(0)


def test_a_state_is_a_copy_with_the_tasks_own_extras() -> None:
    """The state that is kept doesn't change when training goes on."""
    task = Polynomial()
    state = state_of(task)
    kept = state["1.weight"].clone()
    fit(task)
    assert torch.equal(state["1.weight"], kept)
    assert state["mean"] == task.targets.mean()


STRATEGIES = [
    Strategy.plain(),
    Strategy(optimizer="adamw", weight_decay=0.01, clip_norm=0.5),
    Strategy(optimizer="sgd", schedule="triangular"),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda each: each.optimizer)
@pytest.mark.parametrize("at", [3, 5, 8])
def test_what_is_restored_goes_on_to_the_bit(strategy: Strategy, at: int) -> None:
    """Interrupted in an epoch's middle or at its end, written to bytes and restored into a fresh
    training, a run has the same weights, averages, losses and rates as one that went through."""

    def training() -> Training[tuple[Tensor, Tensor]]:
        return make(Polynomial(dropout=0.3), 3, strategy=strategy, look_every=1)

    def go(training: Training[tuple[Tensor, Tensor]], until: int) -> list[Epoch]:
        moments = train(training, until, Hooks(lambda: 0.0))
        return [each.epoch for each in moments if each.kind == "epoch"]

    through = training()
    whole = go(through, 15)

    first = training()
    kept = b""
    for moment in train(first, 15, Hooks(lambda: 0.0)):
        if first.step == at and moment.kind == ("epoch" if at == 5 else "look"):
            kept = encode(first.snapshot())
            break
    torch.rand(7)
    second = training()
    second.restore(decode(kept))
    rest = go(second, 15)
    assert rest == whole[-len(rest) :]
    assert encode(second.snapshot()) == encode(through.snapshot())


def test_a_restored_training_keeps_its_memory_format() -> None:
    """Fused kernels read an optimiser's state as it lies in memory: it must lie as the weights."""

    def training() -> Training[Any]:
        torch.manual_seed(0)
        images = np.random.default_rng(0).integers(0, 255, (64, 32, 32), dtype=np.uint8)
        samples = Samples(images, np.arange(64, dtype=np.int64) % 10)
        task = ClassifierTask(SimpleCNN(10), samples, 8, 0, CPU)
        return Training(task, Plan(0.01, 0), CPU, Choices(total_steps=8))

    through, first, second = training(), training(), training()
    list(train(through, 8, Hooks(lambda: 0.0)))
    list(train(first, 4, Hooks(lambda: 0.0)))
    second.restore(first.snapshot())
    list(train(second, 8, Hooks(lambda: 0.0)))
    assert encode(second.snapshot()) == encode(through.snapshot())


def test_another_models_checkpoint_is_refused() -> None:
    """A snapshot with other tensors, or with less than all, restores nothing."""
    snapshot = make(Polynomial()).snapshot()
    for damage in (
        Checkpoint(snapshot.document, {**snapshot.tensors, "model/1.weight": torch.ones(2)}),
        Checkpoint(snapshot.document, {}),
        Checkpoint({**snapshot.document, "choices": {"threads": 0}}, snapshot.tensors),
    ):
        with pytest.raises(DecloudError):
            make(Polynomial()).restore(damage)


def test_a_loss_that_runs_away_is_noticed() -> None:
    """Finite, and far beyond what the untrained model had."""
    with pytest.raises(Diverged, match="rose from"):
        fit(Polynomial(), epochs=30, learning_rate=30.0, strategy=Strategy(optimizer="sgd"))


def test_the_rate_follows_schedule_and_changes() -> None:
    """The peak rate times the schedule's factor, times what was lowered from a step on."""
    training = make(Polynomial(), 1, learning_rate=0.1)
    training.choices = Choices(total_steps=5, rate_changes=((2, 0.5), (4, 0.25)))
    rates = []
    for batch in training.task.batches(1):
        training.train_on(batch)
        rates.append(training.learning_rate)
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])


def test_moments_come_in_order() -> None:
    """Looks at their steps, the state for keeping at its cadence, epochs at their ends."""
    clock = Clock(1.0)
    training = make(Polynomial(), 2, look_every=4, checkpoint_every_s=4.0)
    seen = [(each.kind, training.step) for each in train(training, 10, Hooks(clock))]
    assert [each for each in seen if each[0] == "look"] == [("look", 4), ("look", 8), ("look", 10)]
    assert [each for each in seen if each[0] == "epoch"] == [("epoch", 5), ("epoch", 10)]
    assert 1 <= len([each for each in seen if each[0] == "save"]) <= 3
