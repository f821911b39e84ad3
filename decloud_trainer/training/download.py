"""Published datasets through torchvision: its addresses, its checksums, its download.

What arrives goes into a folder of its own and takes its place in one step when it is whole. No
archive is unpickled and none is unpacked but for the members that are wanted.
"""

from __future__ import annotations

import os
import shutil
import socket
import zipfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

from decloud_trainer import files
from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training import cifar, idx
from decloud_trainer.training.published import TORCHVISION

# Without it a host that stops answering would be waited for without end.
SILENCE_S = 60
MAX_MEMBER_BYTES = 256 * 1024**2


def download(name: str, folder: Path) -> None:
    """Have the dataset `name` in `folder`.

    Raises:
        DatasetUnavailable: it can't be had; says why.
    """
    try:
        # Late and guarded: a torchvision built for another torch fails on import.
        import torchvision
        from torchvision.datasets.utils import download_url
    except (ImportError, RuntimeError) as error:
        raise DatasetUnavailable(
            f"Dataset not found: {name} needs torchvision for its download: {error}",
            hint="install the torchvision release that belongs to your torch",
        ) from error
    published = getattr(torchvision.datasets, TORCHVISION[name])
    part = files.make_private_dir(folder) / ".part"
    shutil.rmtree(part, ignore_errors=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        part.mkdir()
        arrived = _fetch(name, published, download_url, part)
        target = folder / arrived.name
        shutil.rmtree(target, ignore_errors=True)
        os.replace(arrived, target)
    except (RuntimeError, URLError, OSError, zipfile.BadZipFile) as error:
        raise DatasetUnavailable(
            f"Dataset not found: {name} could not be downloaded: {error}",
            hint="check the connection, or use files of your own: "
            f"decloud-trainer config --add-path {name}:/path/to/its/folder",
        ) from error
    finally:
        socket.setdefaulttimeout(before)
        shutil.rmtree(part, ignore_errors=True)


def _fetch(name: str, published: Any, download_url: Any, part: Path) -> Path:
    """Download into `part`; the folder there that is then whole."""
    if name in ("cifar10", "cifar100"):
        archive = part / published.filename
        download_url(published.url, part, archive.name, published.tgz_md5)
        return _unpack_cifar(archive)
    if name == "emnist":
        download_url(published.url, part, "gzip.zip", published.md5)
        return _unpack_emnist(part / "gzip.zip")
    if name == "svhn":
        for split in ("train", "test"):
            url, file, md5 = published.split_list[split]
            download_url(url, part / "raw", file, md5)
        return part / "raw"
    for train in (True, False):
        published(root=str(part), train=train, download=True)
    return part / TORCHVISION[name] / "raw"


def _unpack_cifar(archive: Path) -> Path:
    layout = next(each for each in cifar.LAYOUTS if each.archive == archive.name)
    names = [name for members in layout.members.values() for name in members]
    folder = archive.with_name(layout.folder)
    folder.mkdir()
    for name, data in cifar.read_archive(archive, layout, names).items():
        (folder / name).write_bytes(data)
    return folder


def _unpack_emnist(archive: Path) -> Path:
    """Of the archive's six ways to split, the network's: "balanced"."""
    folder = archive.with_name("raw")
    folder.mkdir()
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            name = Path(info.filename).name
            if not name.startswith("emnist-balanced-") or not name.endswith("-ubyte.gz"):
                continue
            if info.file_size > MAX_MEMBER_BYTES:
                raise idx.bad(archive / name, f"it has {info.file_size:,} bytes")
            (folder / name).write_bytes(packed.read(info))
    return folder
