"""The training child: one job in, events out. ``python -m decloud_trainer.training.worker``

The first line on stdin is the job: ``{"kind": ..., "spec": {...}, "folder": "/abs"}``; later lines
are ``{"command": "stop"}`` (finish with the best state so far) or ``{"command": "cancel"}`` (end at
once, no result). The end of stdin means that the parent is gone: the child ends with it. SIGTERM
ends it at once as well; every file is written atomically, so there is nothing to tidy up. A
training that ended so, or was killed, goes on from its last checkpoint when the same job is begun
again in the same folder: about `checkpoint_every_s` is lost. The checkpoints are versions of a
chain in the folder, and so are the commits that were asked for.

stdout carries JSON lines: a heartbeat each second, progress, and one result or error. Whatever a
library prints goes to stderr. Exit codes: 0 after a result, 1 after an error, 130 after a cancel,
71 when memory ran out: without a result, so that the parent tries again with less at a time.

As soon as the job is known the process gives up all rights that it doesn't need for it, see
`sandbox`. With the argument ``--no-sandbox`` it keeps them.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from decloud_trainer.errors import DecloudError, JobFailed, SettingsError, StorageError
from decloud_trainer.training import limits, sandbox
from decloud_trainer.training.results import Progress
from decloud_trainer.training.spec import InspectSpec, PrepareSpec, Spec, TrainSpec

HEARTBEAT_S = 1.0
MAX_LINE_BYTES = 1024**2
NO_SANDBOX = "--no-sandbox"
_DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
EXIT_ERROR, EXIT_CANCELLED, EXIT_MEMORY = 1, 130, 71

KINDS: dict[str, type[Spec]] = {
    "inspect": InspectSpec,
    "prepare": PrepareSpec,
    "train": TrainSpec,
}


class Events:
    """The line to the parent; several threads write to it."""

    def __init__(self) -> None:
        """Take stdout for events alone; prints of anyone else go to stderr from here on."""
        self._handle = os.dup(1)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields}, allow_nan=False).encode() + b"\n"
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._handle, line) :]
            except OSError:
                os._exit(EXIT_ERROR)  # nobody listens any more

    def progress(self, progress: Progress) -> None:
        self.send("progress", **progress.to_json())


class Commands:
    """Lines from the parent. Reads the descriptor itself: a buffered reader has a lock that a
    thread waiting for input would hold at exit."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._buffer = b""
        self.stop = threading.Event()

    def read_line(self) -> bytes:
        """The next line; empty at the end of input."""
        while b"\n" not in self._buffer and len(self._buffer) <= MAX_LINE_BYTES:
            piece = os.read(self._handle, 65536)
            if not piece:
                return b""
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def follow(self) -> NoReturn:
        """Obey until the end. Ends the whole process on a cancel and when the parent is gone."""
        while line := self.read_line():
            command = _command(line)
            if command == "stop":
                self.stop.set()
            elif command == "cancel":
                os._exit(EXIT_CANCELLED)
            else:
                logging.warning("ignored an unknown command: %r", line[:200])
        os._exit(EXIT_ERROR)


def _command(line: bytes) -> object:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message.get("command") if isinstance(message, dict) else None


def read_job(line: bytes) -> tuple[Spec, Path]:
    """The job on the first line.

    Raises:
        SettingsError: it isn't one.
    """
    try:
        job = json.loads(line)
    except ValueError as error:
        raise SettingsError(f"the job is no JSON: {error}") from error
    if not isinstance(job, dict) or set(job) != {"kind", "spec", "folder"}:
        raise SettingsError("a job has exactly the fields kind, spec and folder")
    if job["kind"] not in KINDS:
        raise SettingsError(f"job kind {job['kind']!r} is none of {', '.join(KINDS)}")
    folder = Path(str(job["folder"]))
    if not folder.is_absolute() or not folder.is_dir():
        raise SettingsError(f"the job's folder {folder} is no existing absolute path")
    return KINDS[job["kind"]].from_json(job["spec"]), folder


def run(spec: Spec, folder: Path, events: Events, commands: Commands) -> dict[str, Any]:
    """Do the job and give its result as JSON."""
    # Imported here: torch takes seconds and memory. A wrong spec shall fail before that, and
    # preparing data needs none.
    if isinstance(spec, PrepareSpec):
        from decloud_trainer.training.data import datasets

        prepared = datasets.prepare(spec.data, events.progress, cache_bytes=spec.cache_bytes)
        return prepared.to_json()

    limits.ready_for_torch()
    import torch

    from decloud_trainer.training import inspection, runs
    from decloud_trainer.training.chains import ChainCheckpoints
    from decloud_trainer.training.hooks import Hooks

    # Numbers below 1e-38 are computed in microcode: a model full of them trained 20 times slower.
    # As zero they cost nothing. Threads that torch starts from here on do the same.
    torch.set_flush_denormal(True)
    if isinstance(spec, InspectSpec):
        hooks = Hooks(time.time, events.progress, commands.stop.is_set)
        return inspection.inspect_model(spec, hooks).to_json()
    checkpoints = ChainCheckpoints(folder)
    hooks = Hooks(time.time, events.progress, commands.stop.is_set, checkpoints)
    result = runs.train_model(spec, folder, hooks).to_json()
    checkpoints.settle()
    return result


def _beat(events: Events) -> None:
    while True:
        events.send("heartbeat")
        time.sleep(HEARTBEAT_S)


def _error_event(events: Events, error: DecloudError) -> None:
    fields = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
    events.send("error", error=fields)


def _of_disk(error: OSError) -> DecloudError:
    """A full or failing disk is worth another try, any other refusal of the system isn't."""
    if error.errno in _DISK_TROUBLE:
        where = f" {error.filename}" if error.filename else ""
        hint = "free space, or mend the disk: the job is tried again"
        return StorageError(f"can't write{where}: {error.strerror}", hint=hint)
    return _unexpected(error)


def _unexpected(error: Exception) -> JobFailed:
    message = f"{type(error).__name__}: {error}"[:2000]
    return JobFailed(message, hint="the trace is in worker.log, in the job's folder")


def main() -> int:
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    limits.forbid_core_dumps()
    events, commands = Events(), Commands(0)
    line = commands.read_line()
    if not line:
        return EXIT_ERROR
    try:
        spec, folder = read_job(line)
        if NO_SANDBOX not in sys.argv[1:]:
            # Before there is a thread, which would keep its rights.
            for missing in sandbox.enter(spec, folder).missing:
                logging.warning("%s", missing)
        threading.Thread(target=_beat, args=(events,), daemon=True).start()
        threading.Thread(target=commands.follow, daemon=True).start()
        result = run(spec, folder, events, commands)
    except DecloudError as error:
        _error_event(events, error)
        return EXIT_ERROR
    except MemoryError:
        # Without a result: the parent tries again with settings that need less.
        logging.exception("out of memory")
        return EXIT_MEMORY
    except OSError as error:
        logging.exception("the job failed")
        _error_event(events, _of_disk(error))
        return EXIT_ERROR
    except Exception as error:
        # The child's top: whatever it is, the parent hears of it.
        logging.exception("the job failed")
        _error_event(events, _unexpected(error))
        return EXIT_ERROR
    events.send("result", result=result)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Without the interpreter's clean-up: threads are waiting in system calls, nothing is open.
    os._exit(code)
