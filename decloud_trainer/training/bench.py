"""How fast the training loop is on this machine, beside a plain one that most tutorials have.

The two take turns epoch by epoch on the same samples with the same threads, and medians are
compared: single figures say as much about the machine's mood as about the program.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision import transforms

from decloud_trainer.training.choices import Choices
from decloud_trainer.training.classifier_task import ClassifierTask
from decloud_trainer.training.datasets import load
from decloud_trainer.training.device import Device, choose_device
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.loop import train
from decloud_trainer.training.networks import Architecture, SimpleCNN
from decloud_trainer.training.samples import Samples
from decloud_trainer.training.spec import DataSpec
from decloud_trainer.training.state import Plan, Training

BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Speeds:
    """Samples per second, medians over the turns."""

    ours: float
    plain: float
    device: str
    threads: int
    turns: int

    @property
    def ratio(self) -> float:
        return self.ours / self.plain


def compare(data_dir: Path, *, device: str = "auto", threads: int = 0, turns: int = 5) -> Speeds:
    """Train SimpleCNN on the shipped digits with both loops, one epoch each per turn.

    The first turn is not counted: it warms caches and torch up. The plain loop has the same
    device.
    """
    samples = load(DataSpec("digits", None, data_dir)).split("train")
    chosen = choose_device(device, threads)
    loops = {"plain": _plain_loop(samples, chosen), "ours": _our_loop(samples, chosen)}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(turns + 1):
        for name, one_epoch in loops.items():
            began = time.perf_counter()
            one_epoch()
            if turn:
                rates[name].append(len(samples) / (time.perf_counter() - began))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return Speeds(middle["ours"], middle["plain"], chosen.name, chosen.threads, turns)


def _our_loop(samples: Samples, device: Device) -> Callable[[], None]:
    torch.manual_seed(0)
    task = ClassifierTask(SimpleCNN(10), samples, BATCH_SIZE, 0, device)

    def one_epoch() -> None:
        plan = Plan(learning_rate=0.001, seed=0)
        training = Training(task, plan, device, Choices(total_steps=task.batches_per_epoch))
        for _ in train(training, task.batches_per_epoch, Hooks(time.monotonic)):
            pass

    return one_epoch


def _plain_loop(samples: Samples, device: Device) -> Callable[[], None]:
    """Per-sample transforms of images, a DataLoader, Adam, the loss read back at every batch."""
    prepare = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.Grayscale(3),
            transforms.Resize((32, 32)),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )

    class Images(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return len(samples)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return prepare(np.array(samples.inputs[index])), int(samples.labels[index])

    torch.manual_seed(0)
    model = Architecture("simple_cnn", 10).with_weights(SimpleCNN(10).state_dict())
    model.to(device.torch)
    loader = torch.utils.data.DataLoader(Images(), batch_size=BATCH_SIZE, shuffle=True)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.001)
    criterion = nn.CrossEntropyLoss()

    def one_epoch() -> None:
        model.train()
        for images, labels in loader:
            optimiser.zero_grad()
            images, labels = images.to(device.torch), labels.to(device.torch)
            loss = criterion(model(images), labels)
            loss.backward()
            optimiser.step()
            loss.item()

    return one_epoch
