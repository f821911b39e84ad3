"""How long a run shall be: decided once, from what is asked for, the speed, and the clock."""

from __future__ import annotations

import copy
import dataclasses
from typing import TypeVar

from decloud_trainer.training.choices import Choices
from decloud_trainer.training.device import Device
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.loop import train
from decloud_trainer.training.spec import AUTO, AUTO_EPOCHS, TrainSpec
from decloud_trainer.training.state import Plan, Training
from decloud_trainer.training.task import Task

Batch = TypeVar("Batch")

# The measurement: so many batches to warm up, then this long; what is slow ends it sooner.
WARM_UP_STEPS, WARM_UP_S, MEASURED_S = 3, 3.0, 0.7
# Of the time there is; the rest is for what else happens: looks, checkpoints, a busy machine.
USED_SHARE = 0.92


def total_steps(spec: TrainSpec, per_epoch: int, speed: float | None, seconds: float) -> int:
    """The schedule's horizon: the epochs asked for, or as many steps as there is time for.

    Args:
        speed: steps per second; None = it wasn't measured, since no deadline limits the run.
        seconds: until the last step must be over.
    """
    planned = None if spec.epochs == AUTO else int(spec.epochs) * per_epoch
    if speed is None:
        return planned or AUTO_EPOCHS * per_epoch
    affordable = max(1, int(speed * seconds * USED_SHARE))
    return affordable if planned is None else min(planned, affordable)


def steps_per_second(
    task: Task[Batch], plan: Plan, device: Device, hooks: Hooks, seconds: float
) -> float:
    """The real loop's speed on a copy of the task's model, which stays as it is; 0 = not one step
    could be done in `seconds`."""
    rehearsal = copy.copy(task)
    rehearsal.model = copy.deepcopy(task.model)  # type: ignore[misc]
    silent = Hooks(hooks.clock, should_stop=hooks.should_stop)
    end = hooks.clock() + seconds
    speed = 0.0
    for steps, limit_s in ((WARM_UP_STEPS, WARM_UP_S), (10**9, MEASURED_S)):
        now = hooks.clock()
        cut = dataclasses.replace(
            plan, deadline=min(end, now + limit_s), look_every=0, checkpoint_every_s=0.0
        )
        training = Training(rehearsal, cut, device, Choices(total_steps=10**9))
        spent_s = 0.0
        for moment in train(training, steps, silent):
            spent_s += moment.epoch.seconds if moment.kind == "epoch" else 0.0
        if training.step:
            speed = training.step / max(spent_s, 1e-9)
        if spent_s >= WARM_UP_S or hooks.should_stop():
            break
    return speed
