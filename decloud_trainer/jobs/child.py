"""One worker process: started apart from us, heard line by line, ended with all its children."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from decloud_trainer.jobs.model import ChildId, printable

MAX_LINE_BYTES = 1 << 20
_MAX_DEPTH = 30
_LOG_SLACK_BYTES = 64 * 1024
_TAIL_BYTES = 4096
_TOO_LONG = f"wrote a line of more than {MAX_LINE_BYTES:,} bytes"

# What a worker needs of our environment. Keys, tokens and whatever else stands there stay out.
_ALLOWED = (
    "PATH",
    "HOME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "XDG_CACHE_HOME",
    # A folder's name: of the cache where measurements are remembered.
    "DECLOUD_HOME",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)
# Only preparing data goes to the network; a proxy's URL may hold a password.
_ALLOWED_FOR_NETWORK = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    # A mirror of the Hugging Face hub.
    "HF_ENDPOINT",
)


def child_environment(kind: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The few variables of `environ` that a worker of that kind gets."""
    names = _ALLOWED + (_ALLOWED_FOR_NETWORK if kind == "prepare" else ())
    kept = {
        name: value for name, value in environ.items() if name in names or name.startswith("LC_")
    }
    if environ.get("PYTHONPATH"):
        # The child works in another folder, where relative entries would mean something else.
        entries = environ["PYTHONPATH"].split(os.pathsep)
        kept["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in entries)
    return kept


class WorkerLog:
    """A worker's stderr in a file: attempts one below the other, the oldest bytes dropped.

    Losing lines, on a full disk for instance, ends no job.
    """

    def __init__(self, path: Path, *, keep_bytes: int = 256 * 1024) -> None:
        flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW
        self._handle = os.open(path, flags, 0o600)
        self._keep_bytes = keep_bytes
        self._tail = b""

    def write(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        with contextlib.suppress(OSError):
            os.write(self._handle, data)
            size = os.fstat(self._handle).st_size
            if size > self._keep_bytes + _LOG_SLACK_BYTES:
                kept = os.pread(self._handle, self._keep_bytes, size - self._keep_bytes)
                os.ftruncate(self._handle, 0)
                os.write(self._handle, kept)

    def last_lines(self, count: int = 8) -> str:
        """The end of what this attempt wrote, fit to be shown."""
        lines = self._tail.decode("utf-8", "replace").strip().splitlines()
        return printable("\n".join(lines[-count:]))

    def close(self) -> None:
        os.close(self._handle)


class Child(asyncio.SubprocessProtocol):
    """A worker process and what it has said.

    Attributes:
        final: its result or error event, once it has come.
        fault: how it broke the protocol, if it did; nothing is taken from it afterwards.
        spoke: it has said something valid; whoever looks sets it back to False.
        attention: set at its end, its final event and its fault; may be set by others too.
    """

    def __init__(self, log: WorkerLog, on_progress: Callable[[dict[str, Any]], None]) -> None:
        self.log = log
        self.final: dict[str, Any] | None = None
        self.fault = ""
        self.spoke = False
        self.attention = asyncio.Event()
        self._on_progress = on_progress
        self._pending = bytearray()
        self._exited = asyncio.Event()
        self._closed = asyncio.Event()
        self._transport: asyncio.SubprocessTransport

    async def start(self, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> ChildId:
        """Start the process in a session, hence a process group, of its own.

        Raises OSError when the system can't."""
        loop = asyncio.get_running_loop()
        await loop.subprocess_exec(
            lambda: self,
            *command,
            cwd=folder,
            env=dict(env),
            umask=0o077,
            start_new_session=True,
        )
        _volunteer_for_oom(self.pid)
        return ChildId(self.pid, await asyncio.to_thread(process_started, self.pid))

    @property
    def pid(self) -> int:
        """Once it is started. Its process group has the same number."""
        return self._transport.get_pid()

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one JSON line to its stdin; lost if it has closed it or is gone."""
        pipe = self._transport.get_pipe_transport(0)
        if isinstance(pipe, asyncio.WriteTransport) and not pipe.is_closing():
            pipe.write(json.dumps(message, allow_nan=False).encode("ascii") + b"\n")

    @property
    def has_exited(self) -> bool:
        return self._exited.is_set()

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it: negative is a signal's number."""
        return self._transport.get_returncode()

    async def wait(self, seconds: float) -> None:
        """Give it some time to end by itself."""
        await _within(self._exited, seconds)

    async def end(self, grace_s: float) -> None:
        """See the process and its group out: SIGTERM, after `grace_s` SIGKILL, pipes closed."""
        if not self.has_exited:
            pipe = self._transport.get_pipe_transport(0)
            if pipe is not None:
                pipe.close()  # a worker leaves at end of file
            self._signal_group(signal.SIGTERM)
            await _within(self._exited, grace_s)
        # Also when the worker itself is gone: its own children may not be.
        self._signal_group(signal.SIGKILL)
        await _within(self._exited, 5)
        # The pipes end with the last process that holds them; one that fled the group may.
        await _within(self._closed, 1)
        self._transport.close()

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self.log.write(data)
            return
        self._pending += data
        while not self.fault and (length := self._pending.find(b"\n")) >= 0:
            line = bytes(self._pending[:length])
            del self._pending[: length + 1]
            self._take(line)
        if len(self._pending) > MAX_LINE_BYTES:
            self._break(_TOO_LONG)
        if self.fault:
            self._pending.clear()

    def process_exited(self) -> None:
        self._exited.set()
        self.attention.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    def _take(self, line: bytes) -> None:
        if self.final is not None:
            return  # a heartbeat may still have been under way
        if len(line) > MAX_LINE_BYTES:
            self._break(_TOO_LONG)
            return
        event = _parse(line)
        kind = event.pop("event", None) if event is not None else None
        if event is None or kind not in ("heartbeat", "progress", "result", "error"):
            self._break(f"wrote a line that is no event: {printable(repr(line[:80]))}")
            return
        self.spoke = True
        if kind == "progress":
            self._on_progress(event)
        elif kind != "heartbeat":
            self.final = {"event": kind, **event}
            self.attention.set()

    def _break(self, what: str) -> None:
        if not self.fault and self.final is None:
            self.fault = what
            self.attention.set()


def process_started(pid: int) -> str:
    """When the process started, as text that no other process with this number ever has.

    Empty for a process that is gone, or dead and not yet collected."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _process_started_by_ps(pid)
    # The name, in brackets, may itself hold brackets and spaces.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else f"{boot} {fields[19]}"


def _process_started_by_ps(pid: int) -> str:
    command = ("ps", "-o", "stat=,lstart=", "-p", str(pid))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    status, _, started = done.stdout.strip().partition(" ")
    return "" if status.startswith("Z") else started.strip()


async def end_leftover(child: ChildId, *, patience_s: float = 5) -> bool:
    """Kill what a dead supervisor left running; whether the child is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if await asyncio.to_thread(process_started, child.pid) == child.started != "":
            os.killpg(child.pid, signal.SIGKILL)
    deadline = asyncio.get_running_loop().time() + patience_s
    while await asyncio.to_thread(process_started, child.pid) == child.started != "":
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


async def _within(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _volunteer_for_oom(pid: int) -> None:
    """When memory runs out, Linux is to take the worker and not the daemon beside it."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("500", "ascii")


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and _is_flat(event, _MAX_DEPTH) else None


def _is_flat(value: object, most: int) -> bool:
    """Whether it is nested no deeper: what could just be read couldn't always be written again."""
    if isinstance(value, dict):
        return most > 0 and all(_is_flat(part, most - 1) for part in value.values())
    if isinstance(value, list):
        return most > 0 and all(_is_flat(part, most - 1) for part in value)
    return True


# A loss may become NaN or infinite, which Python writes but JSON, and our database, lack.
def _no_number(_: str) -> None:
    return None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
