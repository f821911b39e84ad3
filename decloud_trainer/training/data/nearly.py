"""What is wrong with a folder in which no dataset was recognised, or only half of one."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from decloud_trainer.training import damage
from decloud_trainer.training.data import arrays, cifar, folders, idx, svhn

# Names told in a sentence, and files looked at.
SHOWN, MAX_FILES = 3, 10_000
_EMNIST = re.compile(r"emnist-(byclass|bymerge|letters|digits|mnist)-(train|test)-images.*")
_PACKED = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")


def reasons(path: Path) -> list[str]:
    """Sentences about what is there and what it lacks; empty if there is nothing to tell."""
    if not path.exists():
        return ["there is no such folder"]
    if path.is_file():
        return [f"{path.name} is a single file of no known kind"]
    try:
        names = _names(path)
        if not names:
            return ["it is empty"]
        found = [why for look in _LOOKS for why in look(path, names)]
    except OSError as error:
        return [f"it can't be read: {error.strerror}"]
    return found or [f"it holds {_some(sorted(names))}"]


def missing_halves(path: Path) -> list[str]:
    """Of image files without their labels and the like, in a folder that holds a dataset."""
    try:
        names = _names(path) if path.is_dir() else set()
    except OSError:
        return []
    return [*_half_idx(path, names), *_half_arrays(path, names)]


def _names(path: Path) -> set[str]:
    names = set()
    for number, entry in enumerate(path.iterdir()):
        if number >= MAX_FILES:
            break
        if not entry.name.startswith("."):
            names.add(entry.name)
    return names


def _some(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def _half_idx(path: Path, names: set[str]) -> Iterator[str]:
    for prefixes in idx.SPLITS.values():
        for prefix in prefixes:
            halves = {
                what: [name for name in names if name.startswith(f"{prefix}-{what}")]
                for what in ("images", "labels")
            }
            for there, lacking, number in (("images", "labels", 1), ("labels", "images", 3)):
                if halves[there] and not halves[lacking]:
                    wanted = f"{prefix}-{lacking}-idx{number}-ubyte"
                    yield f"{halves[there][0]} lies alone: {wanted} is missing"


def _other_emnist(path: Path, names: set[str]) -> Iterator[str]:
    if kinds := {match[1] for name in names if (match := _EMNIST.fullmatch(name))}:
        yield f"it has EMNIST's {', '.join(sorted(kinds))}, the network's is balanced"


def _half_arrays(path: Path, names: set[str]) -> Iterator[str]:
    known = {arrays.spelled(Path(name).stem) for name in names if name.endswith(".npy")}
    for prefixes in arrays.SPLITS.values():
        for prefix in prefixes:
            images = [each for n in arrays.IMAGES if (each := n.format(prefix)) in known]
            labels = [each for n in arrays.LABELS if (each := n.format(prefix)) in known]
            if images and not labels:
                yield f"{images[0]}.npy has no labels beside it, such as y_{prefix}.npy"
            if labels and not images:
                yield f"{labels[0]}.npy has no images beside it, such as x_{prefix}.npy"


def _unnamed_arrays(path: Path, names: set[str]) -> Iterator[str]:
    for name in sorted(names):
        if not name.lower().endswith(".npz"):
            continue
        try:
            with zipfile.ZipFile(path / name) as packed:
                inside = [each.removesuffix(".npy") for each in packed.namelist()]
        except damage.ZIP:
            yield f"{name} is damaged"
            continue
        yield f"{name} has the arrays {_some(inside)}; wanted are x_train and y_train"


def _svhn(path: Path, names: set[str]) -> Iterator[str]:
    if not names & set(svhn.FILES.values()):
        if "extra_32x32.mat" in names:
            yield "it has SVHN's extra_32x32.mat only; train_32x32.mat is missing"
        if "digitStruct.mat" in names:
            yield "it has SVHN's full pictures; the cropped digits (train_32x32.mat) are wanted"


def _packed(path: Path, names: set[str]) -> Iterator[str]:
    known = {layout.archive for layout in cifar.LAYOUTS}
    packed = sorted(name for name in names if name.lower().endswith(_PACKED) and name not in known)
    if packed:
        yield f"{_some(packed)} must be unpacked first"


def _torch_files(path: Path, names: set[str]) -> Iterator[str]:
    if any(name.endswith((".pt", ".pth", ".pkl", ".pickle")) for name in names):
        yield "files of PyTorch and pickles are not read: give the original files"


def _loose_images(path: Path, names: set[str]) -> Iterator[str]:
    loose = [name for name in names if Path(name).suffix.lower() in folders.SUFFIXES]
    if loose:
        yield (
            f"{len(loose):,} images lie in it without a class: put them into train/CLASS/, a folder"
            " for each class"
        )
        return
    classes = sorted(
        name
        for name in sorted(names)[:100]
        if (path / name).is_dir()
        and any(each.suffix.lower() in folders.SUFFIXES for each in (path / name).iterdir())
    )
    split = [name for name in classes if name in ("train", "test", "val")]
    if split:
        yield f"the images in {split[0]}/ have no class: put them into {split[0]}/CLASS/"
    elif classes:
        yield f"{_some(classes)} are folders of images: move them into a folder called train"


_LOOKS: tuple[Callable[[Path, set[str]], Iterator[str]], ...] = (
    *(_half_idx, _other_emnist, _half_arrays, _unnamed_arrays, _svhn),
    *(_packed, _torch_files, _loose_images),
)
