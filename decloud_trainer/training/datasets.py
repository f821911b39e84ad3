"""A dataset's name -> decoded samples on disk, made once and shared.

Data comes from the user's own folder, from the package (`digits`) or from torchvision's download
(`mnist`, `fashionmnist`; only `prepare` downloads). It is decoded once into uint8 arrays that are
mapped into memory by whoever needs them. Images are stored as one grey channel of 32x32 after the
resize: what follows in the network's preprocessing (three equal channels, to-tensor, normalise)
can be done on whole batches with the same result to the byte.

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
from urllib.error import URLError

import filelock
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decloud_trainer import files
from decloud_trainer.errors import DatasetUnavailable, DecloudError
from decloud_trainer.training import idx
from decloud_trainer.training.spec import DataInfo, DataSpec

SIDE = 32
# Part of the cache's key: change it whenever decoding changes.
TRANSFORM = "grey-32-bilinear-1"
# Named datasets and their class count. Others are known by what their files hold.
CLASSES = {"mnist": 10, "fashionmnist": 10, "digits": 10}
# torchvision's class for a name; it is also the name of its folder.
TORCHVISION = {"mnist": "MNIST", "fashionmnist": "FashionMNIST"}
PACKAGED = {"digits"}
LOCK_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds, told from file headers and labels. Absent splits count 0."""

    format: str
    train: int
    test: int
    classes: int
    side: int


@dataclass(frozen=True, slots=True)
class Samples:
    """One split: images uint8 (N, 32, 32) and labels int64 (N,), both mapped from disk."""

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
                hint=f"add {' or '.join(idx.SPLITS[which])}-images and -labels files to its folder",
            )
        return samples


def find_format(path: Path) -> Found:
    """Recognise the dataset that lies in the folder `path`.

    Raises:
        DatasetUnavailable: there is none, or its files are damaged or don't fit together.
    """
    splits = _splits_in(path)
    if not splits:
        raise DatasetUnavailable(
            f"Dataset not found: {path} holds no MNIST-family IDX files",
            hint="give the folder with train-images-idx3-ubyte and train-labels-idx1-ubyte"
            " (or .gz), or the one above MNIST/raw",
        )
    return _found(splits)


def find(spec: DataSpec) -> Found | None:
    """What lies on this machine of a dataset, not decoded; None when there is nothing.

    Raises:
        DatasetUnavailable: its files are damaged or don't fit together.
    """
    splits = _splits(spec)
    return _found(splits) if splits else None


def _found(splits: Mapping[str, idx.Split]) -> Found:
    counts, classes, side = {"train": 0, "test": 0}, 0, 0
    for split, pair in splits.items():
        samples, side = _checked_shape(pair)
        counts[split] = samples
        classes = max(classes, int(idx.read_labels(pair.labels).max()) + 1)
    return Found("idx", counts["train"], counts["test"], classes, side)


def prepare(spec: DataSpec) -> DataInfo:
    """Have the dataset decoded on this machine; downloads it when it is one that can be had.

    Raises:
        DatasetUnavailable: it isn't here and can't be had.
    """
    if spec.path is None and spec.name in TORCHVISION and not _splits(spec):
        _download(spec)
    return load(spec).info


def load(spec: DataSpec) -> Dataset:
    """Open the dataset from the cache, decoding it first if need be. Never uses the network.

    Raises:
        DatasetUnavailable: it isn't on this machine, is damaged, or has labels beyond its classes.
    """
    splits = _splits(spec)
    if not splits:
        raise _not_found(spec)
    fingerprint = _fingerprint(splits)
    folder = files.make_private_dir(spec.data_dir / "decoded")
    stem = f"{spec.name}-{fingerprint[:16]}-{TRANSFORM}"
    with _locked(folder / f"{stem}.lock", spec.name):
        dataset = _open(folder, stem, spec.name)
        if dataset is None:
            _decode(splits, folder, stem, spec.name, fingerprint)
            dataset = _open(folder, stem, spec.name)
    if dataset is None:
        raise DatasetUnavailable(f"the decoded {spec.name} in {folder} can't be read back")
    return dataset


# --- where the files are --------------------------------------------------------------------


def _splits(spec: DataSpec) -> dict[str, idx.Split]:
    if spec.path is not None:
        return _splits_in(spec.path)
    if spec.name in PACKAGED:
        return idx.find_splits(importlib.resources.files("decloud_trainer.data") / spec.name)
    if spec.name in TORCHVISION:
        return idx.find_splits(_downloads(spec) / TORCHVISION[spec.name] / "raw")
    return {}


def _splits_in(path: Path) -> dict[str, idx.Split]:
    folders = [path, path / "raw", *(path / name / "raw" for name in TORCHVISION.values())]
    for folder in folders:
        try:
            splits = idx.find_splits(folder)
        except OSError as error:
            raise DatasetUnavailable(f"can't read the folder {folder}: {error.strerror}") from error
        if splits:
            return splits
    return {}


def _downloads(spec: DataSpec) -> Path:
    return spec.data_dir / "downloads"


def _not_found(spec: DataSpec) -> DatasetUnavailable:
    hint = f"decloud-trainer config --add-path {spec.name}:/path/to/its/folder"
    if spec.path is not None:
        return DatasetUnavailable(
            f"Dataset not found: {spec.path} holds no IDX files of {spec.name}", hint=hint
        )
    if spec.name in TORCHVISION:
        return DatasetUnavailable(f"Dataset not found: {spec.name} was not downloaded", hint=hint)
    known = ", ".join(sorted(CLASSES))
    return DatasetUnavailable(
        f"Dataset not found: {spec.name}; without a path of your own only {known} can be had",
        hint=hint,
    )


def _download(spec: DataSpec) -> None:
    folder = files.make_private_dir(_downloads(spec))
    with _locked(folder / f"{spec.name}.lock", spec.name):
        if _splits(spec):
            return  # another process was faster
        try:
            # Late and guarded: a torchvision built for another torch fails on import.
            import torchvision
        except (ImportError, RuntimeError) as error:
            raise DatasetUnavailable(
                f"Dataset not found: {spec.name} needs torchvision for its download: {error}",
                hint="install the torchvision release that belongs to your torch",
            ) from error
        maker = getattr(torchvision.datasets, TORCHVISION[spec.name])
        try:
            for train in (True, False):
                maker(root=str(folder), train=train, download=True)
        except (RuntimeError, URLError, OSError) as error:
            raise DatasetUnavailable(
                f"Dataset not found: {spec.name} could not be downloaded: {error}",
                hint="check the connection, or use files of your own: "
                f"decloud-trainer config --add-path {spec.name}:/path/to/its/folder",
            ) from error


# --- decoding and the cache -----------------------------------------------------------------


def _fingerprint(splits: Mapping[str, idx.Split]) -> str:
    """Names the content: 64 hex digits over the digests of all files."""
    total = hashlib.sha256()
    for split in sorted(splits):
        for file in (splits[split].images, splits[split].labels):
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


def _checked_shape(pair: idx.Split) -> tuple[int, int]:
    """(samples, side) of a split whose two files fit together."""
    samples, side, _ = idx.shape_of(pair.images, 3)
    (labels,) = idx.shape_of(pair.labels, 1)
    if samples != labels:
        raise idx.bad(pair.labels, f"it has {labels} labels for {samples} images")
    return samples, side


def resize(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, side, side) -> (N, 32, 32), bilinear as PIL does it, like the scoring side."""
    if images.shape[1:] == (SIDE, SIDE):
        return images
    resized = np.empty((len(images), SIDE, SIDE), dtype=np.uint8)
    for number, image in enumerate(images):
        grey = Image.fromarray(image)
        resized[number] = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return resized


def _decode(
    splits: Mapping[str, idx.Split], folder: Path, stem: str, name: str, fingerprint: str
) -> None:
    """Write the arrays, then the description: it stands only beside complete arrays."""
    counts, classes = {"train": 0, "test": 0}, CLASSES.get(name, 0)
    for split, pair in splits.items():
        counts[split], _ = _checked_shape(pair)
        labels = idx.read_labels(pair.labels).astype(np.int64)
        highest = int(labels.max())
        if name in CLASSES and highest >= CLASSES[name]:
            raise idx.bad(pair.labels, f"it has the label {highest}, {name} has {classes} classes")
        classes = max(classes, highest + 1)
        _write(folder / f"{stem}-{split}-images.npy", resize(idx.read_images(pair.images)))
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
    if images.shape != (count, SIDE, SIDE) or images.dtype != np.uint8:
        raise ValueError(f"{prefix}-images.npy is not what its description says")
    if labels.shape != (count,) or labels.dtype != np.int64:
        raise ValueError(f"{prefix}-labels.npy is not what its description says")
    return Samples(images, labels)
