"""A dataset's name -> decoded samples on disk, made once and shared.

Data comes from the user's own folder, from the package or from a download (only `prepare`
downloads). It is decoded once into arrays that are mapped into memory by whoever needs them.

This module needs no torch, except for a download.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import filelock

from decloud_trainer import files
from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data import decoded, formats, remembered
from decloud_trainer.training.data.download import PART, Meter, bytes_in, download
from decloud_trainer.training.data.nearly import reasons
from decloud_trainer.training.data.published import CLASSES, DOWNLOADED, PACKAGED
from decloud_trainer.training.data.samples import Dataset, Found
from decloud_trainer.training.data.split import Split, unreadable
from decloud_trainer.training.data.texts import TextSplit
from decloud_trainer.training.data.transfer import PATIENCE, Patience
from decloud_trainer.training.results import DataInfo, Progress
from decloud_trainer.training.spec import DataSpec

log = logging.getLogger(__name__)

DOWNLOADS, DECODED = "downloads", "decoded"
# How long another process' download may stand still, and how often it's looked at.
LOCK_TIMEOUT_S = 600
WAIT_STEP_S = 0.5


def find_format(path: Path) -> Found:
    """Recognise the dataset that lies in the folder `path`.

    Raises:
        DatasetUnavailable: there is none, or its files are damaged or don't fit together.
    """
    kind, splits = formats.splits_in(path)
    if not splits:
        raise DatasetUnavailable(
            f"Dataset not found: {path} holds no {formats.KNOWN}: {'; '.join(reasons(path))}",
            hint="give the folder with train-images-idx3-ubyte and train-labels-idx1-ubyte (or"
            " .gz), cifar-10-batches-py, train_32x32.mat, train/CLASS/*.png, x_train.npy and"
            " y_train.npy, or train.csv with a column called label",
        )
    return _found(kind, splits)


def find(spec: DataSpec) -> Found | None:
    """What lies on this machine of a dataset, not decoded; None when there is nothing.

    Raises:
        DatasetUnavailable: its files are damaged or don't fit together.
    """
    kind, splits = _splits(spec)
    if not splits:
        return None
    note = spec.data_dir / "found" / f"{spec.name}.json"
    return remembered.found(note, kind, splits, lambda: _found(kind, splits))


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


def prepare(
    spec: DataSpec,
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    cache_bytes: int = 0,
    patience: Patience = PATIENCE,
) -> DataInfo:
    """Have the dataset decoded on this machine; downloads it when it is one that can be had.

    Args:
        progress: told of the download, about twice a second, and of the stages.
        cache_bytes: what all decoded data may take; the longest unused goes first. 0 = no limit.
        patience: with the network.

    Raises:
        DatasetUnavailable: it isn't here and can't be had.
    """
    if spec.path is None and spec.name in DOWNLOADED and not _splits(spec)[1]:
        folder = _downloads(spec) / DOWNLOADED[spec.name]
        meter = Meter(progress)
        with _alone(files.make_private_dir(_downloads(spec)), spec.name, folder, meter):
            if not _splits(spec)[1]:  # no other process was faster
                download(spec.name, folder, meter, patience)
    progress(Progress("data"))
    dataset = load(spec)
    if cache_bytes:
        # What was just prepared is mapped, so it stays.
        for entry in decoded.evict(spec.data_dir / DECODED, cache_bytes):
            log.info("removed %s from the cache: %.0f MB", entry.stem, entry.bytes / 1e6)
    return dataset.info


def load(spec: DataSpec, tokenizer: Path | None = None) -> Dataset:
    """Open the dataset from the cache, decoding it first if need be. Never uses the network.

    Args:
        tokenizer: the folder of a transformer's tokenizer, for texts; None = our own words.

    Raises:
        DatasetUnavailable: it isn't on this machine, is damaged, or has labels beyond its classes.
    """
    _, splits = _splits(spec)
    if not splits:
        raise _not_found(spec)
    if tokenizer is not None:
        splits = {
            which: split.tokenised(tokenizer) if isinstance(split, TextSplit) else split
            for which, split in splits.items()
        }
    folder = files.make_private_dir(spec.data_dir / DECODED)
    return decoded.load(splits, folder, spec.name, _fingerprint(splits))


def load_test(spec: DataSpec, tokenizer: Path | None = None) -> Dataset | None:
    """A dataset that has its test split, to preview a score on; None where that isn't on this
    machine: then the score can't be known. Never downloads.

    Raises:
        DatasetUnavailable: it's here, but damaged.
    """
    if not _splits(spec)[1]:
        log.warning("%s isn't here: no score on it can be previewed", spec.name)
        return None
    dataset = load(spec, tokenizer)
    if dataset.test is None:
        log.warning("%s has no test split here: no score on it can be previewed", spec.name)
        return None
    return dataset


@dataclass(frozen=True, slots=True)
class Kept:
    """What our own folder holds of a dataset, in bytes: its download, whole or begun, and what was
    decoded. The user's folders don't count."""

    downloaded: int
    decoded: int


def kept(data_dir: Path) -> dict[str, Kept]:
    """Of every dataset that takes space, by name."""
    downloads = {
        name: bytes_in(data_dir / DOWNLOADS / folder) for name, folder in DOWNLOADED.items()
    }
    arrays: dict[str, int] = {}
    for entry in decoded.entries(data_dir / DECODED):
        arrays[entry.name] = arrays.get(entry.name, 0) + entry.bytes
    found = {
        name: Kept(downloads.get(name, 0), arrays.get(name, 0))
        for name in sorted({*downloads, *arrays})
    }
    return {name: each for name, each in found.items() if each.downloaded or each.decoded}


def remove(data_dir: Path, name: str) -> Kept:
    """Free what `kept` counts of a dataset; says how much that was.

    Raises:
        DatasetUnavailable: it's being downloaded or used; what isn't used has been removed.
    """
    decoded_bytes, used = 0, False
    for entry in decoded.entries(data_dir / DECODED):
        if entry.name == name:
            removed = decoded.remove(data_dir / DECODED, entry)
            decoded_bytes += entry.bytes if removed else 0
            used = used or not removed
    if used:
        raise DatasetUnavailable(
            f"{name} is in use by a training", hint="try again when it has ended"
        )
    folder = data_dir / DOWNLOADS / DOWNLOADED.get(name, "")
    if name not in DOWNLOADED or not folder.is_dir():
        return Kept(0, decoded_bytes)
    lock = filelock.FileLock(data_dir / DOWNLOADS / f"{name}.lock", mode=0o600)
    try:
        with lock.acquire(timeout=0):
            downloaded = bytes_in(folder)
            shutil.rmtree(folder)
    except filelock.Timeout as error:
        raise DatasetUnavailable(
            f"{name} is being downloaded", hint="stop the daemon, or wait for it"
        ) from error
    except OSError as error:
        raise DatasetUnavailable(
            f"can't remove {folder}: {error.strerror}", hint="see that this user may write there"
        ) from error
    return Kept(downloaded, decoded_bytes)


# --- where the files are --------------------------------------------------------------------


def _splits(spec: DataSpec) -> tuple[str, Mapping[str, Split]]:
    """(format, splits)"""
    if spec.path is not None:
        return formats.splits_in(spec.path, spec.name)
    if spec.name in PACKAGED:
        shipped = importlib.resources.files("decloud_trainer.data")
        return formats.splits_in_package(shipped.joinpath(PACKAGED[spec.name]))
    if spec.name in DOWNLOADED:
        return formats.splits_in(_downloads(spec) / DOWNLOADED[spec.name], spec.name)
    return "", {}


def _downloads(spec: DataSpec) -> Path:
    return spec.data_dir / DOWNLOADS


def _not_found(spec: DataSpec) -> DatasetUnavailable:
    hint = f"decloud-trainer config --add-path {spec.name}:/path/to/its/folder"
    if spec.path is not None:
        return DatasetUnavailable(
            f"Dataset not found: {spec.path} holds nothing of {spec.name} that can be read: "
            f"{'; '.join(reasons(spec.path))}",
            hint=hint,
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
        raise unreadable(file, error) from error


@contextlib.contextmanager
def _alone(downloads: Path, name: str, folder: Path, meter: Meter) -> Iterator[None]:
    """One process at a time downloads a dataset; the others wait while it gets on."""
    lock = filelock.FileLock(downloads / f"{name}.lock", mode=0o600)
    seen, since = -1, time.monotonic()
    while True:
        try:
            lock.acquire(timeout=WAIT_STEP_S)
            break
        except filelock.Timeout as error:
            arrived = bytes_in(folder / PART)
            meter(name, arrived, None)
            if arrived != seen:
                seen, since = arrived, time.monotonic()
            elif time.monotonic() - since > LOCK_TIMEOUT_S:
                raise DatasetUnavailable(
                    f"Dataset not found: another process has been at the download of {name} for "
                    f"{LOCK_TIMEOUT_S} s without a new byte ({lock.lock_file})",
                    hint="end that process, then try again",
                ) from error
    try:
        yield
    finally:
        lock.release()
