"""How much memory children hold, looked at from outside: the bound that holds everywhere.

A child bounds its own memory as well (see `training.sandbox`), but that counts what is mapped, of
which a GPU's driver maps far more than it uses. What is held can be counted beside a GPU, too.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from decloud_trainer.training.limits import machine_bytes

# The rest is the system's, the daemon's, and what a child may take between two looks.
_PART = 0.9
# In KiB. Files that are mapped are left out: the system drops their pages when it needs room.
_HELD = ("RssAnon", "RssShmem", "VmSwap")


class MemoryWatch:
    """What all children of one supervisor hold together.

    Args:
        limit_bytes: 0 = nine tenths of what this machine or container has.
    """

    def __init__(self, limit_bytes: int = 0) -> None:
        self.limit_bytes = limit_bytes or int((machine_bytes() or 0) * _PART)
        self._held: dict[int, int] = {}  # by process

    def is_too_much(self, pid: int) -> bool:
        """Look at the process: whether the limit is passed, and this is the one that holds most.

        Not in a thread: it takes less than a millisecond (10 by ps), and no queue of other work
        shall come before it."""
        held = self._held[pid] = held_bytes(pid)
        held_by_all = sum(self._held.values())
        return 0 < self.limit_bytes < held_by_all and held == max(self._held.values())

    def forget(self, pid: int) -> None:
        """The process has ended."""
        self._held.pop(pid, None)


def held_bytes(pid: int) -> int:
    """What a process holds in memory and in swap; 0 where that can't be told, or it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
    except OSError:
        return 0 if Path("/proc/self/status").exists() else _held_by_ps(pid)
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return sum(int(fields[name].split()[0]) * 1024 for name in _HELD if name in fields)


def _held_by_ps(pid: int) -> int:
    """With mapped files, which ps doesn't tell apart."""
    command = ("ps", "-o", "rss=", "-p", str(pid))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = done.stdout.strip()
    return int(text) * 1024 if text.isdecimal() else 0
