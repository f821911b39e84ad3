"""The training loop against a plain one."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision import transforms

from decloud_trainer.training.datasets import Samples, load
from decloud_trainer.training.device import Device, choose_device
from decloud_trainer.training.image_task import ImageTask
from decloud_trainer.training.loop import Plan, train
from decloud_trainer.training.networks import Architecture, SimpleCNN
from decloud_trainer.training.spec import DataSpec

TURNS = 5


def measure() -> None:
    """Our loop against the loop that most tutorials have, on the same samples and threads."""
    with tempfile.TemporaryDirectory() as folder:
        samples = load(DataSpec("digits", None, Path(folder))).split("train")
        device = choose_device("cpu", 0)
        ours, plain = _our_loop(samples, device), _plain_loop(samples)
        rates: dict[str, list[float]] = {"plain": [], "ours": []}
        for turn in range(TURNS + 1):
            for name, one_epoch in (("plain", plain), ("ours", ours)):
                began = time.perf_counter()
                one_epoch()
                if turn:
                    rates[name].append(len(samples) / (time.perf_counter() - began))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    print(f"training, SimpleCNN, batch 32, {device.threads} threads (samples/s, medians)")
    print(f"  plain DataLoader loop (reference) {middle['plain']:8,.0f}")
    print(f"  our loop                          {middle['ours']:8,.0f}", end="")
    print(f"  x{middle['ours'] / middle['plain']:.2f}")


def _our_loop(samples: Samples, device: Device) -> Callable[[], None]:
    torch.manual_seed(0)
    task = ImageTask(SimpleCNN(10), samples, 32, 0, device)

    def one_epoch() -> None:
        plan = Plan(epochs=1, max_epochs=1, learning_rate=0.001, seed=0)
        for _ in train(
            task,
            plan,
            device,
            clock=time.monotonic,
            progress=lambda _: None,
            should_stop=lambda: False,
        ):
            pass

    return one_epoch


def _plain_loop(samples: Samples) -> Callable[[], None]:
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

    class Images(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(samples)

        def __getitem__(self, index: int):  # type: ignore[no-untyped-def]
            return prepare(np.array(samples.images[index])), int(samples.labels[index])

    torch.manual_seed(0)
    model = Architecture("simple_cnn", 10).with_weights(SimpleCNN(10).state_dict())
    loader = torch.utils.data.DataLoader(Images(), batch_size=32, shuffle=True)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.001)
    criterion = nn.CrossEntropyLoss()

    def one_epoch() -> None:
        model.train()
        for images, labels in loader:
            optimiser.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimiser.step()
            loss.item()

    return one_epoch
