"""The cache of decoded data: what was unused longest leaves first, what is in use never."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
from pathlib import Path

import datafiles
import filelock
import numpy as np
import pytest

from decloud_trainer.errors import DatasetUnavailable, StorageError
from decloud_trainer.training.data import cifar, datasets, decoded
from decloud_trainer.training.data.datasets import find, kept, load, load_test, prepare, remove
from decloud_trainer.training.spec import DataSpec

NAMES = ("first", "second", "third")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def made(tmp_path: Path, data_dir: Path, name: str, count: int = 10) -> DataSpec:
    """A dataset of `count` images, 1 KB each, of its own content."""
    folder = tmp_path / name
    folder.mkdir()
    images = np.full((count, 32, 32), len(name), np.uint8)
    np.savez(folder / "all.npz", x_train=images, y_train=np.arange(count) % 10)
    return DataSpec(name, folder, data_dir)


def aged(data_dir: Path, *names: str) -> None:
    """Used in this order, long ago."""
    for path in (data_dir / "decoded").iterdir():
        for number, name in enumerate(names):
            if path.name.startswith(name):
                os.utime(path, (1000 + number, 1000 + number))


def there(data_dir: Path) -> list[str]:
    return [entry.name for entry in decoded.entries(data_dir / "decoded")]


def test_the_longest_unused_leaves_first(tmp_path: Path, data_dir: Path) -> None:
    """Beyond the limit the oldest entries go, until the rest fits; using one makes it young."""
    specs = [made(tmp_path, data_dir, name) for name in NAMES]
    for spec in specs:
        prepare(spec)
    aged(data_dir, *NAMES)
    load(specs[0])
    assert there(data_dir) == ["second", "third", "first"]
    gc.collect()
    fourth = made(tmp_path, data_dir, "fourth")
    sizes = {entry.name: entry.bytes for entry in decoded.entries(data_dir / "decoded")}
    info = prepare(fourth, cache_bytes=3 * sizes["first"])
    assert there(data_dir) == ["third", "first", "fourth"]
    assert info.train == 10
    # What was asked for stays, whatever the limit; no limit is no limit.
    prepare(fourth, cache_bytes=1)
    assert there(data_dir) == ["fourth"]
    prepare(specs[1], cache_bytes=0)
    assert there(data_dir) == ["fourth", "second"]


def test_mapped_data_is_never_removed(tmp_path: Path, data_dir: Path) -> None:
    """As long as any array, view or tensor of it lives; an end of the process ends that, too."""
    spec, other = made(tmp_path, data_dir, "first"), made(tmp_path, data_dir, "other")
    view = load(spec).split("train").inputs[3:]
    gc.collect()
    prepare(other, cache_bytes=1)
    assert there(data_dir) == ["first", "other"]
    with pytest.raises(DatasetUnavailable, match="first is in use by a training"):
        remove(data_dir, "first")
    assert view.max() == 5
    del view
    gc.collect()
    prepare(other, cache_bytes=1)
    assert there(data_dir) == ["other"]


HOLDER = """
import sys
from pathlib import Path
from decloud_trainer.training.data.datasets import load
from decloud_trainer.training.spec import DataSpec
data = load(DataSpec("first", Path(sys.argv[1]), Path(sys.argv[2])))
print("mapped", flush=True)
sys.stdin.read()
print(int(data.split("train").inputs.max()))
"""


def test_another_process_holds_what_it_maps(tmp_path: Path, data_dir: Path) -> None:
    """A training child's data stays while it runs, and is free once it has ended."""
    spec, other = made(tmp_path, data_dir, "first"), made(tmp_path, data_dir, "other")
    command = [sys.executable, "-c", HOLDER, str(spec.path), str(data_dir)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout
        assert child.stdout.readline() == "mapped\n"
        prepare(other, cache_bytes=1)
        assert there(data_dir) == ["first", "other"]
        child.stdin.close()
        assert child.stdout.readline() == "5\n"
    prepare(other, cache_bytes=1)
    assert there(data_dir) == ["other"]


def test_what_was_left_half_made_counts_and_goes(tmp_path: Path, data_dir: Path) -> None:
    """Arrays without a description, and temporary files, are old entries like others."""
    spec = made(tmp_path, data_dir, "first")
    prepare(spec)
    folder = data_dir / "decoded"
    stem = f"broken-{'0' * 16}-32-bilinear-2"
    (folder / f".{stem}-train-inputs.npy.tmp").write_bytes(bytes(5000))
    (folder / f"{stem}-test-labels.npy").write_bytes(bytes(100))
    (folder / "notes.txt").write_text("not ours")
    aged(data_dir, "broken", f".{stem}")
    assert kept(data_dir)["broken"].decoded == 5100
    total = sum(entry.bytes for entry in decoded.entries(folder))
    removed = decoded.evict(folder, total - 1)
    assert [entry.name for entry in removed] == ["broken"]
    assert (folder / "notes.txt").exists()
    assert not list(folder.glob(f"*{stem}*.tmp"))


def test_a_full_disk_is_worth_another_try(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was half written is removed, and the error is one that passes."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spec = made(tmp_path, data_dir, "first")
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(StorageError, match="No space left") as caught:
            prepare(spec)
    assert caught.value.retryable
    assert "datasets remove" in caught.value.hint
    assert not list((data_dir / "decoded").glob("*.npy*"))
    assert prepare(spec).train == 10


def test_removing_frees_download_and_arrays(tmp_path: Path, data_dir: Path) -> None:
    """Of this dataset alone; the user's own folder stays; a running download is left alone."""
    place = data_dir / "downloads" / "CIFAR10"
    datafiles.write_cifar10(place)
    spec = DataSpec("cifar10", None, data_dir)
    prepare(spec)
    mine = made(tmp_path, data_dir, "first")
    prepare(mine)
    before = kept(data_dir)
    assert set(before) == {"cifar10", "first"}
    with (
        filelock.FileLock(data_dir / "downloads" / "cifar10.lock"),
        pytest.raises(DatasetUnavailable, match="being downloaded"),
    ):
        remove(data_dir, "cifar10")
    freed = remove(data_dir, "cifar10")
    assert freed.downloaded == before["cifar10"].downloaded > 0
    assert set(kept(data_dir)) == {"first"}
    assert load_test(spec) is None
    remove(data_dir, "first")
    assert not kept(data_dir)
    assert prepare(mine).train == 10


def test_an_archive_is_unpacked_once(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all questions about it; while it doesn't change, later listings don't unpack it again."""
    folder = tmp_path / "mine"
    folder.mkdir()
    archive = datafiles.packed(
        datafiles.write_cifar10(tmp_path / "made"), folder / "cifar-10-python.tar.gz"
    )
    opened = []
    real = cifar.read_archive
    monkeypatch.setattr(cifar, "read_archive", lambda *args: opened.append(1) or real(*args))
    assert datasets.find_format(folder).train == 20
    assert len(opened) == 1
    spec = DataSpec("cifar10", folder, data_dir)
    assert load(spec).info.train == 20
    assert len(opened) == 2
    # A file that has just changed isn't trusted to stay as it is; a day-old one is.
    monkeypatch.setattr("decloud_trainer.training.data.remembered.SETTLED_S", -10.0)
    first = find(spec)
    assert find(spec) == first
    assert len(opened) == 3
    os.utime(archive, (1, 1))
    assert find(spec) == first
    assert len(opened) == 4
    (data_dir / "found" / "cifar10.json").write_text("{")
    assert find(spec) == first
