"""Everything that changes while a model is trained, and how it is kept and brought back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from decloud_trainer.errors import CorruptionError, Diverged
from decloud_trainer.training.averaging import Average
from decloud_trainer.training.checkpoint import Checkpoint
from decloud_trainer.training.choices import Choices
from decloud_trainer.training.device import Device, random_state, set_random_state
from decloud_trainer.training.schedule import rate
from decloud_trainer.training.stepper import Stepper, make_optimizer
from decloud_trainer.training.strategy import Strategy
from decloud_trainer.training.task import Step, Task, seed_for

Batch = TypeVar("Batch")

# A loss that has grown so far beyond the untrained model's has run away: it won't come back.
EXPLODED_TIMES, EXPLODED_MORE = 4.0, 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train.

    Attributes:
        learning_rate: at its peak.
        max_batches: upper limit for each epoch; 0 = all.
        deadline: no batch is begun at or after it, by the hooks' clock; None = no limit.
        look_every: after so many steps the state is worth a look; 0 = at the end alone.
        look_at: one more step at which it is; -1 = none.
        checkpoint_every_s: how often the state is worth being kept; 0 = never.
        commit_every: after so many steps it is worth a version of its own; 0 = never.
        commit_from: the step that these are counted from.
        is_replay: everything was decided before: take no measure of how it goes.
    """

    learning_rate: float
    seed: int
    strategy: Strategy = Strategy.plain()
    max_batches: int = 0
    deadline: float | None = None
    look_every: int = 0
    look_at: int = -1
    checkpoint_every_s: float = 0.0
    commit_every: int = 0
    commit_from: int = 0
    is_replay: bool = False


def batches_of_epoch(task: Task[Batch], max_batches: int) -> int:
    """All of them, or `max_batches` if that is less and not 0."""
    most = task.batches_per_epoch
    return min(max_batches or most, most)


@dataclass(slots=True)
class Tally:
    """An epoch's running sums. They stay tensors until someone wants to see them.

    Attributes:
        recent: the sum of the losses since the last look at them, over `recent_samples`.
        seconds: spent on training.
    """

    epoch: int
    batches: int = 0
    samples: int = 0
    seconds: float = 0.0
    loss_sum: Tensor | None = None
    recent: Tensor | None = None
    recent_samples: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        self.batches += 1
        self.samples += step.samples
        self.recent_samples += step.samples
        loss = step.loss * step.samples
        self.loss_sum = loss if self.loss_sum is None else self.loss_sum + loss
        self.recent = loss if self.recent is None else self.recent + loss
        for name, value in step.sums.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def loss(self) -> float | None:
        """The epoch's mean so far. Waits for the device."""
        return None if self.loss_sum is None else float(self.loss_sum) / self.samples


class Training(Generic[Batch]):
    """A task's model with its optimiser, averages and position: what a checkpoint holds.

    Attributes:
        step: how many batches have been trained on, in all epochs.
        choices: what was decided; the loop adds how batches were split, whoever calls it the rest.
        tally: the running epoch's.
        learning_rate: the last step's.
    """

    def __init__(self, task: Task[Batch], plan: Plan, device: Device, choices: Choices) -> None:
        self.task = task
        self.plan = plan
        self.device = device
        self.choices = choices
        self.optimizer = make_optimizer(task.model, plan.strategy, plan.learning_rate, device)
        self.stepper = Stepper(task, self.optimizer, device, plan.strategy, choices.parts(0))
        self.average = Average(task.model, plan.strategy)
        self.step = 0
        self.tally = Tally(0)
        self.learning_rate = 0.0
        self._first: Tensor | None = None
        self._random: dict[str, Tensor] | None = None

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch."""
        return batches_of_epoch(self.task, self.plan.max_batches)

    @property
    def epoch(self) -> int:
        """The number of the epoch that the next step belongs to, from 1."""
        return self.step // self.per_epoch + 1

    @property
    def position(self) -> int:
        """The next step's number in its epoch, from 0."""
        return self.step % self.per_epoch

    def resume(self) -> None:
        """Be ready for the next step: in training mode, with the random numbers that come next.

        An epoch begins with a seed and a tally of its own, so it depends on nothing that happens
        between two of them; in the middle of one, what was drawn at `pause` goes on.
        """
        self.task.model.train()
        if self.position == 0:
            torch.manual_seed(seed_for(self.plan.seed, self.epoch, "model"))
            self.tally = Tally(self.epoch)
        elif self._random is not None:
            set_random_state(self._random, self.device)
        self._random = None

    def pause(self) -> None:
        """Whatever happens until `resume`, the next step draws the same random numbers."""
        if self._random is None:
            self._random = random_state(self.device)

    def train_on(self, batch: Batch) -> None:
        """One step. Doesn't wait for the device."""
        choices, plan = self.choices, self.plan
        factor = choices.rate_factor(self.step) * rate(
            plan.strategy, self.step, choices.total_steps
        )
        self.learning_rate = plan.learning_rate * factor
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        if plan.is_replay:
            self.stepper.micro_batches = choices.parts(self.step)
        parts = self.stepper.micro_batches
        done = self.stepper.step(batch)
        if self.stepper.micro_batches != parts:
            split = (*choices.micro_batches, (self.step, self.stepper.micro_batches))
            self.choices = dataclasses.replace(choices, micro_batches=split)
        self.average.update(self.step)
        self.tally.add(done)
        if self._first is None:
            self._first = done.loss
        self.step += 1

    def check(self) -> None:
        """Look at the losses since the last check. Waits for the device.

        Raises:
            Diverged: they are no longer finite, or have run away.
        """
        tally = self.tally
        if tally.recent is None or self._first is None:
            return
        recent, first = float(tally.recent) / tally.recent_samples, float(self._first)
        where = f"within batch {tally.batches} of epoch {tally.epoch}"
        if not math.isfinite(recent):
            raise Diverged(f"the loss became {recent} {where}", hint="lower the learning rate")
        if recent > EXPLODED_TIMES * first + EXPLODED_MORE and not self.plan.is_replay:
            raise Diverged(
                f"the loss rose from {first:.3g} to {recent:.3g} {where}",
                hint="lower the learning rate",
            )
        tally.recent, tally.recent_samples = None, 0

    def is_sound(self) -> bool:
        """Are all weights finite? Waits for the device."""
        # A finite sum has finite terms, and is found much sooner; finite terms may overflow it.
        return all(
            bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all())
            for value in self.task.model.state_dict().values()
            if value.is_floating_point() or value.is_complex()
        )

    def snapshot(self) -> Checkpoint:
        """Copies of everything, to be called between `pause` and `resume`."""
        tally = self.tally
        tensors = {
            **_prefixed("model", self.task.model.state_dict()),
            **_prefixed("extra", self.task.extra_state()),
            **_prefixed("average", self.average.state()),
            **_prefixed("random", self._random or random_state(self.device)),
            **_prefixed("sums", tally.sums),
        }
        for index, parameter in enumerate(self._parameters()):
            held = self.optimizer.state.get(parameter, {})
            found = {name: value for name, value in held.items() if isinstance(value, Tensor)}
            tensors |= _prefixed(f"optimizer/{index}", found)
        for name, value in (("loss", tally.loss_sum), ("recent", tally.recent)):
            tensors |= {} if value is None else {f"tally/{name}": value}
        if self._first is not None:
            tensors["tally/first"] = self._first
        document = {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.position,
            "choices": self.choices.to_json(),
            "stepper": self.stepper.state(),
            "tally": {
                "epoch": tally.epoch,
                "batches": tally.batches,
                "samples": tally.samples,
                "recent_samples": tally.recent_samples,
                "seconds": tally.seconds,
            },
        }
        return Checkpoint(document, {name: on_cpu(value) for name, value in tensors.items()})

    @torch.no_grad()
    def begin_anew(self, base: Mapping[str, Tensor]) -> None:
        """Be what was before the first step; `base` is the model's state then."""
        _fill(self.task.model.state_dict(), base)
        self.average = Average(self.task.model, self.plan.strategy)
        self.optimizer.state.clear()
        self.stepper = Stepper(self.task, self.optimizer, self.device, self.plan.strategy)
        self.step = 0
        self.tally = Tally(0)
        self.choices = dataclasses.replace(self.choices, micro_batches=())
        self._first = self._random = None

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Be what was when the snapshot was taken, to the bit.

        Raises:
            CorruptionError: it is another model's, or lacks something. Nothing of this training
                may then be used.
        """
        document = checkpoint.document
        try:
            _fill(self.task.model.state_dict(), checkpoint.part("model"))
            _fill(self.task.extra_state(), checkpoint.part("extra"))
            self.average.load(checkpoint.part("average"))
            self.stepper.load(document["stepper"])
            self.optimizer.state.clear()
            for index, parameter in enumerate(self._parameters()):
                held = checkpoint.part(f"optimizer/{index}")
                if held:
                    self.optimizer.state[parameter] = {
                        name: _like(name, value, parameter) for name, value in held.items()
                    }
            on_device = self.device.torch
            kept = {key: value.to(on_device) for key, value in checkpoint.part("tally").items()}
            sums = {key: value.to(on_device) for key, value in checkpoint.part("sums").items()}
            self.tally = Tally(
                **document["tally"],
                loss_sum=kept.get("loss"),
                recent=kept.get("recent"),
                sums=sums,
            )
            self._first = kept.get("first")
            self._random = checkpoint.part("random")
            self.step = int(document["step"])
            self.choices = Choices.from_json(document["choices"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CorruptionError(f"the checkpoint isn't this training's: {error}") from error

    def _parameters(self) -> list[Tensor]:
        return [each for group in self.optimizer.param_groups for each in group["params"]]


def on_cpu(value: Tensor) -> Tensor:
    """A contiguous copy."""
    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _prefixed(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _fill(own: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    """Copy into the very tensors, whose memory format stays."""
    if own.keys() != kept.keys():
        raise KeyError(f"{sorted(own.keys() ^ kept.keys())[:3]} are in one of them only")
    for name, value in own.items():
        if value.shape != kept[name].shape or value.dtype != kept[name].dtype:
            raise ValueError(f"{name} has another shape or type")
        value.copy_(kept[name])


def _like(name: str, value: Tensor, parameter: Tensor) -> Tensor:
    """Part of an optimiser's state, in its parameter's memory format: fused kernels need that."""
    if name != "step" and value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    # The fused optimisers count on the parameter's device, the others on the CPU.
    return value.to(parameter.device) if parameter.device.type == "cuda" else value.clone()
