"""A worker as its parent has it: one job in, events out, commands, an exit code."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from decloud_trainer.jobs.supervisor import TRAINING_WORKER

Event = dict[str, Any]
KINDS = ("heartbeat", "progress", "result", "error")
# A worker that doesn't come to an end by then is killed, and so the test doesn't hang.
LONGEST_S = 240.0


class Worker:
    """A worker under way; every line that it writes must be an event.

    Attributes:
        folder: the job's; its file ``worker.log`` has what goes to stderr.
        events: what was read so far.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.events: list[Event] = []

    def say(self, message: Event) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def until(self, kind: str, **wanted: Any) -> Event:
        """Read events up to the first of that kind with these values."""
        for event in self._read():
            if event["event"] == kind and wanted.items() <= event.items():
                return event
        raise AssertionError(f"it ended without {kind} {wanted}: {self.log()}")

    def until_learning(self) -> Event:
        """Read events until a first batch has been learned from; that one."""
        event = self.until("progress", stage="train")
        while not event.get("batch"):
            event = self.until("progress", stage="train")
        return event

    def lose_parent(self) -> None:
        """End its standard input, as its parent's death does."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self, within_s: float = LONGEST_S) -> int:
        """All that it still says, and its exit code; when it goes on for longer, it is killed."""
        with _killing(self.process, within_s):
            for _ in self._read():
                pass
            return self.process.wait()

    def result(self) -> Event:
        """See it out; its result, without which it fails."""
        code = self.end()
        last = self.events[-1] if self.events else {}
        assert (code, last.get("event")) == (0, "result"), (code, last, self.log())
        result: Event = last["result"]
        return result

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def _read(self) -> Iterator[Event]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            assert event["event"] in KINDS, line
            self.events.append(event)
            yield event


@contextmanager
def working(
    folder: Path,
    kind: str,
    spec: Event,
    *,
    worker: Sequence[str] = TRAINING_WORKER,
    env: Mapping[str, str] | None = None,
) -> Iterator[Worker]:
    """A worker that was given this job, in its folder; it is killed in the end.

    Args:
        env: its whole environment; None for ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pipe = subprocess.PIPE
    with (
        (folder / "worker.log").open("ab") as log,
        subprocess.Popen(
            worker,
            stdin=pipe,
            stdout=pipe,
            stderr=log,
            text=True,
            cwd=folder,
            env=env,
            start_new_session=True,
        ) as process,
        _killing(process, LONGEST_S),
    ):
        started = Worker(process, folder)
        try:
            started.say({"kind": kind, "spec": spec, "folder": str(folder)})
            yield started
        finally:
            process.kill()


@contextmanager
def _killing(process: subprocess.Popen[str], after_s: float) -> Iterator[None]:
    """Kill it when what is done here takes so long."""
    tired = threading.Timer(after_s, process.kill)
    tired.start()
    try:
        yield
    finally:
        tired.cancel()
