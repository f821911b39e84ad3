"""Processes as /proc shows them: who has started whom, what they give away, who is still there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """The processes below `pid`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _read(entry / "stat")):
            parents[int(entry.name)] = int(stat.rpartition(b")")[2].split()[1])
    found = [pid]
    for parent in found:
        found.extend(child for child, of in parents.items() if of == parent)
    return found[1:]


def worker_of(pid: int, patience_s: float = 60.0) -> int:
    """The id of a training child of `pid`, as soon as there is one."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        for child in descendants(pid):
            if b"training.worker" in _read(Path(f"/proc/{child}/cmdline")):
                return child
        time.sleep(0.02)
    raise AssertionError(f"process {pid} has started no training child")


def processes_in(folder: Path) -> list[int]:
    """Processes that work in the folder, e.g. children that outlived their daemon."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            inside = Path(os.readlink(process / "cwd")).is_relative_to(folder)
            if inside and _state(int(process.name)) not in ("", "Z", "X"):
                found.append(int(process.name))
    return found


def told_by(pid: int) -> bytes:
    """What anybody of the same user can read of a process: its arguments and environment."""
    return _read(Path(f"/proc/{pid}/cmdline")) + _read(Path(f"/proc/{pid}/environ"))


def is_gone(pid: int, patience_s: float = 20.0) -> bool:
    """Whether it has ended by then; a zombie of a container without an init has."""
    until = time.monotonic() + patience_s
    while not (gone := _state(pid) in ("", "Z", "X")) and time.monotonic() < until:
        time.sleep(0.02)
    return gone


def kill_with_children(pid: int) -> None:
    """kill -9 of a process and of all that it has started."""
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def free_port() -> int:
    """A port of loopback that nobody listens on at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _state(pid: int) -> str:
    """Its letter in /proc; empty when there is no such process."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return fields[0].decode() if fields else ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it has ended meanwhile
