"""What is trained and previewed on equals what the validator scores on, to the byte.

The reference is torchvision itself: its dataset classes on files in the published form, with the
transforms that the published validator uses.
"""

from __future__ import annotations

import gzip
import importlib.resources
import pickle
from hashlib import md5
from pathlib import Path
from typing import Any

import datafiles
import numpy as np
import pytest
import torch
from PIL import Image
from referee import GREY
from torchvision import datasets as published
from torchvision import transforms

from decloud_trainer.training.classifier_task import normalise
from decloud_trainer.training.data.datasets import load
from decloud_trainer.training.scoring import scoring_batches
from decloud_trainer.training.spec import DataSpec

COLOUR = transforms.Compose(
    [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
)


def idx_folder(folder: Path, side: int = 28) -> None:
    """The MNIST family's four files, with the extremes and every value between them."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)
    for prefix, count in (("train", 70), ("t10k", 66)):
        images = random.integers(0, 256, (count, side, side), dtype=np.uint8)
        images[0], images[1] = 0, 255
        images[2].flat[:256] = np.arange(256)
        labels = (np.arange(count) * 7 % 10).astype(np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(datafiles.idx_images(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(datafiles.idx_labels(labels))


def known_sums(maker: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision reads CIFAR only with the published checksums: here those of the small files."""

    def digest(name: str) -> str:
        return md5((place / name).read_bytes()).hexdigest()

    for which in ("train_list", "test_list"):
        monkeypatch.setattr(
            maker, which, [[name, digest(name)] for name, _ in getattr(maker, which)]
        )
    names = pickle.dumps({maker.meta["key"]: [str(number) for number in range(100)]})
    (place / maker.meta["filename"]).write_bytes(names)
    monkeypatch.setattr(maker, "meta", {**maker.meta, "md5": digest(maker.meta["filename"])})


@pytest.mark.parametrize("name", ["Cifar10", "Cifar100", "Mnist", "FashionMnist"])
def test_inputs_equal_the_validators(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same order, same labels, same floats, both splits, for all that the validator scores."""
    maker: Any = {
        "Cifar10": published.CIFAR10,
        "Cifar100": published.CIFAR100,
        "Mnist": published.MNIST,
        "FashionMnist": published.FashionMNIST,
    }[name]
    if name.startswith("Cifar"):
        write = datafiles.write_cifar10 if name == "Cifar10" else datafiles.write_cifar100
        known_sums(maker, write(tmp_path), monkeypatch)
        steps = COLOUR
    else:
        idx_folder(tmp_path / maker.__name__ / "raw")
        steps = GREY
    ours = load(DataSpec(name, tmp_path, tmp_path / "data"))
    for which, is_train in (("train", True), ("test", False)):
        theirs = maker(str(tmp_path), train=is_train, transform=steps)
        inputs, labels = zip(*scoring_batches(ours.split(which)), strict=True)
        assert torch.equal(torch.cat(inputs), torch.stack([image for image, _ in theirs]))
        assert torch.cat(labels).tolist() == [int(label) for _, label in theirs]
        # The layout that training uses has the same numbers.
        images = torch.from_numpy(ours.split(which).inputs)
        fast = normalise(images, torch.channels_last)
        assert fast.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(fast, torch.cat(inputs))


def test_digits_are_treated_like_mnist(tmp_path: Path) -> None:
    """The local network's dataset goes through the same transforms, from 8x8."""
    folder = importlib.resources.files("decloud_trainer.data") / "digits"
    ours = load(DataSpec("digits", None, tmp_path / "data"))
    for which in ("train", "test"):
        raw = gzip.decompress((folder / f"{which}-images-idx3-ubyte.gz").read_bytes())
        images = np.frombuffer(raw[16:], np.uint8).reshape(-1, 8, 8)
        theirs = torch.stack([GREY(Image.fromarray(image)) for image in images])
        inputs, _ = zip(*scoring_batches(ours.split(which)), strict=True)
        assert torch.equal(torch.cat(inputs), theirs)
