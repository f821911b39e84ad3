"""What a training child needs torch for: inspecting a model, and training it."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decloud_trainer import files
from decloud_trainer.errors import CorruptionError, Diverged, OutOfTime, UnknownArchitecture
from decloud_trainer.training import datasets
from decloud_trainer.training.artifacts import Loaded, difference, load_model, serialise
from decloud_trainer.training.classifier_task import ClassifierTask, check_batch_size, check_labels
from decloud_trainer.training.convention import (
    MEASURED_BATCHES,
    STATISTICS,
    carried,
    has_batchnorm,
    measure_statistics,
    submittable,
)
from decloud_trainer.training.device import Device, choose_device
from decloud_trainer.training.loop import Epoch, Plan, state_of, train
from decloud_trainer.training.memory import check_fits
from decloud_trainer.training.networks import Architecture, Shape, recognise
from decloud_trainer.training.results import ModelInfo, Preview, Progress, Stopped, TrainResult
from decloud_trainer.training.samples import SIDE, Samples
from decloud_trainer.training.scoring import Scorer
from decloud_trainer.training.spec import (
    AUTO_EPOCHS,
    MAX_MODEL_BYTES,
    ArtifactSpec,
    InspectSpec,
    TrainSpec,
)

log = logging.getLogger(__name__)

ARTIFACT = "gradient.pt"
# Passes after the planned ones, while the preview doesn't beat the base and no deadline ends it.
EXTRA_EPOCHS = 20
BENCHMARK_S = 0.7
# For three batches; where they take longer, the measurement ends with the batch then under way.
WARM_UP_S = 3.0
# Rather too slow: differences, serialising, reading back and writing an artefact.
STORED_BYTES_PER_S = 100e6
BENCHMARK_BATCH = 32


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a run needs from outside. Times are unix seconds."""

    clock: Callable[[], float]
    progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]


def inspect_model(spec: InspectSpec, hooks: Hooks) -> ModelInfo:
    """Load a stranger's model safely, recognise it, and measure how fast it trains here.

    Raises:
        HostileFile, TooLarge, ContentMismatch: the file must not be used.
        UnknownArchitecture: it is no network that we know.
        TrainingError: this machine's memory can't hold its training.
        SettingsError: the device asked for isn't there, or the batch size can't train the network.
    """
    hooks.progress(Progress("load"))
    loaded = load_model(spec.model, spec.max_bytes, spec.sha256)
    architecture = recognise(loaded.shapes)
    device = choose_device(spec.device, spec.threads)
    check_batch_size(architecture.empty(), spec.batch_size)
    memory_bytes = check_fits(architecture, spec.batch_size, device)
    return ModelInfo(
        architecture=architecture.name,
        classes=architecture.classes,
        parameters=sum(math.prod(shape) for shape in architecture.parameters().values()),
        sha256=loaded.sha256,
        bytes=loaded.bytes,
        samples_per_s=_benchmark(loaded, architecture, device, hooks),
        device=device.name,
        threads=device.threads,
        precision=device.precision_name,
        torch=torch.__version__,
        memory_bytes=memory_bytes,
    )


def _benchmark(loaded: Loaded, architecture: Architecture, device: Device, hooks: Hooks) -> float:
    """Samples per second of the real loop on made-up images, after a warm-up if that is quick."""
    random = np.random.default_rng(0)
    samples = Samples(
        random.integers(0, 256, (BENCHMARK_BATCH * 500, SIDE, SIDE), dtype=np.uint8),
        random.integers(0, architecture.classes, BENCHMARK_BATCH * 500, dtype=np.int64),
    )
    model = architecture.with_weights(loaded.tensors)
    task = ClassifierTask(model, samples, BENCHMARK_BATCH, 0, device)
    speed = 0.0
    for max_batches, seconds in ((3, WARM_UP_S), (0, BENCHMARK_S)):
        plan = Plan(1, 1, 1e-6, 0, max_batches, deadline=hooks.clock() + seconds)
        for epoch in train(
            task,
            plan,
            device,
            clock=hooks.clock,
            progress=lambda _: None,
            should_stop=hooks.should_stop,
        ):
            speed = epoch.samples / max(epoch.seconds, 1e-9)
            if epoch.seconds >= WARM_UP_S:
                return round(speed, 1)
    return round(speed, 1)


def train_model(spec: TrainSpec, folder: Path, hooks: Hooks) -> TrainResult:
    """Train, make the artefact, preview its score; the best artefact ends in `folder`.

    The planned epochs are trained before anything is scored. While the preview then doesn't beat
    the base, and `until_improved` asks for it, training goes on epoch by epoch: until the
    deadline, or without one for 20 more. The best of the artefacts scored is the result. A stop
    or the deadline scores what there is.

    Raises:
        HostileFile, TooLarge, ContentMismatch, UnknownArchitecture: the model can't be used.
        DatasetUnavailable, TrainingError: the data can't, or the memory doesn't suffice.
        OutOfTime: it was stopped before the first batch.
        Diverged: the weights are of no use.
    """
    started = hooks.clock()
    if spec.deadline is not None and started >= spec.deadline:
        raise OutOfTime("the deadline had passed before the training began")
    hooks.progress(Progress("load"))
    # Before the device: a GPU's driver would count against the limit that holds while loading.
    loaded = load_model(spec.model.path, MAX_MODEL_BYTES, spec.model.sha256)
    architecture = _expected_architecture(loaded, spec)
    device = choose_device(spec.device, spec.threads)
    check_fits(architecture, spec.batch_size, device)
    hooks.progress(Progress("data"))
    samples = datasets.load(spec.data).split("train")
    check_labels(samples, architecture.classes, spec.data.name)

    scale = spec.artifact.apply_scale
    before_scoring = hooks.clock()
    scorer = _make_scorer(spec, loaded, architecture, hooks)
    scoring_s = hooks.clock() - before_scoring
    task = ClassifierTask(
        architecture.with_weights(loaded.tensors), samples, spec.batch_size, spec.seed, device
    )
    run = _Run(spec, loaded.tensors, carried(architecture, scale), folder, scorer)
    ending_s = 1.5 * scoring_s + 0.5 + loaded.bytes / STORED_BYTES_PER_S
    epochs = train(
        task,
        _plan(spec, scorer, ending_s),
        device,
        clock=hooks.clock,
        progress=hooks.progress,
        should_stop=hooks.should_stop,
    )
    try:
        for epoch in epochs:
            run.record(epoch)
            if run.is_due(epoch):
                run.consider(_scored_state(task, loaded, run.carried, device))
            if run.is_enough(epoch):
                break
    except Diverged as error:
        if run.best is None:
            raise
        log.warning("%s; the best artefact from before is kept", error)
    return run.result(device, hooks.clock() - started)


def _scored_state(
    task: ClassifierTask, loaded: Loaded, keys: Mapping[str, Shape], device: Device
) -> dict[str, Tensor]:
    """The state that the scoring side shall arrive at, as far as an artefact can carry it."""
    if has_batchnorm(task.model):
        # Epoch 0 is never trained. The same samples each time: a run can be repeated.
        batches = itertools.islice(task.batches(0), MEASURED_BATCHES)
        measure_statistics(task.model, (inputs for inputs, _ in batches), device)
    return submittable(task.model, state_of(task), loaded.tensors, keys)


def _expected_architecture(loaded: Loaded, spec: TrainSpec) -> Architecture:
    found = recognise(loaded.shapes)
    if (found.name, found.classes) != (spec.architecture, spec.classes):
        raise UnknownArchitecture(
            f"the model is {found.name} with {found.classes} classes, "
            f"the job says {spec.architecture} with {spec.classes}",
            hint="inspect the model again",
        )
    return found


def _make_scorer(
    spec: TrainSpec, loaded: Loaded, architecture: Architecture, hooks: Hooks
) -> Scorer | None:
    if spec.preview is None:
        return None
    held_out = datasets.load(spec.preview).split("test")
    check_labels(held_out, architecture.classes, spec.preview.name)
    return Scorer(loaded.tensors, architecture, held_out, spec.artifact.apply_scale, hooks.progress)


def planned_epochs(spec: TrainSpec) -> int:
    return AUTO_EPOCHS if spec.epochs == "auto" else spec.epochs


def _plan(spec: TrainSpec, scorer: Scorer | None, ending_s: float) -> Plan:
    """The loop's plan; its deadline leaves the time to score and store what it will have."""
    extra = 0
    if scorer and spec.until_improved:
        extra = EXTRA_EPOCHS if spec.deadline is None else 10**6
    return Plan(
        epochs=planned_epochs(spec),
        max_epochs=planned_epochs(spec) + extra,
        learning_rate=spec.learning_rate,
        seed=spec.seed,
        max_batches=spec.max_batches,
        deadline=None if spec.deadline is None else spec.deadline - ending_s,
    )


@dataclass(slots=True)
class _Run:
    """What has been trained and stored so far."""

    spec: TrainSpec
    base: dict[str, Tensor]
    carried: dict[str, Shape]
    folder: Path
    scorer: Scorer | None
    epochs: list[Epoch] = field(default_factory=list)
    best: tuple[bytes, Preview | None] | None = None

    @property
    def batches(self) -> int:
        return sum(epoch.batches for epoch in self.epochs)

    def record(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        if not self.batches:
            raise OutOfTime(
                "training was stopped before its first batch",
                hint="the deadline left no time; join rounds that end later",
            )

    def is_due(self, epoch: Epoch) -> bool:
        """Is there a state worth scoring that hasn't been?"""
        last = epoch.number >= planned_epochs(self.spec) or epoch.stopped is not None
        return last and (epoch.batches > 0 or self.best is None)

    def is_enough(self, epoch: Epoch) -> bool:
        if epoch.stopped:
            return True
        if self.best is None:
            return False
        preview = self.best[1]
        if preview is None or not self.spec.until_improved:
            return epoch.number >= planned_epochs(self.spec)
        return preview.improvement > 0 or preview.before >= 100.0

    def consider(self, trained: dict[str, Tensor]) -> None:
        """Make the artefact of a state; store it if it is the best so far."""
        convention: ArtifactSpec = self.spec.artifact
        gradient = difference(
            self.base,
            trained,
            convention.apply_scale,
            convention.dtype,
            # Few, and a variance that is rounded below zero would spoil everything.
            exact=[key for key in trained if key.endswith(STATISTICS)],
        )
        data = serialise(gradient)
        preview = self.scorer.preview(data) if self.scorer else None
        if preview and self.best and self.best[1] and preview.after <= self.best[1].after:
            return
        files.write_atomic(self.folder / ARTIFACT, data)
        self.best = (data, preview)

    def result(self, device: Device, seconds: float) -> TrainResult:
        assert self.best is not None, "a run without a batch has raised before"
        data, preview = self.best
        digest = hashlib.sha256(data).hexdigest()
        if files.sha256_file(self.folder / ARTIFACT) != digest:
            raise CorruptionError(f"{self.folder / ARTIFACT} isn't what was written to it")
        samples = sum(epoch.samples for epoch in self.epochs)
        training_s = sum(epoch.seconds for epoch in self.epochs)
        stopped: Stopped = self.epochs[-1].stopped or "complete"
        return TrainResult(
            artifact=ARTIFACT,
            sha256=digest,
            bytes=len(data),
            preview=preview,
            epochs=sum(epoch.batches > 0 for epoch in self.epochs),
            batches=self.batches,
            samples=samples,
            samples_per_s=round(samples / max(training_s, 1e-9), 1),
            seconds=round(seconds, 3),
            loss=tuple(epoch.loss for epoch in self.epochs if epoch.loss is not None),
            stopped=stopped,
            device=device.name,
            threads=device.threads,
            torch=torch.__version__,
        )
