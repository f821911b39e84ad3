"""The course of a run: legs of training, looks at the state, ways back from trouble."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import Tensor

from decloud_trainer.errors import CorruptionError, Diverged
from decloud_trainer.training.checkpoint import Checkpoint
from decloud_trainer.training.commit_plan import DEFAULT_MESSAGE, MESSAGE_FIELDS, filled_message
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.loop import Epoch, Moment, train
from decloud_trainer.training.record import Point
from decloud_trainer.training.results import Stopped
from decloud_trainer.training.selection import Selection
from decloud_trainer.training.state import Training
from decloud_trainer.training.values import as_json

log = logging.getLogger(__name__)

Batch = TypeVar("Batch")

# After trouble the rate is lowered to this part of what it was, so many times at most.
LOWERED_TO = 0.25
MAX_WAYS_BACK = 4
# A network that gives one answer is none yet in the first part of a run.
SETTLING = 0.1


@dataclass(slots=True)
class Course(Generic[Batch]):
    """What has happened in a run so far, and where it stands.

    Attributes:
        base: the model's state before the first step.
        digest: of what the run was asked for; a checkpoint of another is never taken.
        started: unix seconds.
        on_save: called whenever the state has been kept for resuming.
        on_point: called with each new point of the curve.
        message: the template of the messages of its commits.
        asked: what the run was asked for, as every state that is kept tells it.
        curve: a point for each epoch.
        notes: what was out of the ordinary, in sentences.
        stopped: what ended it before its time.
        trouble: the last reason why a state couldn't be used.
    """

    training: Training[Batch]
    selection: Selection
    hooks: Hooks
    base: Mapping[str, Tensor]
    digest: str
    started: float
    on_save: Callable[[], None]
    on_point: Callable[[Point], None]
    message: str = DEFAULT_MESSAGE
    asked: Mapping[str, Any] = field(default_factory=dict)
    curve: list[Point] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stopped: Stopped = "complete"
    trouble: Diverged | None = None
    _ways_back: int = 0
    _sound: Checkpoint | None = None
    _committed: int = -1
    _is_useless: bool = False

    def run(self, until: int) -> None:
        """Train until that step, or until something ends it: see `stopped`.

        When the loss runs away or the network becomes useless, the run goes back to the last good
        state, or to its beginning, with a lower rate. If that doesn't help, it ends with the best
        state that there was.

        Raises:
            Diverged: there has been no usable state.
        """
        while True:
            try:
                self._follow(train(self.training, until, self.hooks), until)
                return
            except Diverged as error:
                self._go_back(error)
                if self.stopped != "complete":
                    return

    def _follow(self, moments: Iterator[Moment], until: int) -> None:
        """What is done at each moment of the training."""
        for moment in moments:
            if moment.kind == "look":
                self._look(until)
            elif moment.kind == "save":
                self._keep()
            elif moment.kind == "commit":
                self.commit()
            else:
                self._record(moment.epoch)
                if moment.epoch.stopped:
                    self.stopped = moment.epoch.stopped
                elif self._has_stalled():
                    self.stopped = "patience"
                if self.stopped != "complete":
                    return

    def _look(self, until: int) -> None:
        training = self.training
        if not training.step:
            return  # cut before the first batch
        problem = self.selection.look(training)
        is_late = training.step >= min(until, SETTLING * training.choices.total_steps)
        if problem and is_late and not training.plan.is_replay:
            self._is_useless = True
            raise Diverged(
                f"after {training.step} batches the network is of no use: {problem}",
                hint="lower the learning rate",
            )

    def _record(self, epoch: Epoch) -> None:
        """A point of the curve; of an epoch that goes on in another leg there is one."""
        if not epoch.batches:
            return
        if self.curve and self.curve[-1].epoch == epoch.number:
            self.curve.pop()
        last = self.curve[-1] if self.curve else None
        point = Point(
            epoch=epoch.number,
            steps=self.training.step,
            samples=epoch.samples + (last.samples if last else 0),
            loss=epoch.loss,
            accuracy=epoch.metrics.get("accuracy"),
            validation=self.selection.latest,
            learning_rate=self.training.learning_rate,
            seconds=round(epoch.seconds + (last.seconds if last else 0.0), 3),
        )
        self.selection.latest = None
        self.curve.append(point)
        self.on_point(point)

    def _has_stalled(self) -> bool:
        """Only after a look: where these are rarer than epochs, the next one may be better."""
        patience, best = self.training.plan.strategy.patience, self.selection.best
        was_judged = bool(self.curve) and self.curve[-1].validation is not None
        if not patience or not was_judged or best is None or self.training.plan.is_replay:
            return False
        return self.training.step - best.step >= patience * self.training.per_epoch

    def _keep(self) -> None:
        """Remember the state as a good one, if it is."""
        self._check_weights()
        self._sound = self.snapshot()
        if self.hooks.checkpoints is not None:
            self.hooks.checkpoints.save(self._sound)
        self.on_save()

    def commit(self) -> None:
        """Keep the state as a version, unless this very state is one already.

        Raises:
            Diverged: it is no good one.
        """
        step = self.training.step
        if self.hooks.checkpoints is None or self._committed == step:
            return
        self._check_weights()
        self._committed = step
        self._sound = self.snapshot()
        told = self._figures()
        metrics = {name: float(value) for name, value in told.items() if value is not None}
        best = self.selection.best
        if best is not None and self.selection.is_held_out:
            metrics["validation"] = best.accuracy
        words = {name: told.get(name) for name in MESSAGE_FIELDS}
        self.hooks.checkpoints.commit(self._sound, filled_message(self.message, words), metrics)

    def _figures(self) -> dict[str, float | None]:
        """Of the epoch so far; the step counts from the run's beginning, the batch from its."""
        tally, task = self.training.tally, self.training.task
        sums = {name: float(value) for name, value in tally.sums.items()}
        accuracy = task.metrics(sums, tally.samples).get("accuracy") if tally.samples else None
        return {
            "step": self.training.step,
            "batch": tally.batches,
            "epoch": tally.epoch,
            "loss": tally.loss(),
            "accuracy": accuracy,
        }

    def _check_weights(self) -> None:
        if not self.training.is_sound():
            raise Diverged("a weight is no longer finite", hint="lower the learning rate")

    def _go_back(self, error: Diverged) -> None:
        """To the last good state, with a lower rate.

        Raises:
            Diverged: the trouble itself, when there is no way back and no usable state.
        """
        training = self.training
        self.trouble = error
        factor = training.choices.rate_factor(max(training.step - 1, 0)) * LOWERED_TO
        is_first = training.step <= 1  # then the rate wasn't to blame
        no_more = self._ways_back >= MAX_WAYS_BACK or training.plan.is_replay
        if is_first or no_more or self._is_over():
            if self.selection.best is None:
                raise error
            self.note(f"{error}; the best state from before is kept")
            self.stopped = "diverged"
            return
        self._ways_back += 1
        # A network that has become useless was so some time before it was looked at.
        if self._sound is None or self._is_useless:
            training.begin_anew(self.base)
            self.selection.best = self._sound = None
            self._committed = -1
            self.curve.clear()
        else:
            self.restore(self._sound, notes=False)
        self._is_useless = False
        step = training.step
        earlier = (each for each in training.choices.rate_changes if each[0] < step)
        training.choices = dataclasses.replace(
            training.choices, rate_changes=(*earlier, (step, factor))
        )
        self.note(f"{error}; back to step {step} with {factor:.3g} of the planned rate")

    def _is_over(self) -> bool:
        deadline = self.training.plan.deadline
        late = deadline is not None and self.hooks.clock() >= deadline
        return late or self.hooks.should_stop()

    def note(self, sentence: str) -> None:
        """Something out of the ordinary: for the record, and for the log."""
        log.warning("%s", sentence)
        self.notes.append(sentence)

    def snapshot(self) -> Checkpoint:
        """All of it, as a checkpoint."""
        training, best = self.training.snapshot(), self.selection.snapshot()
        document = {
            **training.document,
            "run": self.digest,
            "spec": dict(self.asked),
            "started": self.started,
            "best": best.document,
            "curve": [as_json(point) for point in self.curve],
            "notes": list(self.notes),
            "ways_back": self._ways_back,
            "committed": self._committed,
        }
        return Checkpoint(document, {**training.tensors, **best.tensors})

    def restore(self, checkpoint: Checkpoint, *, notes: bool = True) -> None:
        """Go on from a snapshot.

        Raises:
            CorruptionError: it isn't this run's; the course must not be used any more.
        """
        document: Mapping[str, Any] = checkpoint.document
        if document.get("run") != self.digest:
            raise CorruptionError("the checkpoint is of another run")
        self.training.restore(checkpoint)
        try:
            self.selection.restore(document["best"], checkpoint.part("best"))
            self.curve = [Point(**point) for point in document["curve"]]
            self._committed = int(document["committed"])
            if notes:
                self.started = float(document["started"])
                self.notes = [str(note) for note in document["notes"]]
                self._ways_back = int(document["ways_back"])
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptionError(f"the checkpoint isn't a run's: {error}") from error
        self._sound = checkpoint
