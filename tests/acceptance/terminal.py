"""The command as a user has it: real processes with a home of their own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "decloud_trainer")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line that it printed."""
        return json.loads(self.out.splitlines()[-1])


def run(*words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
    """One command to its end."""
    done = subprocess.run(
        [*COMMAND, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Running:
    """A command that goes on: its lines of JSON as they come, signals, its processes."""

    def __init__(self, *words: str, env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )

    def line(self) -> dict[str, Any]:
        """The next line that it prints; what it complained of, if there is none."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        text = self.process.stdout.readline()
        assert text, self.process.stderr.read()
        return json.loads(text)

    def until(self, **wanted: Any) -> dict[str, Any]:
        """The first line from now on with these values."""
        while True:
            line = self.line()
            if wanted.items() <= line.items():
                return line

    def end(self, number: int) -> Done:
        """Send a signal and see it out."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return Done(self.process.returncode, out, err)


# A process has Ctrl-C only with a terminal that is its own.
START = (
    "import os, sys; os.login_tty(0);"
    "os.execv(sys.executable, [sys.executable, '-m', 'decloud_trainer', *sys.argv[1:]])"
)


class Terminal:
    """A command at a terminal: what it shows, and what is typed."""

    def __init__(self, *words: str, columns: int = 80, env: Mapping[str, str] | None = None):
        self._ours, theirs = os.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **(env or {})},
        )
        os.close(theirs)
        self.shown = ""
        self._read_to = 0

    def wait_for(self, text: str) -> None:
        """Until it has shown this, after what was waited for before."""
        until = time.monotonic() + 30
        while text not in self.shown[self._read_to :]:
            assert time.monotonic() < until, f"no {text!r} in {self.shown!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self.shown += self._read()
        self._read_to = self.shown.index(text, self._read_to) + len(text)

    def answer(self, question: str, text: str) -> None:
        self.wait_for(question)
        self.type(text)

    def type(self, text: str) -> None:
        os.write(self._ours, f"{text}\n".encode())

    def leave(self) -> int:
        """Press Ctrl-C until it has ended; its exit code.

        Python misses one that comes just before it reads; people press it again, too.
        """
        os.write(self._ours, b"\x03")
        return self.end(again=b"\x03")

    def end(self, again: bytes = b"") -> int:
        """See it out; its exit code. One that asks a question more is killed."""
        for _ in range(30):
            while select.select([self._ours], [], [], 1.0)[0]:
                text = self._read()
                if not text:
                    os.close(self._ours)
                    return self._process.wait(30)
                self.shown += text
            os.write(self._ours, again)
        self._process.kill()
        raise AssertionError(f"it goes on after {self.shown!r}")

    def _read(self) -> str:
        try:
            return os.read(self._ours, 65_536).decode()
        except OSError:  # Linux's way to say that nobody is at the other end
            return ""


@contextmanager
def running(*words: str, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    started = Running(*words, env=env)
    try:
        yield started
    finally:
        with started.process as process:  # closes its pipes, even if it ended by itself
            process.kill()


@contextmanager
def local_network(*words: str) -> Iterator[dict[str, Any]]:
    """A `localnet up` on free ports; its endpoints. It must end well, too."""
    free = ("--rpc-port", "0", "--pin-port", "0", "--slot-ms", "100")
    with running("localnet", "up", "--json", *free, *words) as network:
        yield network.line()
        done = network.end(signal.SIGTERM)
    assert (done.code, done.err) == (0, ""), (done.code, done.err)


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, as /proc shows them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _read(entry / "stat")):
            parents[int(entry.name)] = int(stat.rpartition(b")")[2].split()[1])
    found = [pid]
    for parent in found:
        found.extend(child for child, of in parents.items() if of == parent)
    return found[1:]


def worker_of(pid: int, patience_s: float = 20.0) -> int:
    """The id of a training child of `pid`, as soon as there is one."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        for child in descendants(pid):
            if b"training.worker" in _read(Path(f"/proc/{child}/cmdline")):
                return child
        time.sleep(0.02)
    raise AssertionError(f"process {pid} has started no training child")


def told_by(pid: int) -> bytes:
    """What anybody of the same user can read of a process: its arguments and environment."""
    return _read(Path(f"/proc/{pid}/cmdline")) + _read(Path(f"/proc/{pid}/environ"))


def is_gone(pid: int, patience_s: float = 5.0) -> bool:
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        stat = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
        if not stat or stat[0] == b"Z":
            return True
        time.sleep(0.05)
    return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it has ended meanwhile
