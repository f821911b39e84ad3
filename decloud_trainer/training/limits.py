"""What the operating system grants a training child, and what it forbids."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def forbid_core_dumps() -> None:
    """A core file would hold whatever was in memory, and be gigabytes large."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# Numbers of glibc's mallopt; other C libraries have no such function.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = -1
_LARGEST_KEPT_BYTES = 32 * 1024**2  # glibc takes no more


def ready_for_torch() -> None:
    """Make this process one that trains well; to be called before torch is imported.

    Threads that wait for each other by spinning stall for whole time slices when another program
    wants the same cores: 20 times slower was seen. OpenMP reads the variable when it is loaded.

    And what a batch's activations took is wanted again by the next batch. glibc gives it back to
    the system in between, which then hands it out again page by page, each cleared: a quarter of
    the time of SimpleCNN's batches of 128. The process is none the larger for keeping it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)


def usable_processors() -> int:
    """Those that this process may run on; a container often has fewer than its machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_each(children: int) -> int:
    """CPU threads for each of so many trainings at a time; 0 = one alone may choose itself."""
    return max(1, usable_processors() // children) if children > 1 else 0


def machine_bytes() -> int | None:
    """What this process may use in all: the machine's memory, or less in a container or service.

    None where the system doesn't tell.
    """
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    return min([total, *_cgroup_limits()]) if total > 0 else None


def _cgroup_limits() -> list[int]:
    """The memory limits of this process's control groups (version 2), from its own upwards."""
    try:
        lines = Path("/proc/self/cgroup").read_text("ascii").splitlines()
        own = next(line[3:] for line in lines if line.startswith("0::"))
    except (OSError, StopIteration, UnicodeDecodeError):
        return []
    folder = CGROUPS / own.strip("/")
    limits = []
    for each in (folder, *folder.parents):
        if not each.is_relative_to(CGROUPS):
            break
        try:
            limits.append(int((each / "memory.max").read_text("ascii")))
        except (OSError, ValueError):  # the root has none; "max" is no limit
            continue
    return limits


@contextlib.contextmanager
def bounded_memory(limit_bytes: int) -> Iterator[None]:
    """While a stranger's file is read, a demand for more memory in all fails with MemoryError.

    Writable data is limited and not the address space, most of which torch only reserves; and
    only for this while, since a GPU's driver maps more later. Where the system has no such limit
    (it is Linux's) nothing is limited.
    """
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [limit_bytes, *(each for each in (soft, hard) if each != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
