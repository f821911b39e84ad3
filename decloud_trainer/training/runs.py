"""A whole training run: from a base model and data to the artefact, its score and its record."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import decloud_trainer
from decloud_trainer import files
from decloud_trainer.errors import (
    CorruptionError,
    Diverged,
    OutOfTime,
    SettingsError,
)
from decloud_trainer.training.checkpoint import Checkpoint
from decloud_trainer.training.choices import Choices
from decloud_trainer.training.classifier_task import ClassifierTask
from decloud_trainer.training.convention import carried
from decloud_trainer.training.course import Course
from decloud_trainer.training.data.samples import Dataset, Samples
from decloud_trainer.training.device import Device, choose_device
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.horizon import choices_for, plan_for
from decloud_trainer.training.inspection import settled
from decloud_trainer.training.loop import state_of
from decloud_trainer.training.material import gather
from decloud_trainer.training.memory import parts_that_fit, peak_bytes
from decloud_trainer.training.outcome import Artifact, Maker
from decloud_trainer.training.record import Point, RunRecord, slow_epochs, write
from decloud_trainer.training.results import Progress, TrainResult
from decloud_trainer.training.selection import (
    LEAST_HELD_OUT,
    Candidate,
    Judge,
    Selection,
    divide,
)
from decloud_trainer.training.spec import AUTO, DataSpec, TrainSpec
from decloud_trainer.training.state import Training
from decloud_trainer.training.track import Tracker

log = logging.getLogger(__name__)

ARTIFACT = "gradient.pt"
# The artefact of the best state so far, while a run is under way.
SO_FAR = "so-far.pt"
# Passes after the planned ones, while the preview doesn't beat the base and no deadline ends it.
EXTRA_EPOCHS = 20
NO_TIME = "the deadline left no time; join rounds that end later"


def train_model(spec: TrainSpec, folder: Path, hooks: Hooks) -> TrainResult:
    """Train, make the artefact of the best state, preview its score, and write the run's record.

    A checkpoint of the same run is gone on from. The planned epochs are trained before anything is
    previewed. While the preview then doesn't beat the base, and `until_improved` asks for it,
    training goes on epoch by epoch: until the deadline, or without one for 20 more. A stop or the
    deadline ends it with the best there is. In `folder` are then the artefact and ``run.json``.

    Raises:
        HostileFile, TooLarge, ContentMismatch, UnknownArchitecture: the model can't be used.
        DatasetUnavailable, TrainingError: the data can't, or the memory doesn't suffice.
        OutOfTime: it was stopped before the first batch.
        Diverged: no usable state has been reached.
    """
    started = hooks.clock()
    kept = _latest(spec, hooks)
    if kept is None and spec.deadline is not None and started >= spec.deadline:
        raise OutOfTime("the deadline had passed before the training began", hint=NO_TIME)
    try:
        run = _resumed(spec, folder, hooks, kept) if kept else None
        run = run or _Run(spec, folder, hooks, None)
        run.train()
        return run.finish(hooks.clock() - started)
    finally:
        if hooks.checkpoints is not None:
            hooks.checkpoints.close()


def _latest(spec: TrainSpec, hooks: Hooks) -> Checkpoint | None:
    kept = hooks.checkpoints.latest() if hooks.checkpoints is not None else None
    if kept is not None and kept.document.get("run") != spec.digest():
        log.warning("the checkpoint here is of another run; this one begins anew")
        return None
    return kept


def _resumed(spec: TrainSpec, folder: Path, hooks: Hooks, kept: Checkpoint) -> _Run | None:
    """The run as it was; None if it can't be gone on with here."""
    try:
        return _Run(spec, folder, hooks, kept)
    except (CorruptionError, SettingsError) as error:
        log.warning("%s; the run begins anew", error)
        return None


class _Run:
    """A run under way; made with a checkpoint it goes on from there.

    Raises:
        CorruptionError, SettingsError: the checkpoint can't be gone on from here.
    """

    def __init__(
        self, spec: TrainSpec, folder: Path, hooks: Hooks, kept: Checkpoint | None
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._tracker = Tracker(folder) if spec.tensorboard else None
        self._hooks = dataclasses.replace(hooks, progress=self._tell)
        self._progress = hooks.progress
        self._made: tuple[Candidate, Artifact] | None = None
        self._material = gather(spec, hooks)
        decided = Choices.from_json(kept.document["choices"]) if kept else spec.choices
        self.device = self._settle_device(decided)
        self._compose(decided)
        if kept:
            self.course.restore(kept)
            self.course.note(f"resumed at step {self.training.step}")

    def _settle_device(self, decided: Choices | None) -> Device:
        spec, material = self._spec, self._material
        if decided:
            device = choose_device(decided.device, decided.threads)
            device = device.using(decided.precision, decided.memory_format)
        else:
            device = choose_device(spec.device, spec.threads)
            device = settled(spec, material.architecture, material.loaded, device)
        self._parts = parts_that_fit(material.architecture, spec.batch_size, device)
        return device

    def _compose(self, decided: Choices | None) -> None:
        """Task, judge and plan, and how long it shall be."""
        spec, material, device = self._spec, self._material, self.device
        samples = material.dataset.split("train")
        division = divide(np.asarray(samples.labels), spec.strategy.validation, spec.seed)
        task = ClassifierTask(
            material.architecture.with_weights(material.loaded.tensors),
            samples,
            spec.batch_size,
            spec.seed,
            device,
            strategy=spec.strategy,
            dataset=spec.data.name,
            chosen=division.train if division.is_held_out else None,
        )
        judged = Samples(
            np.ascontiguousarray(samples.inputs[division.judge]),
            np.ascontiguousarray(samples.labels[division.judge]),
            samples.modality,
        )
        judge = Judge(material.architecture, material.loaded.tensors, task, judged, device)
        plan = plan_for(spec, material, task, len(judged))
        choices = decided or choices_for(spec, plan, task, device, self._hooks, self._parts)
        wanted = (choices.chosen_step, choices.chosen_weights) if spec.choices else None
        self.training = Training(task, plan, device, choices)
        self.course = Course(
            self.training,
            Selection(judge, division.is_held_out, wanted),
            self._hooks,
            material.loaded.tensors,
            spec.digest(),
            self._hooks.clock(),
            self._save_so_far,
            self._point,
            spec.commits.message,
            spec.asked(),
        )
        if spec.strategy.validation and not division.is_held_out:
            self.course.note(
                f"nothing was held out to choose by: a part of {spec.strategy.validation:g} of "
                f"{len(samples):,} samples is less than {LEAST_HELD_OUT}"
            )
        self._maker = Maker(
            material.loaded.tensors,
            judge.model,
            carried(material.architecture, spec.artifact.apply_scale),
            spec.artifact,
            material.scorer,
            (lambda state: judge.verdict(state).accuracy) if division.is_held_out else None,
        )

    def train(self) -> None:
        """To the end that was planned, and on while it isn't worth anything."""
        choices, per_epoch = self.training.choices, self.training.per_epoch
        if self._spec.choices:
            self.course.run(self._spec.choices.stop_step)
            return
        planned = choices.total_steps
        most = planned + EXTRA_EPOCHS * per_epoch
        if self._spec.deadline is not None:
            most = planned + 10**6 * per_epoch
        done = max(0, self.training.step - planned)
        until = planned - -done // per_epoch * per_epoch
        self.course.run(until)
        while self.course.stopped == "complete" and until < most and not self._is_enough():
            until += per_epoch
            self.course.run(until)

    def _is_enough(self) -> bool:
        best = self.course.selection.best
        if best is None or not self._spec.until_improved or self._material.scorer is None:
            return True
        preview = self._make(best).preview
        assert preview is not None, "there is a scorer"
        return preview.improvement > 0 or preview.before >= 100.0

    def _make(self, best: Candidate) -> Artifact:
        if self._made is None or self._made[0] is not best:
            maker = self._maker
            if self._spec.choices and self._spec.choices.dtype:
                self._made = best, maker.scored(best.state, self._spec.choices.dtype)
            else:
                self._made = best, maker.make(best.state)
        return self._made[1]

    def finish(self, seconds: float) -> TrainResult:
        """Store the best state's artefact, and the record of how it came about."""
        best = self.course.selection.best
        if best is None:
            if self.course.trouble:
                raise self.course.trouble
            if self.training.step:
                raise Diverged(
                    f"after {self.training.step} batches the network is of no use yet",
                    hint="give it more time or a lower learning rate",
                )
            raise OutOfTime(
                "training was stopped before its first batch",
                hint=NO_TIME,
            )
        self._commit_end()
        artifact = self._make(best)
        path = self._folder / ARTIFACT
        files.write_atomic(path, artifact.data)
        digest = hashlib.sha256(artifact.data).hexdigest()
        if files.sha256_file(path) != digest:
            raise CorruptionError(
                f"{path} isn't what was written to it", hint="check the disk, then train again"
            )
        self._close_chain()
        result = self._result(artifact, digest, seconds)
        choices = dataclasses.replace(
            self.training.choices,
            stop_step=self.training.step,
            chosen_step=best.step,
            chosen_weights=best.weights,
            dtype=artifact.dtype,
        )
        write(self._folder, self._record(result, choices))
        (self._folder / SO_FAR).unlink(missing_ok=True)
        if self._tracker:
            if artifact.preview:
                told = artifact.preview
                self._tracker.preview(self.training.step, told.before, told.after)
            self._tracker.close()
        return result

    def _commit_end(self) -> None:
        """The last state as a version, if that was asked for."""
        if self._spec.commits.auto_commit:
            try:
                self.course.commit()
            except Diverged as error:
                self.course.note(f"the last state isn't committed: {error}")

    def _close_chain(self) -> None:
        """Wait for what is being committed, and note what wasn't."""
        if self._hooks.checkpoints is None:
            return
        report = self._hooks.checkpoints.close()
        if report.failed:
            self.course.note(f"{report.failed} states weren't kept: {report.error}")
        if report.left_out:
            self.course.note(f"{report.left_out} commits gave way to newer ones")

    def _result(self, artifact: Artifact, digest: str, seconds: float) -> TrainResult:
        curve = self.course.curve
        samples, training_s = (curve[-1].samples, curve[-1].seconds) if curve else (0, 0.0)
        return TrainResult(
            artifact=ARTIFACT,
            sha256=digest,
            bytes=len(artifact.data),
            preview=artifact.preview,
            epochs=len(curve),
            batches=self.training.step,
            samples=samples,
            samples_per_s=round(samples / max(training_s, 1e-9), 1),
            seconds=round(seconds, 3),
            loss=tuple(point.loss for point in curve if point.loss is not None),
            stopped=self.course.stopped,
            device=self.device.name,
            threads=self.device.threads,
            torch=torch.__version__,
        )

    def _record(self, result: TrainResult, choices: Choices) -> RunRecord:
        spec, material = self._spec, self._material
        preview = material.preview
        return RunRecord(
            started=datetime.fromtimestamp(self.course.started, UTC).isoformat(),
            spec=spec.to_json(),
            choices=choices.to_json(),
            versions=_versions(self.device),
            data=_told(spec.data, material.dataset),
            preview_data=_told(spec.preview, preview) if spec.preview and preview else None,
            curve=tuple(self.course.curve),
            notes=(*self.course.notes, *slow_epochs(self.course.curve)),
            result=result.to_json(),
            peak_memory_bytes=peak_bytes(self.device),
        )

    def _save_so_far(self) -> None:
        """A file that could be handed in, whatever happens now."""
        best = self.course.selection.best
        if best is not None:
            state = dict(best.state)
        else:
            state = state_of(self.training.task) | self.training.average.weights()
        dtype = self._spec.artifact.dtype
        data = self._maker.encode(state, "float32" if dtype == AUTO else dtype)
        files.write_atomic(self._folder / SO_FAR, data)

    def _tell(self, told: Progress) -> None:
        best = self.course.selection.best
        if best is not None and self.course.selection.is_held_out:
            told = dataclasses.replace(told, validation=best.accuracy)
        self._progress(told)
        if self._tracker:
            self._tracker.progress(self.training.step, told)

    def _point(self, point: Point) -> None:
        if self._tracker:
            self._tracker.point(point)


def _versions(device: Device) -> dict[str, str]:
    """Of what the artefact's bytes depend on."""
    told = {
        "decloud_trainer": decloud_trainer.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    if device.torch.type == "cuda":
        told["gpu"] = torch.cuda.get_device_name(device.torch)
    return told


def _told(spec: DataSpec, dataset: Dataset) -> dict[str, Any]:
    return {"name": spec.name, **dataset.info.to_json()}
