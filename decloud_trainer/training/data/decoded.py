"""The cache of decoded data: plain arrays on disk, mapped into memory by whoever needs them.

An entry is named by the dataset, the digest of its content and the transform. Images are stored at
32x32 after the resize, one channel for grey and three for colour: what follows in the network's
preprocessing (three channels, to-tensor, normalise) can be done on whole batches with the same
result to the byte.

Each entry has a lock file. Who makes an entry or has it mapped shares the lock, until the last
array is gone from memory or the process has ended, however that ended; who removes the entry must
hold the lock alone. A second lock sees to it that one process at a time makes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decloud_trainer import files
from decloud_trainer.errors import DatasetUnavailable, DecloudError, StorageError
from decloud_trainer.training.data.published import CLASSES
from decloud_trainer.training.data.samples import SIDE, Dataset, Samples, check_shapes
from decloud_trainer.training.data.split import Pixels, Split, unusable
from decloud_trainer.training.results import DataInfo

LOCK_TIMEOUT_S = 600.0
_LOOK_S = 0.05
_FILE = re.compile(
    r"\.?(?P<stem>(?P<name>[a-z0-9]{1,40})-[0-9a-f]{16}-[A-Za-z0-9._-]{1,80}?)"
    r"(-(train|test)-[a-z]+\.npy|\.json)(\..*)?"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the cache holds of one dataset's content. `used` is in unix seconds."""

    stem: str
    name: str
    bytes: int
    used: float


def load(splits: Mapping[str, Split], folder: Path, name: str, digest: str) -> Dataset:
    """The dataset of the content `digest`, mapped; decoded first if it isn't there.

    Raises:
        DatasetUnavailable: a file is damaged, or has labels beyond the dataset's classes.
        StorageError: the disk is full or can't be written to.
        DecloudError: its file system knows no locks.
    """
    stem = stem_of(splits, name, digest)
    with _locked(folder / f"{stem}.lock", fcntl.LOCK_SH) as lock:
        dataset = _read(folder, stem, name)
        if dataset is None:
            with _locked(folder / f"{stem}.making", fcntl.LOCK_EX):
                if _read(folder, stem, name) is None:  # no other process was faster
                    _write(splits, folder, stem, name, digest)
            dataset = _read(folder, stem, name)
        if dataset is None:
            raise DatasetUnavailable(
                f"the decoded {name} in {folder} can't be read back",
                hint=f"check the disk; decloud-trainer datasets remove {name} has it made anew",
            )
        _hold(dataset, lock)
    # The order in which entries leave when there are too many.
    os.utime(folder / f"{stem}.json")
    return dataset


def stem_of(splits: Mapping[str, Split], name: str, digest: str) -> str:
    """What the file names of an entry start with."""
    return f"{name}-{digest[:16]}-{next(iter(splits.values())).transform}"


def entries(folder: Path) -> list[Entry]:
    """All that lies in the cache, the longest unused first; what was left half made, too."""
    found: dict[str, Entry] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if (match := _FILE.fullmatch(path.name)) is None:
            continue
        try:
            seen = path.stat()
        except OSError:  # it has just been removed
            continue
        stem = match["stem"]
        before = found.get(stem, Entry(stem, match["name"], 0, 0.0))
        found[stem] = Entry(
            stem, before.name, before.bytes + seen.st_size, max(before.used, seen.st_mtime)
        )
    return sorted(found.values(), key=lambda entry: (entry.used, entry.stem))


def evict(folder: Path, limit_bytes: int) -> list[Entry]:
    """Remove the longest unused entries until the rest fits; never one that's mapped somewhere."""
    there = entries(folder)
    total, removed = sum(entry.bytes for entry in there), []
    for entry in there:
        if total <= limit_bytes:
            break
        if remove(folder, entry):
            total -= entry.bytes
            removed.append(entry)
    return removed


def remove(folder: Path, entry: Entry) -> bool:
    """Whether the entry could be removed: it can't while it's made or mapped."""
    try:
        with _locked(folder / f"{entry.stem}.lock", fcntl.LOCK_EX, patience_s=0.0):
            mine = [
                path
                for path in folder.iterdir()
                if (match := _FILE.fullmatch(path.name)) and match["stem"] == entry.stem
            ]
            # The description first: without it the arrays are nothing.
            for path in sorted(mine, key=lambda path: path.suffix != ".json"):
                path.unlink(missing_ok=True)
    except DatasetUnavailable:
        return False
    return True


# --- locks ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(path: Path, kind: int, patience_s: float = LOCK_TIMEOUT_S) -> Iterator[int]:
    """The lock file's descriptor. Lock files stay: a removed one would be locked twice."""
    give_up = time.monotonic() + patience_s
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StorageError(
            f"can't open {path}: {error.strerror}",
            hint="see that there is space, and that this user may write there",
        ) from error
    try:
        while not _try_lock(path, handle, kind):
            if time.monotonic() >= give_up:
                raise DatasetUnavailable(
                    f"another process has held {path} for {patience_s:.0f} s",
                    hint="see whether that process still makes progress, then try again",
                )
            time.sleep(_LOOK_S)
        yield handle
    finally:
        os.close(handle)


def _try_lock(path: Path, handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EINTR):
            return False
        raise DecloudError(
            f"can't lock {path}: {error.strerror}",
            hint="set DECLOUD_HOME to a folder on a local disk",
        ) from error
    return True


def _hold(dataset: Dataset, lock: int) -> None:
    """Share the lock until the last of the arrays is unmapped: each has a copy of the handle."""
    for samples in (dataset.train, dataset.test):
        for array in (samples.inputs, samples.labels) if samples else ():
            # The mapping, not the array: views of it and tensors keep it alive.
            weakref.finalize(array.base, os.close, os.dup(lock)).atexit = False


# --- files ----------------------------------------------------------------------------------


def resize(images: Pixels) -> Pixels:
    """(N, side, side) or (N, side, side, 3) -> 32x32, bilinear as PIL does it, like the scoring
    side."""
    if images.shape[1:3] == (SIDE, SIDE):
        return images
    resized = np.empty((len(images), SIDE, SIDE, *images.shape[3:]), dtype=np.uint8)
    for number, image in enumerate(images):
        picture = Image.fromarray(image)
        resized[number] = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return resized


def _write(splits: Mapping[str, Split], folder: Path, stem: str, name: str, digest: str) -> None:
    """Write the arrays, then the description: it stands only beside complete arrays."""
    counts, classes = {"train": 0, "test": 0}, CLASSES.get(name, 0)
    modality = next(iter(splits.values())).modality
    for which, source in splits.items():
        inputs, labels = source.read()
        counts[which], highest = len(labels), int(labels.max())
        if name in CLASSES and highest >= CLASSES[name]:
            raise unusable(
                source.files[-1],
                f"file of {name}",
                f"it has the label {highest}, {name} has {CLASSES[name]} classes",
            )
        classes = max(classes, highest + 1)
        if modality == "image":
            inputs = resize(inputs)
        _write_array(folder / f"{stem}-{which}-inputs.npy", inputs)
        _write_array(folder / f"{stem}-{which}-labels.npy", labels)
    columns = inputs.shape[1] if modality == "tabular" else 0
    info = DataInfo(counts["train"], counts["test"], classes, digest, modality, columns)
    files.write_atomic(folder / f"{stem}.json", json.dumps(info.to_json()).encode())


def _read(folder: Path, stem: str, name: str) -> Dataset | None:
    """The dataset in the cache; None when it isn't there or is damaged (then it's made anew)."""
    try:
        info = DataInfo.from_json(json.loads((folder / f"{stem}.json").read_bytes()))
        splits = {
            which: _map(folder / f"{stem}-{which}", info, count)
            for which, count in (("train", info.train), ("test", info.test))
            if count
        }
    except (OSError, ValueError, EOFError, DecloudError):
        return None
    return Dataset(name, info, splits.get("train"), splits.get("test"))


def _map(prefix: Path, info: DataInfo, count: int) -> Samples:
    # Copy-on-write mapping: pages are shared, nothing can be written back, and torch may take it.
    inputs = np.load(f"{prefix}-inputs.npy", mmap_mode="c", allow_pickle=False)
    labels = np.load(f"{prefix}-labels.npy", mmap_mode="c", allow_pickle=False)
    samples = Samples(inputs, labels, info.modality)
    check_shapes(samples)
    if len(samples) != count:
        raise ValueError(f"{prefix}-labels.npy is not what its description says")
    return samples


def _write_array(path: Path, array: NDArray[np.generic]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        files.publish(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"can't write {path}: {error.strerror}",
            hint="free some space; decloud-trainer datasets remove NAME frees a dataset's",
        ) from error
