"""The one training loop. It knows a task, a plan and a clock: no files, rounds or networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor

from decloud_trainer.errors import Diverged
from decloud_trainer.training.device import Device
from decloud_trainer.training.results import Progress
from decloud_trainer.training.task import Step, Task, seed_for

Batch = TypeVar("Batch")

PROGRESS_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train.

    Attributes:
        epochs: how many are planned; for the display.
        max_epochs: where the loop ends if nobody ends it before.
        max_batches: upper limit for each epoch; 0 = all.
        deadline: no batch is begun at or after it, by the loop's clock; None = no limit.
    """

    epochs: int
    max_epochs: int
    learning_rate: float
    seed: int
    max_batches: int = 0
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass, or the part of it that there was time for.

    Attributes:
        number: from 1.
        loss: mean over its samples; None when it has no batch.
        stopped: what cut it short (it is then the last); None when it is whole.
    """

    number: int
    batches: int
    samples: int
    loss: float | None
    metrics: dict[str, float]
    seconds: float
    stopped: Literal["deadline", "stop"] | None


def train(
    task: Task[Batch],
    plan: Plan,
    device: Device,
    *,
    clock: Callable[[], float],
    progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Iterator[Epoch]:
    """Train `task.model` in place, giving control back after every epoch.

    Whoever iterates decides what an epoch was worth, keeps the best state (`state_of`) and ends
    the iteration. `should_stop` and the deadline are looked at before every batch; an exception
    that a callback raises ends the run there. Equal seed, data, threads and torch version give
    equal weights on a CPU, bit for bit.

    Raises:
        Diverged: the loss is no longer finite.
    """
    optimizer = torch.optim.Adam(
        task.model.parameters(),
        lr=plan.learning_rate,
        fused=device.torch.type in ("cpu", "cuda"),
    )
    for number in range(1, plan.max_epochs + 1):
        torch.manual_seed(seed_for(plan.seed, number, "model"))
        task.model.train()
        planned = min(plan.max_batches or task.batches_per_epoch, task.batches_per_epoch)
        tally = _Tally(number, planned, clock())
        stopped: Literal["deadline", "stop"] | None = None
        for batch in itertools.islice(task.batches(number), planned):
            now = clock()
            if should_stop():
                stopped = "stop"
            elif plan.deadline is not None and now >= plan.deadline:
                stopped = "deadline"
            if stopped:
                break
            if now - tally.reported >= PROGRESS_INTERVAL_S:
                tally.reported = now
                progress(tally.progress(task, plan, now))

            with device.precision():
                step = task.step(batch)
            optimizer.zero_grad(set_to_none=True)
            step.loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            tally.add(step)

        now = clock()
        loss = tally.loss()
        progress(tally.progress(task, plan, now))
        metrics = tally.metrics(task)
        yield Epoch(
            number, tally.batches, tally.samples, loss, metrics, now - tally.started, stopped
        )
        if stopped:
            return


def state_of(task: Task[Batch]) -> dict[str, Tensor]:
    """Copies on the CPU of the model's state and the task's extra state, as they are now."""
    state = {**task.model.state_dict(), **task.extra_state()}
    return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.items()}


@dataclass(slots=True)
class _Tally:
    """An epoch's running sums. They stay tensors until someone wants to see them."""

    epoch: int
    planned: int
    started: float
    batches: int = 0
    samples: int = 0
    loss_sum: Tensor | None = None
    sums: dict[str, Tensor] = field(default_factory=dict)
    reported: float = 0.0

    def __post_init__(self) -> None:
        self.reported = self.started

    def add(self, step: Step) -> None:
        self.batches += 1
        self.samples += step.samples
        loss = step.loss.detach() * step.samples
        self.loss_sum = loss if self.loss_sum is None else self.loss_sum + loss
        for name, value in step.sums.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def loss(self) -> float | None:
        """The mean so far. Waits for the device."""
        if self.loss_sum is None:
            return None
        mean = float(self.loss_sum) / self.samples
        if not math.isfinite(mean):
            raise Diverged(
                f"the loss became {mean} within batch {self.batches} of epoch {self.epoch}",
                hint="lower the learning rate",
            )
        return mean

    def metrics(self, task: Task[Batch]) -> dict[str, float]:
        if not self.samples:
            return {}
        return task.metrics({key: float(value) for key, value in self.sums.items()}, self.samples)

    def progress(self, task: Task[Batch], plan: Plan, now: float) -> Progress:
        seconds = max(now - self.started, 1e-9)
        epochs = max(plan.epochs, self.epoch)
        left = (epochs - self.epoch + 1) * self.planned - self.batches
        return Progress(
            stage="train",
            epoch=self.epoch,
            epochs=epochs,
            batch=self.batches,
            batches=self.planned,
            loss=self.loss(),
            accuracy=self.metrics(task).get("accuracy"),
            samples_per_s=self.samples / seconds,
            eta_s=left * seconds / self.batches if self.batches else None,
        )
