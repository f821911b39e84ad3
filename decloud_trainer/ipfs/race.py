"""Blocking calls side by side, so that one that hangs holds up no other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from decloud_trainer.errors import DecloudError, GatewayError

Result = TypeVar("Result")


class Race(Generic[Result]):
    """Calls in threads of their own, told as they end.

    The threads are daemons: a socket can't be woken from another thread in a way that all
    systems know, so a call that nobody needs any more ends by itself, at its next byte or
    time-out, and neither its caller nor the end of the program waits for that.
    """

    def __init__(self) -> None:
        self.running: set[str] = set()
        self._ended: queue.SimpleQueue[tuple[str, Result | DecloudError]] = queue.SimpleQueue()

    def start(self, name: str, call: Callable[[], Result]) -> None:
        self.running.add(name)
        thread = threading.Thread(target=self._run, args=(name, call), daemon=True)
        thread.name = f"ipfs {name}"
        thread.start()

    def wait(self, timeout_s: float) -> tuple[str, Result | DecloudError] | None:
        """The next call that has ended, with its result or error; None if none has in time."""
        try:
            name, outcome = self._ended.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self.running.discard(name)
        return name, outcome

    def _run(self, name: str, call: Callable[[], Result]) -> None:
        # A defect ends the thread with a traceback; whoever waits must hear of it all the same.
        outcome: Result | DecloudError = GatewayError("its reader broke down: a defect")
        try:
            outcome = call()
        except DecloudError as error:
            outcome = error
        finally:
            self._ended.put((name, outcome))
