"""A look at a stranger's model: is it safe, which network is it, how fast does it train here?"""

from __future__ import annotations

import math

import numpy as np
import torch

from decloud_trainer import files
from decloud_trainer.errors import Diverged
from decloud_trainer.training.artifacts import Loaded, load_model
from decloud_trainer.training.classifier_task import ClassifierTask, check_batch_size
from decloud_trainer.training.data.samples import SIDE, Samples
from decloud_trainer.training.device import Device, choose_device
from decloud_trainer.training.fitting import tokenizer_for
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.horizon import steps_per_second
from decloud_trainer.training.memory import check_fits
from decloud_trainer.training.networks import Architecture, recognise
from decloud_trainer.training.results import ModelInfo, Progress
from decloud_trainer.training.spec import AUTO, InspectSpec, TrainSpec
from decloud_trainer.training.state import Plan
from decloud_trainer.training.tuning import tune

MEASURED_BATCHES = 500
MEASURED_BATCH = 32


def inspect_model(spec: InspectSpec, hooks: Hooks) -> ModelInfo:
    """Load a stranger's model safely, recognise it, and measure how fast it trains here.

    Raises:
        HostileFile, TooLarge, ContentMismatch: the file must not be used.
        Diverged: its weights are of no use.
        UnknownArchitecture: it is no network that we know, or no tokenizer for it is here.
        TrainingError: this machine's memory can't hold its training.
        SettingsError: the device asked for isn't there, or the batch size can't train the network.
    """
    hooks.progress(Progress("load"))
    loaded = load_model(spec.model, spec.max_bytes, spec.sha256)
    architecture = recognise(loaded.shapes)
    tokenizer_for(architecture, spec.tokenizer)
    device = choose_device(spec.device, spec.threads)
    check_batch_size(architecture.empty(), spec.batch_size)
    memory_bytes = check_fits(architecture, spec.batch_size, device)
    device = settled(spec, architecture, loaded, device)
    speed = _measured(loaded, architecture, device, hooks)
    return ModelInfo(
        architecture=architecture.name,
        classes=architecture.classes,
        parameters=sum(math.prod(shape) for shape in architecture.parameters().values()),
        sha256=loaded.sha256,
        bytes=loaded.bytes,
        samples_per_s=round(speed, 1),
        device=device.name,
        threads=device.threads,
        precision=device.precision_name,
        torch=torch.__version__,
        memory_bytes=memory_bytes,
        modality=architecture.modality,
        columns=architecture.columns,
    )


def settled(
    spec: InspectSpec | TrainSpec, architecture: Architecture, loaded: Loaded, device: Device
) -> Device:
    """The device with the precision asked for, or with the fastest way to train there.

    Raises:
        SettingsError: the device doesn't train in that precision.
    """
    if spec.precision != AUTO:
        return device.using(spec.precision)
    folder = files.cache_dir() / files.TUNING
    found = tune(
        architecture, loaded.tensors, device, spec.batch_size, folder, threads=spec.threads
    )
    return found.applied(device)


def _measured(loaded: Loaded, architecture: Architecture, device: Device, hooks: Hooks) -> float:
    """Samples per second of the real loop on made-up samples."""
    samples = _made_up(architecture, MEASURED_BATCH * MEASURED_BATCHES)
    model = architecture.with_weights(loaded.tensors)
    task = ClassifierTask(model, samples, MEASURED_BATCH, 0, device)
    plan = Plan(learning_rate=1e-6, seed=0)
    try:
        return MEASURED_BATCH * steps_per_second(task, plan, device, hooks, math.inf)
    except Diverged as error:
        raise Diverged(
            "the model can't be trained: its weights are so large that even a tiny step gives no "
            f"finite loss ({error.message})",
            hint="nothing is wrong here; skip this round",
        ) from error


def _made_up(architecture: Architecture, count: int) -> Samples:
    random = np.random.default_rng(0)
    labels = random.integers(0, architecture.classes, count, dtype=np.int64)
    if architecture.modality == "image":
        images = random.integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)
        return Samples(images, labels, "image")
    return Samples(architecture.example(count).numpy(), labels, architecture.modality)
