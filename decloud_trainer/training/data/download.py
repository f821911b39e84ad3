"""Published datasets: which files make one, and how they become a folder that can be read.

torchvision has the addresses and checksums; the transfer is our own, since torchvision's can't be
resumed. What arrives stays in ``.part`` until all of it is there, and takes its place in one step.
No archive is unpickled and none is unpacked but for the members that are wanted.
"""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from decloud_trainer import files
from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training import damage
from decloud_trainer.training.data import cifar, idx, published_texts
from decloud_trainer.training.data.published import TEXTS, TORCHVISION
from decloud_trainer.training.data.transfer import PATIENCE, File, Patience, Report, fetch
from decloud_trainer.training.results import Progress

PART = ".part"
TELL_EVERY_S = 0.5
MAX_MEMBER_BYTES = 256 * 1024**2


def download(name: str, folder: Path, report: Report, patience: Patience = PATIENCE) -> None:
    """Have the dataset `name` in `folder`. Only one process at a time may do it.

    Being interrupted loses nothing: the next call goes on from what is there.

    Args:
        report: called with (file, bytes there, bytes in all or None) whenever some have arrived.

    Raises:
        DatasetUnavailable: it can't be had; says why.
    """
    part = files.make_private_dir(folder / PART)
    try:
        arrived = _unpack(name, _fetch_all(name, part, report, patience))
        target = folder / arrived.name
        shutil.rmtree(target, ignore_errors=True)
        os.replace(arrived, target)
    except DatasetUnavailable as error:
        raise DatasetUnavailable(
            error.message,
            hint=error.hint
            or "check the connection: a next try goes on from what has arrived. Or use files of"
            f" your own: decloud-trainer config --add-path {name}:/path/to/its/folder",
        ) from error
    except OSError as error:
        raise DatasetUnavailable(
            f"Dataset not found: {name} can't be written to {folder}: {error.strerror}",
            hint="free some space",
        ) from error
    shutil.rmtree(part, ignore_errors=True)


def _fetch_all(name: str, part: Path, report: Report, patience: Patience) -> list[Path]:
    """The files of the dataset, all from the first source that has all of them."""
    sources = published_texts.sources(name) if name in TEXTS else [published_files(name)]
    failed: list[DatasetUnavailable] = []
    for wanted in sources:
        try:
            return [fetch(file, part, report, patience) for file in wanted]
        except DatasetUnavailable as error:
            failed.append(error)
    told = "; ".join(error.message.removeprefix("Dataset not found: ") for error in failed)
    raise DatasetUnavailable(f"Dataset not found: {told}", hint=failed[-1].hint) from failed[-1]


def published_files(name: str) -> tuple[File, ...]:
    """All files of a published dataset of images.

    Raises:
        DatasetUnavailable: torchvision, which knows, can't be used.
    """
    try:
        # Late and guarded: a torchvision built for another torch fails on import.
        import torchvision
    except (ImportError, RuntimeError) as error:
        raise DatasetUnavailable(
            f"Dataset not found: {name} needs torchvision for its download: {error}",
            hint="install the torchvision release that belongs to your torch",
        ) from error
    known: Any = getattr(torchvision.datasets, TORCHVISION[name])
    if name in ("cifar10", "cifar100"):
        return (File(known.filename, (known.url,), f"md5:{known.tgz_md5}"),)
    if name == "emnist":
        return (File("gzip.zip", (known.url,), f"md5:{known.md5}"),)
    if name == "svhn":
        rows = (known.split_list[split] for split in ("train", "test"))
        return tuple(File(file, (url,), f"md5:{md5}") for url, file, md5 in rows)
    return tuple(
        File(file, tuple(mirror + file for mirror in known.mirrors), f"md5:{md5}")
        for file, md5 in known.resources
    )


class Meter:
    """A download's progress, told about twice a second, with the time that is left."""

    def __init__(
        self, tell: Callable[[Progress], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell, self._clock = tell, clock
        self._name, self._began, self._start, self._told = "", 0.0, 0, 0.0

    def __call__(self, name: str, done: int, total: int | None) -> None:
        now = self._clock()
        if name != self._name:
            self._name, self._began, self._start = name, now, done
        elif now - self._told < TELL_EVERY_S and done != total:
            return
        self._told = now
        rate = (done - self._start) / max(now - self._began, 1e-9)
        left = None if total is None or rate <= 0 else round((total - done) / rate, 1)
        self._tell(Progress("download", file=name, done_bytes=done, total_bytes=total, eta_s=left))


def bytes_in(folder: Path) -> int:
    """Of all files below."""
    total = 0
    for parent, _, names in os.walk(folder):
        for each in names:
            try:
                total += os.stat(os.path.join(parent, each)).st_size
            except OSError:  # it has just moved away
                continue
    return total


def _unpack(name: str, arrived: list[Path]) -> Path:
    """The folder, beside the files, that the dataset is read from."""
    if name in ("cifar10", "cifar100"):
        return _unpack_cifar(arrived[0])
    if name == "emnist":
        return _unpack_emnist(arrived[0])
    folder = _empty(arrived[0].with_name("raw"))
    for file in arrived:
        # No move: interrupted here, the file needn't be fetched again.
        _link_or_copy(file, folder / file.name)
    return folder


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # some file systems know no links
        shutil.copyfile(file, target)


def _unpack_cifar(archive: Path) -> Path:
    layout = next(each for each in cifar.LAYOUTS if each.archive == archive.name)
    names = [name for members in layout.members.values() for name in members]
    folder = _empty(archive.with_name(layout.folder))
    for name, data in cifar.read_archive(archive, layout, names).items():
        (folder / name).write_bytes(data)
    return folder


def _unpack_emnist(archive: Path) -> Path:
    """Of the archive's six ways to split, the network's: "balanced"."""
    folder = _empty(archive.with_name("raw"))
    for name, data in _balanced(archive):
        (folder / name).write_bytes(data)
    return folder


def _balanced(archive: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                name = Path(info.filename).name
                if not name.startswith("emnist-balanced-") or not name.endswith("-ubyte.gz"):
                    continue
                if info.file_size > MAX_MEMBER_BYTES:
                    raise idx.bad(archive / name, f"it has {info.file_size:,} bytes")
                yield name, packed.read(info)
    except damage.ZIP as error:
        raise DatasetUnavailable(
            f"Dataset not found: {archive} is no usable archive: {error}",
            hint="remove it, then try again; or use files of your own: "
            "decloud-trainer config --add-path emnist:/path/to/its/folder",
        ) from error


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
