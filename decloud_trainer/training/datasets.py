"""A dataset's name -> decoded samples on disk, made once and shared.

Data comes from the user's own folder, from the package (`digits`) or from a download (only
`prepare` downloads). It is decoded once into uint8 arrays that are mapped into memory by whoever
needs them. Images are stored at 32x32 after the resize, one channel for grey and three for colour:
what follows in the network's preprocessing (three channels, to-tensor, normalise) can be done on
whole batches with the same result to the byte.

This module needs no torch, except for a download.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import filelock
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decloud_trainer import files
from decloud_trainer.errors import DatasetUnavailable, DecloudError
from decloud_trainer.training import formats
from decloud_trainer.training.download import download
from decloud_trainer.training.formats import TORCHVISION
from decloud_trainer.training.spec import DataInfo, DataSpec
from decloud_trainer.training.split import Split, unusable

SIDE = 32
# Part of the cache's key: change it whenever decoding changes.
TRANSFORM = "32-bilinear-2"
# Named datasets and their class count. Others are known by what their files hold.
CLASSES = {
    "mnist": 10,
    "fashionmnist": 10,
    "kmnist": 10,
    "emnist": 47,  # its split "balanced"
    "cifar10": 10,
    "cifar100": 100,
    "svhn": 10,
    "digits": 10,
}
PACKAGED = {"digits"}
LOCK_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds, told from file headers and labels. Absent splits count 0; `side` is 0
    for images of several sizes; `channels` is 1 for grey, 3 for colour."""

    format: str
    train: int
    test: int
    classes: int
    side: int
    channels: int

    @property
    def pixels(self) -> str:
        """The images' size and kind, for people."""
        size = f"{self.side}x{self.side}" if self.side else "any size"
        return f"{size} in colour" if self.channels == 3 else size


@dataclass(frozen=True, slots=True)
class Samples:
    """One split: images uint8, (N, 32, 32) grey or (N, 32, 32, 3) in colour, and labels int64
    (N,), both mapped from disk."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A decoded dataset. A split that isn't there is None."""

    name: str
    info: DataInfo
    train: Samples | None
    test: Samples | None

    def split(self, which: str) -> Samples:
        """The split ``train`` or ``test``.

        Raises:
            DatasetUnavailable: the data has no such split.
        """
        samples = self.train if which == "train" else self.test
        if samples is None:
            raise DatasetUnavailable(
                f"Dataset not found: {self.name} has no {which} split here",
                hint=f"add its {which} files to its folder; as IDX files they are called "
                f"{'t10k' if which == 'test' else which}-images-... and -labels-...",
            )
        return samples


def find_format(path: Path) -> Found:
    """Recognise the dataset that lies in the folder `path`.

    Raises:
        DatasetUnavailable: there is none, or its files are damaged or don't fit together.
    """
    kind, splits = formats.splits_in(path)
    if not splits:
        raise DatasetUnavailable(
            f"Dataset not found: {path} holds no {formats.KNOWN}",
            hint="give the folder with train-images-idx3-ubyte and train-labels-idx1-ubyte (or"
            " .gz), cifar-10-batches-py, train_32x32.mat, train/CLASS/*.png, or x_train.npy and"
            " y_train.npy",
        )
    return _found(kind, splits)


def find(spec: DataSpec) -> Found | None:
    """What lies on this machine of a dataset, not decoded; None when there is nothing.

    Raises:
        DatasetUnavailable: its files are damaged or don't fit together.
    """
    kind, splits = _splits(spec)
    return _found(kind, splits) if splits else None


def _found(kind: str, splits: Mapping[str, Split]) -> Found:
    summaries = {split: each.summary() for split, each in splits.items()}
    counts = {split: summary.samples for split, summary in summaries.items()}
    some = next(iter(summaries.values()))
    return Found(
        format=kind,
        train=counts.get("train", 0),
        test=counts.get("test", 0),
        classes=max(summary.classes for summary in summaries.values()),
        side=some.side,
        channels=some.channels,
    )


def prepare(spec: DataSpec) -> DataInfo:
    """Have the dataset decoded on this machine; downloads it when it is one that can be had.

    Raises:
        DatasetUnavailable: it isn't here and can't be had.
    """
    if spec.path is None and spec.name in TORCHVISION and not _splits(spec)[1]:
        with _locked(files.make_private_dir(_downloads(spec)) / f"{spec.name}.lock", spec.name):
            if not _splits(spec)[1]:  # no other process was faster
                download(spec.name, _downloads(spec) / TORCHVISION[spec.name])
    return load(spec).info


def load(spec: DataSpec) -> Dataset:
    """Open the dataset from the cache, decoding it first if need be. Never uses the network.

    Raises:
        DatasetUnavailable: it isn't on this machine, is damaged, or has labels beyond its classes.
    """
    kind, splits = _splits(spec)
    if not splits:
        raise _not_found(spec)
    fingerprint = _fingerprint(splits)
    folder = files.make_private_dir(spec.data_dir / "decoded")
    stem = f"{spec.name}-{fingerprint[:16]}-{TRANSFORM}"
    with _locked(folder / f"{stem}.lock", spec.name):
        dataset = _open(folder, stem, spec.name)
        if dataset is None:
            _decode(kind, splits, folder, stem, spec.name, fingerprint)
            dataset = _open(folder, stem, spec.name)
    if dataset is None:
        raise DatasetUnavailable(f"the decoded {spec.name} in {folder} can't be read back")
    return dataset


# --- where the files are --------------------------------------------------------------------


def _splits(spec: DataSpec) -> tuple[str, Mapping[str, Split]]:
    """(format, splits)"""
    if spec.path is not None:
        return formats.splits_in(spec.path, spec.name)
    if spec.name in PACKAGED:
        shipped = importlib.resources.files("decloud_trainer.data")
        return formats.idx_splits(shipped / spec.name)
    if spec.name in TORCHVISION:
        return formats.splits_in(_downloads(spec) / TORCHVISION[spec.name], spec.name)
    return "", {}


def _downloads(spec: DataSpec) -> Path:
    return spec.data_dir / "downloads"


def _not_found(spec: DataSpec) -> DatasetUnavailable:
    hint = f"decloud-trainer config --add-path {spec.name}:/path/to/its/folder"
    if spec.path is not None:
        return DatasetUnavailable(
            f"Dataset not found: {spec.path} holds no {formats.KNOWN} of {spec.name}", hint=hint
        )
    if spec.name in TORCHVISION:
        return DatasetUnavailable(f"Dataset not found: {spec.name} was not downloaded", hint=hint)
    known = ", ".join(sorted(CLASSES))
    return DatasetUnavailable(
        f"Dataset not found: {spec.name}; without a path of your own only {known} can be had",
        hint=hint,
    )


# --- decoding and the cache -----------------------------------------------------------------


def _fingerprint(splits: Mapping[str, Split]) -> str:
    """Names the content: 64 hex digits over the digests of all files."""
    total = hashlib.sha256()
    for split in sorted(splits):
        total.update(splits[split].identity.encode())
        for file in splits[split].files:
            total.update(f"{split} {_digest(file)}\n".encode())
    return total.hexdigest()


def _digest(file: Traversable) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    except OSError as error:
        raise DatasetUnavailable(f"can't read {file}: {error.strerror}") from error


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    """One process at a time makes a dataset; the others wait for it."""
    lock = filelock.FileLock(path, mode=0o600)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except filelock.Timeout as error:
        raise DatasetUnavailable(
            f"{name} has been prepared by another process for {LOCK_TIMEOUT_S} s ({path})",
            hint="see whether that process still makes progress, then try again",
        ) from error
    try:
        yield
    finally:
        lock.release()


def resize(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, side, side) or (N, side, side, 3) -> 32x32, bilinear as PIL does it, like the scoring
    side."""
    if images.shape[1:3] == (SIDE, SIDE):
        return images
    resized = np.empty((len(images), SIDE, SIDE, *images.shape[3:]), dtype=np.uint8)
    for number, image in enumerate(images):
        picture = Image.fromarray(image)
        resized[number] = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return resized


def _decode(
    kind: str,
    splits: Mapping[str, Split],
    folder: Path,
    stem: str,
    name: str,
    fingerprint: str,
) -> None:
    """Write the arrays, then the description: it stands only beside complete arrays."""
    counts, classes = {"train": 0, "test": 0}, CLASSES.get(name, 0)
    for split, source in splits.items():
        images, labels = source.read()
        counts[split], highest = len(labels), int(labels.max())
        if name in CLASSES and highest >= CLASSES[name]:
            raise unusable(
                source.files[-1],
                formats.KINDS[kind],
                f"it has the label {highest}, {name} has {CLASSES[name]} classes",
            )
        classes = max(classes, highest + 1)
        _write(folder / f"{stem}-{split}-images.npy", resize(images))
        _write(folder / f"{stem}-{split}-labels.npy", labels)
    info = DataInfo(counts["train"], counts["test"], classes, fingerprint)
    files.write_atomic(folder / f"{stem}.json", json.dumps(info.to_json()).encode())


def _write(path: Path, array: NDArray[np.generic]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        files.publish(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DecloudError(
            f"can't write {path}: {error.strerror}", hint="free some space, or set data_dir"
        ) from error


def _open(folder: Path, stem: str, name: str) -> Dataset | None:
    """The dataset in the cache; None when it isn't there or is damaged (then it's made anew)."""
    try:
        info = DataInfo.from_json(json.loads((folder / f"{stem}.json").read_bytes()))
        splits = {
            split: _map(folder / f"{stem}-{split}", count)
            for split, count in (("train", info.train), ("test", info.test))
            if count
        }
    except (OSError, ValueError, DecloudError):
        return None
    return Dataset(name, info, splits.get("train"), splits.get("test"))


def _map(prefix: Path, count: int) -> Samples:
    # Copy-on-write mapping: pages are shared, nothing can be written back, and torch may take it.
    images = np.load(f"{prefix}-images.npy", mmap_mode="c", allow_pickle=False)
    labels = np.load(f"{prefix}-labels.npy", mmap_mode="c", allow_pickle=False)
    shapes = ((count, SIDE, SIDE), (count, SIDE, SIDE, 3))
    if images.shape not in shapes or images.dtype != np.uint8:
        raise ValueError(f"{prefix}-images.npy is not what its description says")
    if labels.shape != (count,) or labels.dtype != np.int64:
        raise ValueError(f"{prefix}-labels.npy is not what its description says")
    return Samples(images, labels)
