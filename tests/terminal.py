"""The command as a user has it: real processes with a home of their own, or in this process."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, NamedTuple
from unittest.mock import patch

from decloud_trainer.cli.main import main

# Of a command that waits for others; then it is killed, and so the test doesn't hang.
LONGEST_S = 240.0
COMMAND = (sys.executable, "-m", "decloud_trainer")


class Done(NamedTuple):
    """An ended command: exit code, and all that it printed."""

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


class Here:
    """Commands in this process: what `run` gives, without importing everything anew."""

    def __call__(self, *words: str, stdin: str = "") -> Done:
        out, err = io.StringIO(), io.StringIO()
        with (
            redirect_stdout(out),
            redirect_stderr(err),
            patch("sys.stdin", io.StringIO(stdin)),
            patch.dict(os.environ, {"COLUMNS": "80"}),
        ):
            code = main(words)
        return Done(code, out.getvalue(), err.getvalue())

    def out(self, *words: str) -> str:
        """What one prints that must not fail."""
        done = self(*words)
        assert done.code == 0, (words, done)
        return done.out

    def json(self, *words: str) -> Any:
        """The JSON of one that must not fail."""
        return json.loads(self.out(*words, "--json"))

    def refused(self, *words: str, code: int = 2) -> str:
        """What one complains of that must fail, and print nothing else."""
        done = self(*words)
        assert (done.code, done.out) == (code, ""), (words, done)
        return done.err


here = Here()


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
        return self.finished()

    def finished(self) -> Done:
        """See it out; what it printed that nobody has read."""
        out, err = self.process.communicate(timeout=60)
        return Done(self.process.returncode, out, err)


# A process has Ctrl-C only with a terminal that is its own.
START = (
    "import os, sys; os.login_tty(0);"
    "os.execv(sys.executable, [sys.executable, '-m', 'decloud_trainer', *sys.argv[1:]])"
)


class Terminal:
    """A command at a terminal: what it shows, and what is typed. Leaving it ends the command."""

    def __init__(
        self, *words: str, columns: int = 80, env: Mapping[str, str] | None = None
    ) -> None:
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

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:
            process.kill()
        os.close(self._ours)

    def wait_for(self, text: str) -> None:
        """Until it has shown this, after what was waited for before."""
        until = time.monotonic() + 30
        while text not in self.shown[self._read_to :]:
            assert time.monotonic() < until, f"no {text!r} in {self.shown!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                more = self._read()
                assert more, f"it ended without {text!r} in {self.shown!r}"
                self.shown += more
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
        """See it out; its exit code. One that asks a question more doesn't end."""
        for _ in range(30):
            while select.select([self._ours], [], [], 1.0)[0]:
                text = self._read()
                if not text:
                    return self._process.wait(30)
                self.shown += text
            os.write(self._ours, again)
        raise AssertionError(f"it goes on after {self.shown!r}")

    def _read(self) -> str:
        try:
            return os.read(self._ours, 65_536).decode()
        except OSError:  # Linux's way to say that nobody is at the other end
            return ""


AtTerminal = Callable[..., Terminal]


@contextmanager
def running(*words: str, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """A command that goes on; it is killed in the end."""
    started = Running(*words, env=env)
    with started.process as process:  # closes its pipes, even if it ended by itself
        tired = threading.Timer(LONGEST_S, process.kill)
        tired.start()
        try:
            yield started
        finally:
            tired.cancel()
            process.kill()


@contextmanager
def local_network(*words: str) -> Iterator[dict[str, Any]]:
    """A `localnet up` on free ports; its endpoints. It must end well, too."""
    free = ("--rpc-port", "0", "--pin-port", "0", "--slot-ms", "100")
    with running("localnet", "up", "--json", *free, *words) as network:
        yield network.line()
        done = network.end(signal.SIGTERM)
    assert (done.code, done.err) == (0, ""), (done.code, done.err)
