"""The cache of decoded data: plain arrays on disk, mapped into memory by whoever needs them.

An entry is named by the dataset, the digest of its content and the transform. Images are stored at
32x32 after the resize, one channel for grey and three for colour: what follows in the network's
preprocessing (three channels, to-tensor, normalise) can be done on whole batches with the same
result to the byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decloud_trainer import files
from decloud_trainer.errors import DecloudError
from decloud_trainer.training.published import CLASSES
from decloud_trainer.training.results import DataInfo
from decloud_trainer.training.samples import SIDE, Dataset, Samples, check_shapes
from decloud_trainer.training.split import Pixels, Split, unusable


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


def write(splits: Mapping[str, Split], folder: Path, stem: str, name: str, digest: str) -> None:
    """Write the arrays, then the description: it stands only beside complete arrays.

    Raises:
        DatasetUnavailable: a file is damaged, or has labels beyond the dataset's classes.
        DecloudError: the disk is full.
    """
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
    info = DataInfo(counts["train"], counts["test"], classes, digest, modality)
    files.write_atomic(folder / f"{stem}.json", json.dumps(info.to_json()).encode())


def read(folder: Path, stem: str, name: str) -> Dataset | None:
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
        raise DecloudError(
            f"can't write {path}: {error.strerror}", hint="free some space, or set data_dir"
        ) from error
