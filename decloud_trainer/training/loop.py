"""The one training loop. It knows a training and its hooks: no files, rounds or networks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from torch import Tensor

from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.memory import used_bytes
from decloud_trainer.training.results import Progress
from decloud_trainer.training.state import Training, on_cpu
from decloud_trainer.training.task import Task

Batch = TypeVar("Batch")
Cut: TypeAlias = Literal["deadline", "stop"]
Kind: TypeAlias = Literal["look", "save", "commit", "epoch"]

PROGRESS_INTERVAL_S = 1.0
# Keeping the state may take one part of so many of the time.
CHECKPOINT_SHARE = 50


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass, or the part of it that there was time for.

    Attributes:
        number: from 1.
        loss: mean over its samples; None when it has no batch.
        seconds: of training; what others did in the meantime isn't counted.
        stopped: what cut it short (it is then the last); None when it is whole.
    """

    number: int
    batches: int
    samples: int
    loss: float | None
    metrics: dict[str, float]
    seconds: float
    stopped: Cut | None


@dataclass(frozen=True, slots=True)
class Moment:
    """A pause between two steps, in which the training may be looked at, copied, or ended.

    Attributes:
        kind: ``look`` = the state is worth being judged; ``save`` = worth being kept; ``commit`` =
            kept as a version, at a step that was asked for; ``epoch`` = an epoch is over, or the
            whole run.
        epoch: as far as it has come.
    """

    kind: Kind
    epoch: Epoch


def train(training: Training[Batch], until: int, hooks: Hooks) -> Iterator[Moment]:
    """Train until `until` steps have been done, giving control back at every `Moment`.

    Whoever iterates decides what the state is worth, where it is kept, and when it is enough.
    `hooks.should_stop` and the deadline are looked at before every batch; an exception that a hook
    raises ends the run there. Equal seed, data, threads and torch version give equal weights on a
    CPU, bit for bit, whether a run is interrupted, restored and gone on with, or not.

    Raises:
        Diverged: the loss is no longer finite, or has run away. The training can be restored.
    """
    clock, plan = hooks.clock, training.plan
    now = reported = kept = clock()
    pause_s = plan.checkpoint_every_s
    cut: Cut | None = None
    while training.step < until and cut is None:
        training.resume()
        tally, first = training.tally, training.position
        left = min(training.per_epoch - first, until - training.step)
        for batch in itertools.islice(training.task.batches(tally.epoch, first), left):
            last, now = now, clock()
            tally.seconds += now - last
            cut = _cut(training, now, hooks)
            if cut:
                break
            if now - reported >= PROGRESS_INTERVAL_S:
                reported = now
                training.check()
                hooks.progress(_progress(training, until, now))

            training.train_on(batch)

            # Moments within an epoch; those at its end come below.
            if training.step == until or not training.position:
                continue
            if _is_look(training):
                yield _moment("look", training)
                now = _resumed(training, hooks)
            if kind := _kept_as(training, now - kept >= pause_s):
                yield _moment(kind, training)
                before, now = now, _resumed(training, hooks)
                kept, pause_s = now, _next_pause(training, now - before)

        last, now = now, clock()
        tally.seconds += now - last
        training.check()
        hooks.progress(_progress(training, until, now))
        if cut or training.step == until or _is_look(training):
            yield _moment("look", training)
        yield _moment("epoch", training, cut)
        now = clock()
        if cut is None and (kind := _kept_as(training, now - kept >= pause_s)):
            yield _moment(kind, training)
            before, now = now, clock()
            kept, pause_s = now, _next_pause(training, now - before)


def _cut(training: Training[Batch], now: float, hooks: Hooks) -> Cut | None:
    if hooks.should_stop():
        return "stop"
    deadline = training.plan.deadline
    return "deadline" if deadline is not None and now >= deadline else None


def _is_look(training: Training[Batch]) -> bool:
    every, step = training.plan.look_every, training.step
    return step == training.plan.look_at or bool(every and step % every == 0)


def _kept_as(training: Training[Batch], is_time: bool) -> Literal["save", "commit"] | None:
    """Whether the state is kept after this step, and what as."""
    plan = training.plan
    if plan.commit_every and (training.step - plan.commit_from) % plan.commit_every == 0:
        return "commit"
    return "save" if plan.checkpoint_every_s and is_time else None


def _next_pause(training: Training[Batch], cost_s: float) -> float:
    return max(training.plan.checkpoint_every_s, CHECKPOINT_SHARE * cost_s)


def _moment(kind: Kind, training: Training[Batch], cut: Cut | None = None) -> Moment:
    training.check()
    training.pause()
    tally = training.tally
    epoch = Epoch(
        tally.epoch,
        tally.batches,
        tally.samples,
        tally.loss(),
        _metrics(training),
        tally.seconds,
        cut,
    )
    return Moment(kind, epoch)


def _resumed(training: Training[Batch], hooks: Hooks) -> float:
    training.resume()
    return hooks.clock()


def _metrics(training: Training[Batch]) -> dict[str, float]:
    tally = training.tally
    if not tally.samples:
        return {}
    sums = {name: float(value) for name, value in tally.sums.items()}
    return training.task.metrics(sums, tally.samples)


def _progress(training: Training[Batch], until: int, now: float) -> Progress:
    tally = training.tally
    seconds = max(tally.seconds, 1e-9)
    eta_s = None
    if tally.batches:
        eta_s = (until - training.step) * seconds / tally.batches
        if training.plan.deadline is not None:
            eta_s = min(eta_s, max(training.plan.deadline - now, 0.0))
    return Progress(
        stage="train",
        epoch=tally.epoch,
        epochs=-(-until // training.per_epoch),
        batch=tally.batches,
        batches=training.per_epoch,
        loss=tally.loss(),
        accuracy=_metrics(training).get("accuracy"),
        samples_per_s=tally.samples / seconds,
        eta_s=eta_s,
        learning_rate=training.learning_rate,
        memory_bytes=used_bytes(training.device),
    )


def state_of(task: Task[Batch]) -> dict[str, Tensor]:
    """Copies on the CPU of the model's state and the task's extra state, as they are now."""
    state = {**task.model.state_dict(), **task.extra_state()}
    return {key: on_cpu(value) for key, value in state.items()}
