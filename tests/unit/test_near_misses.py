"""A folder in which nothing was recognised: what is there, and what it lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datafiles
import numpy as np
import pytest
from datafiles import colour
from PIL import Image

from decloud_trainer.cli.datasets import datasets as command
from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data.datasets import find_format, load
from decloud_trainer.training.spec import DataSpec


def touch(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"")

    return make


def pictures(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(colour(1)[0][0]).save(folder / name)

    return make


def odd_arrays(folder: Path) -> None:
    np.savez(folder / "mine.npz", inputs=np.zeros(3), answers=np.zeros(3))


NEAR = {
    "nothing": (lambda _: None, "it is empty"),
    "lone images": (
        touch("train-images-idx3-ubyte.gz"),
        "train-images-idx3-ubyte.gz lies alone: train-labels-idx1-ubyte is missing",
    ),
    "lone labels": (touch("t10k-labels-idx1-ubyte"), "t10k-images-idx3-ubyte is missing"),
    "another EMNIST": (
        touch("emnist-letters-train-images-idx3-ubyte.gz"),
        "it has EMNIST's letters, the network's is balanced",
    ),
    "SVHN extra": (touch("extra_32x32.mat"), "train_32x32.mat is missing"),
    "SVHN full": (touch("digitStruct.mat"), "cropped digits .train_32x32.mat. are wanted"),
    "packed": (touch("archive.zip"), "archive.zip must be unpacked first"),
    "lone array": (touch("x_train.npy"), "x_train.npy has no labels beside it, such as y_train"),
    "odd arrays": (odd_arrays, "mine.npz has the arrays inputs, answers; wanted are x_train"),
    "torch": (touch("processed.pt"), "files of PyTorch and pickles are not read"),
    "loose": (pictures("1.png", "2.png"), "2 images lie in it without a class"),
    "no split": (pictures("cat/1.png", "dog/1.png"), "cat, dog are folders of images: move them"),
    "no class": (pictures("train/1.png"), "images in train/ have no class: put them into train/C"),
    "others": (touch("a.doc", "b.doc", "c.doc", "d.doc"), "it holds a.doc, b.doc, c.doc and 1"),
}


@pytest.mark.parametrize("kind", NEAR)
def test_near_misses_are_explained(tmp_path: Path, kind: str) -> None:
    """The message names what lies there and what is missing."""
    make, told = NEAR[kind]
    folder = tmp_path / "mine"
    folder.mkdir()
    make(folder)
    with pytest.raises(DatasetUnavailable, match=rf"Dataset not found: .*{told}"):
        find_format(folder)
    with pytest.raises(DatasetUnavailable, match=rf"holds nothing of mnist .*{told}"):
        load(DataSpec("mnist", folder, tmp_path / "data"))


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Neither is a file of no known kind taken for a folder."""
    with pytest.raises(DatasetUnavailable, match="there is no such folder"):
        find_format(tmp_path / "absent")
    (tmp_path / "mine.txt").write_text("hello")
    with pytest.raises(DatasetUnavailable, match=r"mine\.txt is a single file of no known kind"):
        find_format(tmp_path / "mine.txt")


def test_check_says_what_is_missing_beside_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training arrays are whole, the test's labels aren't there: both are said."""
    images, labels = colour(5)
    for name, array in (("x_train", images), ("y_train", labels), ("x_test", images)):
        (tmp_path / f"{name}.npy").write_bytes(datafiles.npy(array))
    command.main(["check", str(tmp_path)], standalone_mode=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "numpy, images of 32x32 in colour" in shown
    assert "Training: 5 samples Test: none: scores can't be previewed Classes: 5" in shown
    assert "Note: x_test.npy has no labels beside it, such as y_test.npy" in shown
