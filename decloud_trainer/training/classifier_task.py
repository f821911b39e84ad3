"""Classification as a task for the loop; the preprocessing is the scoring side's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from decloud_trainer.errors import SettingsError, TrainingError
from decloud_trainer.training.augment import NOTHING, augment, changes_for
from decloud_trainer.training.convention import has_batchnorm
from decloud_trainer.training.data.samples import Samples
from decloud_trainer.training.data.tokens import PADDING
from decloud_trainer.training.device import Device
from decloud_trainer.training.evaluate import percent
from decloud_trainer.training.memory import holds
from decloud_trainer.training.spec import Modality
from decloud_trainer.training.strategy import Strategy
from decloud_trainer.training.task import Step, seed_for

WIDEST = 5  # words that a network's convolution takes at once


def normalise(images: Tensor, memory_format: torch.memory_format) -> Tensor:
    """uint8, (N, 32, 32) grey or (N, 32, 32, 3) in colour -> float32 (N, 3, 32, 32) in -1..1; grey
    ones get three equal channels.

    The same operations in the same order as torchvision's ToTensor and Normalize(0.5, 0.5), on a
    whole batch; equal to the bit.
    """
    scaled = images.to(torch.float32).div_(255).sub_(0.5).div_(0.5)
    if scaled.dim() == 4:
        planes = scaled.permute(0, 3, 1, 2)
    else:
        planes = scaled.unsqueeze(1).expand(-1, 3, -1, -1)
    return planes.contiguous(memory_format=memory_format)


def network_inputs(
    stored: Tensor, modality: Modality, memory_format: torch.memory_format
) -> Tensor:
    """Stored samples as a network of that modality takes them: images normalised, token ids as
    int64 up to the batch's longest text, rows of numbers as they are."""
    if modality == "image":
        return normalise(stored, memory_format)
    return without_padding(stored).long() if modality == "text" else stored


def without_padding(ids: Tensor) -> Tensor:
    """Token ids (N, L) -> (N, up to L): less the padding that changes nothing.

    What stays is as much of it as the widest convolution over words sees at once; transformers
    look at none. Only on the CPU: elsewhere a look at the ids would make each batch wait.
    """
    if ids.device.type != "cpu":
        return ids
    used = int((ids != PADDING).any(dim=0).sum())  # padding stands at the end only
    return ids[:, : used + WIDEST]


class ClassifierTask:
    """Cross-entropy on shuffled batches, gathered as whole tensors from data in memory.

    Batch normalisation has no statistics of a single sample: with it, an epoch's last batch is left
    out if it has only one.

    Args:
        chosen: numbers of the samples to train on; None = all.
        dataset: its key; it tells which changes of augmentation its classes survive.

    Raises:
        SettingsError: every batch would be of one sample, and the model has batch normalisation.
    """

    def __init__(
        self,
        model: nn.Module,
        samples: Samples,
        batch_size: int,
        seed: int,
        device: Device,
        *,
        strategy: Strategy = Strategy.plain(),  # noqa: B008  a frozen value
        dataset: str = "",
        chosen: NDArray[np.int64] | None = None,
    ) -> None:
        self._layout = device.layout
        self.model = model.to(device.torch, memory_format=device.layout)  # type: ignore[call-overload]
        self._modality = samples.modality
        self._inputs = torch.from_numpy(samples.inputs)
        self._labels = torch.from_numpy(samples.labels)
        self._device = device.torch
        if device.torch.type != "cpu" and holds(device, self._inputs.nbytes):
            self._inputs, self._labels = (
                tensor.to(device.torch) for tensor in (self._inputs, self._labels)
            )
        self._chosen = None if chosen is None else torch.from_numpy(chosen)
        self._size = len(samples) if chosen is None else len(chosen)
        self._least = 2 if has_batchnorm(model) else 1
        check_batch_size(model, batch_size)
        self._batch_size = batch_size
        self._seed = seed
        self._smoothing = strategy.label_smoothing
        is_image = samples.modality == "image"
        self._changes = changes_for(strategy.augment, dataset) if is_image else NOTHING

    @property
    def batches_per_epoch(self) -> int:
        whole, rest = divmod(self._size, self._batch_size)
        return whole + (rest >= self._least)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs (B, ...), labels int64 (B,)); a sample once per epoch.

        Images come as float32 (B, 3, 32, 32), token ids as int64 (B, L), rows as float32.
        """
        generator = torch.Generator().manual_seed(seed_for(self._seed, epoch, "order"))
        order = torch.randperm(self._size, generator=generator)
        if self._chosen is not None:
            order = self._chosen[order]
        order = order.to(self._labels.device)
        beside = _Beside(self._device) if self._is_sent else None
        for number in range(start, self.batches_per_epoch):
            picked = order[number * self._batch_size :][: self._batch_size]
            with beside or contextlib.nullcontext():
                batch = self._batch(picked, epoch, number)
            yield beside.arrived(batch) if beside else batch

    def _batch(self, picked: Tensor, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        stored, labels = self._here(self._inputs[picked]), self._here(self._labels[picked])
        if self._changes != NOTHING:
            seed = seed_for(self._seed, epoch, f"augment {number}")
            generator = torch.Generator().manual_seed(seed)
            stored = augment(stored, self._changes, generator)
        return network_inputs(stored, self._modality, self._layout), labels

    @property
    def _is_sent(self) -> bool:
        """Whether each batch goes to a GPU by itself, since not all of the data fit there."""
        return self._device.type == "cuda" and self._inputs.device.type == "cpu"

    def _here(self, picked: Tensor) -> Tensor:
        """On the device; from pinned memory, so that nobody waits for it to arrive."""
        if picked.device.type == self._device.type:
            return picked
        return picked.pin_memory().to(self._device, non_blocking=True)

    def step(self, batch: tuple[Tensor, Tensor]) -> Step:
        inputs, labels = batch
        logits = self.model(inputs)
        loss = functional.cross_entropy(logits, labels, label_smoothing=self._smoothing)
        correct = (logits.detach().argmax(dim=1) == labels).sum()
        return Step(loss, len(labels), {"correct": correct})

    def split(self, batch: tuple[Tensor, Tensor], parts: int) -> list[tuple[Tensor, Tensor]]:
        """In parts of nearly equal size; with batch normalisation of two samples at least."""
        inputs, labels = batch
        parts = max(1, min(parts, len(labels) // self._least))
        return list(zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True))

    def metrics(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        return {"accuracy": percent(int(sums["correct"]), samples)}

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing: the network's weights are all there is."""
        return {}


class _Beside:
    """Work for a CUDA device in a stream of its own: it goes on while the last batch is trained
    on, since the training's kernels were all started when the next batch is asked for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._entered = torch.cuda.stream(self._stream)

    def __enter__(self) -> None:
        self._entered.__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *raised: Any) -> None:
        self._entered.__exit__(*raised)

    def arrived(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The batch, which the training's stream waits for, and nobody else."""
        training = torch.cuda.current_stream(self._device)
        training.wait_stream(self._stream)
        for tensor in batch:
            tensor.record_stream(training)  # its memory isn't given away before that is done
        return batch


def check_batch_size(model: nn.Module, batch_size: int) -> None:
    """Batch normalisation needs two samples at least.

    Raises:
        SettingsError: the model has it, and every batch would be of one sample.
    """
    if batch_size < 2 and has_batchnorm(model):
        raise SettingsError(
            "batches of one sample can't train a model with batch normalisation",
            hint="set batch_size to 2 or more",
        )


def check_labels(samples: Samples, classes: int, name: str) -> None:
    """Every label must have an output of its own.

    Raises:
        TrainingError: a label is below zero, or beyond the model's head.
    """
    lowest, highest = int(samples.labels.min()), int(samples.labels.max())
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        raise TrainingError(
            f"{name} has the label {wrong}, but the model has only {classes} classes",
            hint="map the round's dataset to data with as many classes as its model",
        )
