"""The loops that `bench` compares: ours, the plain one of most tutorials, and the ceiling."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import transforms

from decloud_trainer.training.chains import ChainCheckpoints
from decloud_trainer.training.choices import Choices
from decloud_trainer.training.classifier_task import ClassifierTask, normalise
from decloud_trainer.training.data.samples import Samples
from decloud_trainer.training.device import Device
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.loop import train
from decloud_trainer.training.networks import Architecture
from decloud_trainer.training.results import Progress
from decloud_trainer.training.state import Plan, Training
from decloud_trainer.training.strategy import Strategy

RATE = 0.001
WORKERS = 2
Loader: TypeAlias = "torch.utils.data.DataLoader[tuple[Tensor, int]]"
CHECKPOINT_EVERY_S = 30.0  # a run's default


class Plain:
    """Images transformed one by one with PIL in two workers, a DataLoader, Adam at a constant rate,
    float32, the loss read back at every batch.

    The workers stay from epoch to epoch, which is in its favour.
    """

    def __init__(self, model: nn.Module, samples: Samples, batch_size: int, device: Device) -> None:
        self.model = model.to(device.torch)
        self._device = device
        self._loader: Loader | None = torch.utils.data.DataLoader(
            _Images(samples),
            batch_size=batch_size,
            shuffle=True,
            num_workers=WORKERS,
            persistent_workers=True,
        )
        self._batches: Iterator[tuple[Tensor, Tensor]] = iter(())
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE)
        self._criterion = nn.CrossEntropyLoss()

    def run(self, steps: int) -> int:
        """Train on so many batches; how many samples they had."""
        torch.set_num_threads(self._device.threads)
        self.model.train()
        samples, device = 0, self._device.torch
        for _ in range(steps):
            images, labels = self._next()
            self._optimizer.zero_grad()
            images, labels = images.to(device), labels.to(device)
            loss = self._criterion(self.model(images), labels)
            loss.backward()
            self._optimizer.step()
            loss.item()
            samples += len(labels)
        return samples

    def state(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def close(self) -> None:
        """End the workers."""
        self._batches, self._loader = iter(()), None

    def _next(self) -> tuple[Tensor, Tensor]:
        batch = next(self._batches, None)
        if batch is None:
            assert self._loader is not None, "it is closed"
            self._batches = iter(self._loader)
            batch = next(self._batches)
        return batch


class _Images(torch.utils.data.Dataset[tuple[Tensor, int]]):
    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._prepare = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.Grayscale(3) if samples.inputs.ndim == 3 else transforms.Lambda(_same),
                transforms.Resize((32, 32)),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self._prepare(np.array(self._samples.inputs[index]))
        return image, int(self._samples.labels[index])


def _same(image: object) -> object:
    return image


def plan_of(strategy: Strategy, seed: int) -> Plan:
    """With a run's default rate and checkpoints."""
    return Plan(RATE, seed, strategy, checkpoint_every_s=CHECKPOINT_EVERY_S)


class Ours:
    """The loop that rounds are trained with: progress and checkpoints on."""

    def __init__(
        self,
        model: nn.Module,
        samples: Samples,
        batch_size: int,
        device: Device,
        plan: Plan,
        steps: int,
        folder: Path,
    ) -> None:
        """`steps` is the schedule's horizon; checkpoints go to `folder`."""
        task = ClassifierTask(model, samples, batch_size, plan.seed, device, strategy=plan.strategy)
        choices = Choices(threads=device.threads, total_steps=steps)
        self.training = Training(task, plan, device, choices)
        self._size, self._batch_size = len(samples), batch_size
        self.checkpoints = ChainCheckpoints(folder)
        self._told = io.StringIO()
        self._hooks = Hooks(time.time, self._tell)

    def run(self, steps: int) -> int:
        """Train on so many batches; how many samples they had."""
        torch.set_num_threads(self.training.device.threads)
        before = self._done()
        for moment in train(self.training, self.training.step + steps, self._hooks):
            if moment.kind == "save":
                self.keep()
        return self._done() - before

    def _done(self) -> int:
        """Samples trained on so far; only an epoch's last batch may be a smaller one."""
        epochs, batches = divmod(self.training.step, self.training.per_epoch)
        return epochs * self._size + batches * self._batch_size

    def keep(self) -> None:
        """A checkpoint now, written beside what comes next."""
        self.training.pause()
        self.checkpoints.save(self.training.snapshot())

    def state(self) -> dict[str, Tensor]:
        """What would be handed in."""
        return {**self.training.task.model.state_dict(), **self.training.average.weights()}

    def close(self) -> None:
        self.checkpoints.close()

    def _tell(self, progress: Progress) -> None:
        """As a training child does."""
        self._told.write(json.dumps(progress.to_json()))
        self._told.seek(0)


class Ceiling:
    """Forward, backward and a fused Adam on batches that lie normalised in memory, in the best
    precision: what no loop can do faster with torch."""

    def __init__(self, model: nn.Module, samples: Samples, batch_size: int, device: Device) -> None:
        self.model: nn.Module = model.to(device.torch, memory_format=device.layout)  # type: ignore[call-overload]
        self._device = device
        inputs = torch.from_numpy(np.array(samples.inputs[: batch_size * 64]))
        labels = torch.from_numpy(np.array(samples.labels[: batch_size * 64]))
        self._batches = [
            (normalise(some, device.layout).to(device.torch), names.to(device.torch))
            for some, names in _parts(inputs, labels, batch_size)
            if len(some) == batch_size
        ]
        fused = device.torch.type in ("cpu", "cuda")
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE, fused=fused)

    def run(self, steps: int) -> int:
        """Train on so many batches; how many samples they had."""
        torch.set_num_threads(self._device.threads)
        self.model.train()
        samples = 0
        for number in range(steps):
            inputs, labels = self._batches[number % len(self._batches)]
            with self._device.precision():
                loss = functional.cross_entropy(self.model(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            samples += len(labels)
        return samples

    def state(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def close(self) -> None:
        """It holds nothing open."""


def accuracy(
    architecture: Architecture, state: Mapping[str, Tensor], test: Samples, most: int
) -> float:
    """Percent of the first `most` test samples, in float32 on the CPU."""
    model = architecture.with_weights({key: value.cpu() for key, value in state.items()})
    model.eval().to(memory_format=torch.channels_last)
    inputs = torch.from_numpy(np.array(test.inputs[:most]))
    labels = torch.from_numpy(np.array(test.labels[:most]))
    right = 0
    with torch.inference_mode():
        for some, names in _parts(inputs, labels, 256):
            guesses = model(normalise(some, torch.channels_last)).argmax(dim=1)
            right += int((guesses == names).sum())
    return 100.0 * right / len(labels)


def _parts(inputs: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(labels), size):
        yield inputs[start : start + size], labels[start : start + size]
