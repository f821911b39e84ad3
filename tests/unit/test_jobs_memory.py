"""What children hold in memory, and which of them has to go."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from decloud_trainer.jobs.memory import MemoryWatch, _held_by_ps, held_bytes
from decloud_trainer.training.limits import machine_bytes

MB = 1_000_000
HOLDING = "import sys; held = b'x' * int(sys.argv[1]); print('.', flush=True); sys.stdin.read()"


@pytest.fixture
def holding() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes; the second holds 60 MB, the first hardly anything."""
    begun = [
        subprocess.Popen(
            [sys.executable, "-S", "-c", HOLDING, str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for size in (0, 60 * MB)
    ]
    for process in begun:
        assert process.stdout is not None
        assert process.stdout.readline()
    yield begun
    for process in begun:
        process.communicate()


def test_what_a_process_holds_is_counted(holding: list[subprocess.Popen[bytes]]) -> None:
    """What it has filled, from outside; nothing of one that is gone."""
    small, large = (held_bytes(process.pid) for process in holding)
    # The kernel counts a few pages behind.
    assert 59 * MB < large - small < 62 * MB
    holding[1].communicate()
    assert held_bytes(holding[1].pid) == 0


@pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps here")
def test_ps_tells_it_where_there_is_no_proc(holding: list[subprocess.Popen[bytes]]) -> None:
    """As on macOS."""
    small, large = (_held_by_ps(process.pid) for process in holding)
    assert 59 * MB < large - small < 62 * MB
    holding[1].communicate()
    assert _held_by_ps(holding[1].pid) == 0


def test_mapped_files_are_not_held(tmp_path: Path) -> None:
    """Decoded data is mapped and shared: the system drops it when it needs room."""
    path = tmp_path / "data"
    path.write_bytes(b"x" * 60 * MB)
    before = held_bytes(os.getpid())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        assert data[:].count(b"x") == 60 * MB
        assert held_bytes(os.getpid()) - before < 30 * MB


def test_the_largest_goes_when_all_together_hold_too_much(
    holding: list[subprocess.Popen[bytes]],
) -> None:
    """Never the other one; and once the largest is gone, nobody has to."""
    small, large = (process.pid for process in holding)
    watch = MemoryWatch(59 * MB)
    assert not watch.is_too_much(small)
    assert watch.is_too_much(large)
    assert not watch.is_too_much(small)
    watch.forget(large)
    assert not watch.is_too_much(small)


def test_a_tenth_of_the_machine_is_left_to_others(
    holding: list[subprocess.Popen[bytes]],
) -> None:
    """Unless a limit is given."""
    watch = MemoryWatch()
    there = machine_bytes()
    assert there is not None
    assert watch.limit_bytes == int(there * 0.9)
    assert not watch.is_too_much(holding[1].pid)
