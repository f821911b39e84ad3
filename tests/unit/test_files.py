"""Private modes, durable replacement, and one instance."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from decloud_trainer import files
from decloud_trainer.errors import AlreadyRunning, DecloudError
from decloud_trainer.files import (
    make_private_dir,
    publish,
    single_instance,
    write_atomic,
    write_together,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_are_private_with_all_new_parents(tmp_path: Path) -> None:
    """Whatever the umask; an own folder that was too open is narrowed."""
    before = os.umask(0)
    try:
        made = make_private_dir(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    assert [mode(path) for path in (made, made.parent, made.parent.parent)] == [0o700] * 3
    made.chmod(0o755)
    make_private_dir(made)
    assert mode(made) == 0o700


def test_a_folder_for_everybody_is_left_as_it_is(tmp_path: Path) -> None:
    """DECLOUD_HOME=/tmp, given by root, must not shut everybody else out of it."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    make_private_dir(shared)
    assert mode(shared) == 0o1777


def test_a_file_in_a_folders_place_is_named(tmp_path: Path) -> None:
    """With what to do instead."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DecloudError, match="can't create the folder") as caught:
            make_private_dir(path)
        assert "DECLOUD_HOME" in caught.value.hint


def test_a_write_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure at any point leaves the old bytes and no temporary file."""
    path = tmp_path / "file"
    write_atomic(path, b"old")
    assert (path.read_bytes(), mode(path)) == (b"old", 0o600)

    def full(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are there and each folder is synced once; a failure leaves no temporary file."""
    paths = [make_private_dir(tmp_path / folder) / name for folder in "ab" for name in "xy"]
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_dir", synced.append)
    write_together({path: path.name.encode() for path in paths})
    assert [path.read_bytes() for path in paths] == [b"x", b"y", b"x", b"y"]
    assert sorted(synced) == [tmp_path / "a", tmp_path / "b"]
    left = iter([True, False])

    def full(handle: int) -> None:
        if not next(left):
            raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_together(dict.fromkeys(paths, b"new"))
    assert [path.read_bytes() for path in paths] == [b"x", b"y", b"x", b"y"]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == paths


def test_a_write_replaces_a_link_and_not_its_target(tmp_path: Path) -> None:
    """Nobody's other file is changed through a link."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"mine")
    link.symlink_to(target)
    write_atomic(link, b"new", mode=0o644)
    assert (target.read_bytes(), link.read_bytes()) == (b"mine", b"new")
    assert not link.is_symlink()
    assert mode(link) == 0o644


def test_a_finished_file_is_published(tmp_path: Path) -> None:
    """It has the final name, and the temporary one is gone."""
    (tmp_path / "part").write_bytes(b"x" * 100_000)
    digest = files.sha256_file(tmp_path / "part")
    publish(tmp_path / "part", tmp_path / "done")
    assert files.sha256_file(tmp_path / "done") == digest
    assert not (tmp_path / "part").exists()


def test_decloud_home_moves_everything_but_the_wallet_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two homes with one wallet must meet at one lock."""
    monkeypatch.setenv("DECLOUD_HOME", str(tmp_path / "one"))
    places = (files.home_dir(), files.cache_dir(), files.log_dir())
    assert all(place.is_relative_to(tmp_path / "one") for place in places)
    locks = files.wallet_locks_dir()
    monkeypatch.setenv("DECLOUD_HOME", str(tmp_path / "two"))
    assert files.wallet_locks_dir() == locks
    monkeypatch.delenv("DECLOUD_HOME")
    assert files.home_dir() == Path.home() / ".decloud-trainer"
    assert files.wallet_locks_dir() == locks


HOLDER = """
import sys, time
from pathlib import Path
from decloud_trainer.files import single_instance
with single_instance(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_holder_at_a_time_even_if_it_is_killed(tmp_path: Path) -> None:
    """The other is told what runs and what to do; kill -9 frees the lock."""
    path = tmp_path / "locks" / "one.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(AlreadyRunning, match="the thing is already running") as caught,
            single_instance(path, "the thing", hint="stop it", patience_s=0.05),
        ):
            pass
        assert str(path) in caught.value.message
        assert caught.value.hint == "stop it"
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    with single_instance(path, "the thing"):
        assert mode(path) == 0o600


def test_a_lock_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    """Not a traceback: a folder in the lock's place, say."""
    (tmp_path / "lock").mkdir()
    with (
        pytest.raises(DecloudError, match="can't lock"),
        single_instance(tmp_path / "lock", "the thing"),
    ):
        pass
