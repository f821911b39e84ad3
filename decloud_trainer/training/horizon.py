"""How a run shall go, and how long: decided once, from what is asked for, speed, and the clock."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import TypeVar

from decloud_trainer.training.choices import Choices
from decloud_trainer.training.classifier_task import ClassifierTask
from decloud_trainer.training.device import Device
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.loop import train
from decloud_trainer.training.material import Material
from decloud_trainer.training.selection import look_every
from decloud_trainer.training.spec import AUTO, AUTO_EPOCHS, TrainSpec
from decloud_trainer.training.state import Plan, Training, batches_of_epoch
from decloud_trainer.training.task import Task

Batch = TypeVar("Batch")

# The measurement: so many batches to warm up, then this long; what is slow ends it sooner.
WARM_UP_STEPS, WARM_UP_S, MEASURED_S = 3, 3.0, 0.7
# Of the time there is; the rest is for what else happens: looks, checkpoints, a busy machine.
USED_SHARE = 0.92
# Rather too slow: differences, serialising, reading back and writing an artefact.
STORED_BYTES_PER_S = 100e6
# A state has the weights, two moments of each, their average and the best so far.
COMMITTED_MODELS = 5


def plan_for(spec: TrainSpec, material: Material, task: ClassifierTask, judged: int) -> Plan:
    """Its deadline leaves the time to judge, score and store what there will be.

    Args:
        judged: how many samples a state is judged by.
    """
    tested = len(material.preview.split("test")) if material.preview else judged
    previews = 3 if spec.artifact.dtype == AUTO else 1
    judging_s = 2 * material.scoring_s * judged / tested
    ending_s = 1.5 * previews * material.scoring_s + judging_s + 0.5
    ending_s += previews * material.loaded.bytes / STORED_BYTES_PER_S
    if spec.commits.auto_commit:
        ending_s += COMMITTED_MODELS * material.loaded.bytes / STORED_BYTES_PER_S
    per_epoch = batches_of_epoch(task, spec.max_batches)
    averages = spec.strategy.averaging != "none"
    return Plan(
        learning_rate=spec.learning_rate,
        seed=spec.seed,
        strategy=spec.strategy,
        max_batches=spec.max_batches,
        deadline=None if spec.deadline is None else spec.deadline - ending_s,
        look_every=look_every(judged, spec.batch_size, per_epoch, averages),
        look_at=spec.choices.chosen_step if spec.choices else -1,
        checkpoint_every_s=spec.checkpoint_every_s,
        commit_every=spec.commits.commit_interval or 0,
        is_replay=spec.choices is not None,
    )


def choices_for(
    spec: TrainSpec, plan: Plan, task: ClassifierTask, device: Device, hooks: Hooks, parts: int
) -> Choices:
    """What a new run decides before its first step; measures the speed if there is a deadline.

    Args:
        parts: into how many batches are split from the start.
    """
    speed, seconds = None, math.inf
    if plan.deadline is not None:
        left = plan.deadline - hooks.clock()
        speed = steps_per_second(task, plan, device, hooks, left) if left > 0 else 0.0
        seconds = plan.deadline - hooks.clock()
    per_epoch = batches_of_epoch(task, plan.max_batches)
    return Choices(
        device=device.name,
        threads=device.threads,
        precision=device.precision_name,
        memory_format=device.memory_format,
        total_steps=total_steps(spec, per_epoch, speed, max(seconds, 0.0)),
        micro_batches=((0, parts),) if parts > 1 else (),
    )


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
