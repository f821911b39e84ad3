"""Which dataset lies in a folder, told from the names in it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path

from decloud_trainer.training.data import arrays, cifar, folders, idx, labelled, svhn
from decloud_trainer.training.data.published import TORCHVISION
from decloud_trainer.training.data.split import Split, unreadable

KNOWN = (
    "MNIST-family IDX files, CIFAR batches or archives, SVHN .mat files, "
    f"train/CLASS/ folders of images, .npz/.npy arrays, {labelled.KNOWN}"
)


def splits_in(path: Path, name: str = "") -> tuple[str, Mapping[str, Split]]:
    """(format, splits) of the folder `path`; no splits where there is nothing known.

    Where there are several datasets, that of the dataset `name` comes first.

    Raises:
        DatasetUnavailable: it can't be read, or its files are damaged.
    """
    try:
        places = [path] if path.is_file() else _places(path, name)
        # Images first, wherever they are: beside them there may be tables that mean nothing.
        for look in (_images_in, _labelled_in):
            for place in places:
                found = look(place, name)
                if found[1]:
                    return found
    except OSError as error:
        raise unreadable(path, error) from error
    return "", {}


def splits_in_package(folder: Traversable) -> tuple[str, Mapping[str, Split]]:
    """The same for what ships with the package: a folder or a table, maybe in an archive."""
    if folder.name.endswith(".csv"):
        return labelled.packaged(folder)
    return "idx", idx.find_splits(folder)


def _places(path: Path, name: str) -> list[Path]:
    """Where torchvision puts a dataset: its own folder first, the others' last."""
    own = TORCHVISION.get(name)
    others = [each for each in TORCHVISION.values() if each != own]
    named = [path / each / "raw" for each in ([own] if own else [])]
    named += [path / each for each in ([own] if own else [])]
    rest = [path / each / deeper for each in others for deeper in ("raw", "")]
    return [*named, path, path / "raw", path / "gzip", *rest]


def _labelled_in(place: Path, _: str) -> tuple[str, Mapping[str, Split]]:
    return labelled.find_splits(place)


def _images_in(place: Path, name: str) -> tuple[str, Mapping[str, Split]]:
    if place.is_dir():
        if found := idx.find_splits(place):
            return "idx", found
        if found_mat := svhn.find_splits(place):
            return "mat", found_mat
    if batches := cifar.find_splits(place, name):
        return "cifar", batches
    if pairs := arrays.find_splits(place):
        return "numpy", pairs
    if place.is_dir() and (images := folders.find_splits(place)):
        return "folders", images
    return "", {}
