"""A dataset's name -> decoded samples on disk, made once and shared.

Data comes from the user's own folder, from the package or from a download (only `prepare`
downloads). It is decoded once into arrays that are mapped into memory by whoever needs them.

This module needs no torch, except for a download.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path

import filelock

from decloud_trainer import files
from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training import decoded, formats
from decloud_trainer.training.download import download
from decloud_trainer.training.published import CLASSES, DOWNLOADED, PACKAGED
from decloud_trainer.training.results import DataInfo
from decloud_trainer.training.samples import Dataset, Found
from decloud_trainer.training.spec import DataSpec
from decloud_trainer.training.split import Split

LOCK_TIMEOUT_S = 600


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
        modality=some.modality,
        side=some.side,
        channels=some.channels,
        columns=some.columns,
        labels=some.labels,
    )


def prepare(spec: DataSpec) -> DataInfo:
    """Have the dataset decoded on this machine; downloads it when it is one that can be had.

    Raises:
        DatasetUnavailable: it isn't here and can't be had.
    """
    if spec.path is None and spec.name in DOWNLOADED and not _splits(spec)[1]:
        with _locked(files.make_private_dir(_downloads(spec)) / f"{spec.name}.lock", spec.name):
            if not _splits(spec)[1]:  # no other process was faster
                download(spec.name, _downloads(spec) / DOWNLOADED[spec.name])
    return load(spec).info


def load(spec: DataSpec) -> Dataset:
    """Open the dataset from the cache, decoding it first if need be. Never uses the network.

    Raises:
        DatasetUnavailable: it isn't on this machine, is damaged, or has labels beyond its classes.
    """
    _, splits = _splits(spec)
    if not splits:
        raise _not_found(spec)
    fingerprint = _fingerprint(splits)
    folder = files.make_private_dir(spec.data_dir / "decoded")
    transform = next(iter(splits.values())).transform
    stem = f"{spec.name}-{fingerprint[:16]}-{transform}"
    with _locked(folder / f"{stem}.lock", spec.name):
        dataset = decoded.read(folder, stem, spec.name)
        if dataset is None:
            decoded.write(splits, folder, stem, spec.name, fingerprint)
            dataset = decoded.read(folder, stem, spec.name)
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
        return formats.splits_in_package(shipped / spec.name)
    if spec.name in DOWNLOADED:
        return formats.splits_in(_downloads(spec) / DOWNLOADED[spec.name], spec.name)
    return "", {}


def _downloads(spec: DataSpec) -> Path:
    return spec.data_dir / "downloads"


def _not_found(spec: DataSpec) -> DatasetUnavailable:
    hint = f"decloud-trainer config --add-path {spec.name}:/path/to/its/folder"
    if spec.path is not None:
        return DatasetUnavailable(
            f"Dataset not found: {spec.path} holds no {formats.KNOWN} of {spec.name}", hint=hint
        )
    if spec.name in DOWNLOADED:
        return DatasetUnavailable(f"Dataset not found: {spec.name} was not downloaded", hint=hint)
    known = ", ".join(sorted(CLASSES))
    return DatasetUnavailable(
        f"Dataset not found: {spec.name}; without a path of your own only {known} can be had",
        hint=hint,
    )


# --- the content's name -----------------------------------------------------------------


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
