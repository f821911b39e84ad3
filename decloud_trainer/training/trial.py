"""What a worker can still do here, found by trying. ``python -m decloud_trainer.training.trial``

It enters the sandbox as a worker does and then tries what a hijacked worker would. The first line
on stdin is a job as for `worker`, the second one the targets, a JSON object:

    port     of a server on 127.0.0.1
    socket   the path of a UNIX socket's server
    read     paths of files that nobody shall read
    write    a folder that nobody shall write to
    mode     a file whose mode nobody shall change

One JSON object comes out: ``landlock`` and ``missing`` as in `sandbox.Walls`, ``possible``: the
names of the attempts that worked, and ``limits``: bytes and seconds, by name.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from decloud_trainer.training import sandbox
from decloud_trainer.training.worker import NO_SANDBOX, read_job

LIMITS = {
    "memory_bytes": resource.RLIMIT_DATA,
    "file_bytes": resource.RLIMIT_FSIZE,
    "cpu_s": resource.RLIMIT_CPU,
    "open_files": resource.RLIMIT_NOFILE,
    "core_bytes": resource.RLIMIT_CORE,
}


def attempts(targets: Mapping[str, Any]) -> dict[str, Callable[[], object]]:
    """Each raises OSError where it is forbidden. Nothing of it does any harm where it isn't."""
    server = ("127.0.0.1", int(targets["port"]))
    tried: dict[str, Callable[[], object]] = {
        "connect": lambda: _connect(socket.AF_INET, server),
        "send a datagram": lambda: _datagram(server),
        "connect to a local service": lambda: _connect(socket.AF_UNIX, targets["socket"]),
        "write elsewhere": lambda: (Path(targets["write"]) / "written").write_bytes(b"x"),
        "change a mode": lambda: os.chmod(targets["mode"], 0o600),
        "look at the daemon": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
        "signal the daemon": lambda: os.kill(os.getppid(), 0),
        "start a program": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
        "start a process": _fork,
    }
    for path in targets["read"]:
        tried[f"read {path}"] = lambda path=path: Path(path).read_bytes()  # type: ignore[misc]
    return tried


def _connect(family: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.settimeout(5)
        tried.connect(address)


def _datagram(address: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        tried.sendto(b"x", address)


def _fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def main() -> int:
    spec, folder = read_job(sys.stdin.buffer.readline())
    targets = json.loads(sys.stdin.buffer.readline())
    walls = sandbox.Walls(0, False, ("it is switched off",))
    if NO_SANDBOX not in sys.argv[1:]:
        walls = sandbox.enter(spec, folder)
    possible = []
    for name, attempt in attempts(targets).items():
        try:
            attempt()
        except OSError:
            continue
        possible.append(name)
    found = {name: resource.getrlimit(kind)[1] for name, kind in LIMITS.items()}
    told = {
        "landlock": walls.landlock,
        "missing": walls.missing,
        "possible": possible,
        "limits": {k: v for k, v in found.items() if v != resource.RLIM_INFINITY},
    }
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
