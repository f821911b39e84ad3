"""A folder per class, as torchvision's ImageFolder has it: ``train/CLASS/*.png`` and ``test/`` or
``val/``. Classes are numbered in the order of their names; those of the training folder count."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data.samples import SIDE
from decloud_trainer.training.data.split import ImageSplit, Labels, Pixels, Summary, unusable

SPLITS = {"train": ("train",), "test": ("test", "val")}
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp"}
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
MAX_IMAGES = 300_000
MAX_CLASSES = 10_000
MAX_PIXELS = 16 * 1024**2
MAX_FILE_BYTES = 64 * 1024**2
# What PIL raises for damaged files, its own warning of a bomb included.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, OverflowError, EOFError),
    *(struct.error, zlib.error, MemoryError),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)


@dataclass(frozen=True, slots=True)
class FolderSplit(ImageSplit):
    """A split's image files with their classes, in order. Images are read in colour, whatever
    they are, and scaled to 32x32 as the scoring side's preprocessing does."""

    files: tuple[Path, ...]
    numbers: tuple[int, ...]
    classes: tuple[str, ...]

    @property
    def identity(self) -> str:
        names = (file.name for file in self.files)
        return repr((self.classes, self.numbers, *names))

    def summary(self) -> Summary:
        return Summary(len(self.files), len(self.classes), channels=3, labels=self.classes)

    def read(self) -> tuple[Pixels, Labels]:
        images = np.empty((len(self.files), SIDE, SIDE, 3), dtype=np.uint8)
        for number, file in enumerate(self.files):
            images[number] = read_image(file)
        return images, np.array(self.numbers, dtype=np.int64)


def read_image(file: Path) -> Pixels:
    """uint8 (32, 32, 3).

    Raises:
        DatasetUnavailable: it is no image, is damaged or too large.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise unusable(file, "image", f"it has more than {MAX_FILE_BYTES:,} bytes")
        with Image.open(file, formats=_FORMATS) as image:
            # The header's size, before anything is decoded.
            if image.width * image.height > MAX_PIXELS:
                raise unusable(file, "image", f"it has {image.width}x{image.height} pixels")
            colour = image.convert("RGB")
        return np.asarray(colour.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    except _DAMAGE as error:
        raise unusable(file, "image", f"damaged ({error})") from error


def find_splits(folder: Path) -> dict[str, FolderSplit]:
    """The splits in `folder`.

    Raises:
        DatasetUnavailable: a class is empty, has no training images, or there are too many images.
    """
    places = {
        split: place
        for split, names in SPLITS.items()
        if (place := _first([folder / name for name in names]))
    }
    if not places:
        return {}
    # Without a training folder, the test folder says which classes there are.
    classes = _class_names(next(iter(places.values())))
    return {split: _split(place, classes) for split, place in places.items()}


def _first(places: list[Path]) -> Path | None:
    return next((place for place in places if _holds_classes(place)), None)


def _holds_classes(place: Path) -> bool:
    """Is there an image in a folder in it?"""
    return place.is_dir() and any(
        file.suffix.lower() in SUFFIXES
        for name in _class_names(place)
        for file in _sorted(place / name)
    )


def _class_names(place: Path) -> tuple[str, ...]:
    names = [each.name for each in _sorted(place) if each.is_dir() and each.name[0] != "."]
    if len(names) > MAX_CLASSES:
        raise unusable(place, "folder of images", f"it has {len(names):,} classes")
    return tuple(names)


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda each: each.name)


def _split(place: Path, classes: tuple[str, ...]) -> FolderSplit:
    files: list[Path] = []
    numbers: list[int] = []
    for name in _class_names(place):
        if name not in classes:
            raise unusable(place / name, "class folder", "the training images have no such class")
        found = [
            file
            for file in _sorted(place / name)
            if file.suffix.lower() in SUFFIXES and file.name[0] != "."
        ]
        if not found:
            raise unusable(place / name, "class folder", "it holds no images")
        files += found
        numbers += [classes.index(name)] * len(found)
        if len(files) > MAX_IMAGES:
            raise DatasetUnavailable(
                f"{place} holds more than {MAX_IMAGES:,} images",
                hint="split it, or make arrays (.npz) of fewer images",
            )
    return FolderSplit(tuple(files), tuple(numbers), classes)
