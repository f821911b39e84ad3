"""A training that commits itself to a chain of versions, without waiting for it.

A training keeps every processor busy, so what a commit computes is taken from it. The commits'
thread therefore gives way to all others as long as training goes on, and works in the moments in
which they wait for each other. On a machine that other programs keep busy it gets hardly anywhere
then; so whoever closes, and waits, has the rest done by a thread that doesn't give way.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping

from decloud_trainer.errors import DecloudError
from decloud_trainer.store.chain import Store
from decloud_trainer.store.version import Version
from decloud_trainer.training.checkpoint import Checkpoint
from decloud_trainer.training.commit_plan import CommitReport
from decloud_trainer.training.snapshots import commit_checkpoint

log = logging.getLogger(__name__)

# States that wait for a slow store may take so much memory; then the oldest of them is left out.
MAX_WAITING_BYTES = 512 * 1024**2
# Of a thread that gives way. Measured: with 15 a commit costs the training a sixth of what it does
# with 0, with 10 a half, with 19 no less.
NICENESS = 15


class _Interrupted(Exception):
    """The commit is to be begun anew by another thread."""


class Commits:
    """Commits of one training, on threads of their own. Failures are counted, never raised.

    Args:
        after: called on that thread with each version; may raise a DecloudError, which is logged.
    """

    def __init__(self, store: Store, after: Callable[[Version], None] = lambda _: None) -> None:
        self._store = store
        self._after = after
        self._is_busy = False
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Checkpoint, str, dict[str, float]]] = deque()
        self._is_closed = False
        self._committed = self._failed = self._left_out = 0
        self._error = ""
        self.last: Version | None = None
        self._thread = threading.Thread(target=self._work_on, name="commits", daemon=True)
        self._thread.start()

    def offer(self, checkpoint: Checkpoint, message: str, metrics: Mapping[str, float]) -> None:
        """Commit it soon, after those that were offered before."""
        with self._changed:
            self._waiting.append((checkpoint, message, dict(metrics)))
            while len(self._waiting) > 1 and self._waiting_bytes() > MAX_WAITING_BYTES:
                self._waiting.popleft()
                self._left_out += 1
            self._changed.notify()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being committed or waits for it."""
        with self._changed:
            return not self._waiting and not self._is_busy

    def _waiting_bytes(self) -> int:
        return sum(
            tensor.nbytes for state, _, _ in self._waiting for tensor in state.tensors.values()
        )

    def close(self) -> CommitReport:
        """Wait until everything that was offered is committed, or has failed."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()
        if self._waiting:
            self._thread = threading.Thread(target=self._work_off, name="commits", daemon=True)
            self._thread.start()
            self._thread.join()
        return CommitReport(self._committed, self._failed, self._left_out, self._error)

    def _work_on(self) -> None:
        """Commit whatever is offered, giving way to the training, until `close`."""
        _give_way()
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
            self._next(self._go_on)

    def _work_off(self) -> None:
        """Commit what is left."""
        while self._waiting:
            self._next(lambda: None)

    def _go_on(self) -> None:
        if self._is_closed:
            raise _Interrupted

    def _next(self, look: Callable[[], None]) -> None:
        with self._changed:
            checkpoint, message, metrics = offered = self._waiting.popleft()
            self._is_busy = True
        try:
            self._commit(checkpoint, message, metrics, look)
        except _Interrupted:
            with self._changed:
                self._waiting.appendleft(offered)
        except Exception:
            # The thread's top: without it the training would go on and keep nothing any more.
            self._failed += 1
            self._error = "unexpected; the log has the details"
            log.exception("step %s can't be committed", checkpoint.document.get("step"))
        finally:
            with self._changed:
                self._is_busy = False

    def _commit(
        self,
        checkpoint: Checkpoint,
        message: str,
        metrics: dict[str, float],
        look: Callable[[], None],
    ) -> None:
        try:
            self.last = commit_checkpoint(
                self._store, checkpoint, message, metrics=metrics, look=look
            )
            self._committed += 1
            log.info("%s: committed %s: %s", self._store.where, self.last.name, message)
            self._clear_up(self.last)
        except DecloudError as error:
            self._failed += 1
            self._error = error.message
            step = checkpoint.document.get("step")
            log.warning("failed to commit at step %s: %s; training goes on", step, error.message)

    def _clear_up(self, version: Version) -> None:
        try:
            self._after(version)
        except DecloudError as error:
            log.warning("after %s of %s: %s", version.name, self._store.where, error.message)


def _give_way() -> None:
    """Let this thread run when no other wants to; only Linux has priorities of single threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            wanted = min(os.getpriority(os.PRIO_PROCESS, thread) + NICENESS, 19)
            os.setpriority(os.PRIO_PROCESS, thread, wanted)
