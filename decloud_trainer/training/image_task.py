"""Image classification as a task for the loop; the preprocessing is the scoring side's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from decloud_trainer.errors import SettingsError, TrainingError
from decloud_trainer.training.convention import has_batchnorm
from decloud_trainer.training.device import Device
from decloud_trainer.training.evaluate import percent
from decloud_trainer.training.samples import Samples
from decloud_trainer.training.task import Step, seed_for


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


def scoring_batches(samples: Samples, batch_size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """(inputs, labels) in the data's order, in the batches that the scoring side uses."""
    images, labels = torch.from_numpy(samples.inputs), torch.from_numpy(samples.labels)
    for start in range(0, len(labels), batch_size):
        part = slice(start, start + batch_size)
        yield normalise(images[part], torch.contiguous_format), labels[part]


class ImageTask:
    """Cross-entropy on shuffled batches, gathered as whole tensors from data in memory.

    Batch normalisation has no statistics of a single sample: with it, an epoch's last batch is left
    out if it has only one.

    Raises:
        SettingsError: every batch would be of one sample, and the model has batch normalisation.
    """

    def __init__(
        self, model: nn.Module, samples: Samples, batch_size: int, seed: int, device: Device
    ) -> None:
        # channels_last is the faster layout for convolutions; results stay repeatable.
        self.model = model.to(device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._images = torch.from_numpy(samples.inputs)
        self._labels = torch.from_numpy(samples.labels)
        if device.torch.type != "cpu":
            self._images, self._labels = (
                tensor.to(device.torch) for tensor in (self._images, self._labels)
            )
        self._least = 2 if has_batchnorm(model) else 1
        check_batch_size(model, batch_size)
        self._batch_size = batch_size
        self._seed = seed

    @property
    def batches_per_epoch(self) -> int:
        whole, rest = divmod(len(self._labels), self._batch_size)
        return whole + (rest >= self._least)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs float32 (B, 3, 32, 32), labels int64 (B,)); a sample once per epoch."""
        generator = torch.Generator().manual_seed(seed_for(self._seed, epoch, "order"))
        order = torch.randperm(len(self._labels), generator=generator)
        order = order.to(self._labels.device)
        for number in range(self.batches_per_epoch):
            chosen = order[number * self._batch_size :][: self._batch_size]
            yield normalise(self._images[chosen], torch.channels_last), self._labels[chosen]

    def step(self, batch: tuple[Tensor, Tensor]) -> Step:
        inputs, labels = batch
        logits = self.model(inputs)
        loss = functional.cross_entropy(logits, labels)
        correct = (logits.detach().argmax(dim=1) == labels).sum()
        return Step(loss, len(labels), {"correct": correct})

    def metrics(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        return {"accuracy": percent(int(sums["correct"]), samples)}

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing: the network's weights are all there is."""
        return {}


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
        TrainingError: the highest label is beyond the model's head.
    """
    highest = int(samples.labels.max())
    if highest >= classes:
        raise TrainingError(
            f"{name} has the label {highest}, but the model has only {classes} classes",
            hint="map the round's dataset to data with as many classes as its model",
        )
