"""A training that commits itself to a chain of versions, without waiting for it.

A training keeps every processor busy, so what a commit computes is taken from it. The commits'
thread therefore runs only when no other wants to: in the moments in which the training's threads
wait for each other. Where other programs leave no such moments, it would never be done; so a commit
that takes long, and one that somebody waits for, is begun anew by a thread that doesn't give way.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from decloud_trainer.errors import DecloudError
from decloud_trainer.store.chain import Store
from decloud_trainer.store.version import Version
from decloud_trainer.training.checkpoint import Checkpoint
from decloud_trainer.training.commit_plan import CommitReport
from decloud_trainer.training.snapshots import commit_checkpoint

log = logging.getLogger(__name__)

# States that wait for a slow store may take so much memory; then the oldest of them is left out.
MAX_WAITING_BYTES = 512 * 1024**2
# So long a commit gives way to whatever else there is to do.
PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class _Offered:
    """What is to be committed; `until` the time (monotonic) it may take to give way."""

    checkpoint: Checkpoint
    message: str
    metrics: dict[str, float]
    until: float


class _Interrupted(Exception):
    """The commit is to be begun anew by the other thread."""


class Commits:
    """Commits of one training, one at a time, on threads of their own. Failures are counted, never
    raised.

    Args:
        after: called on one of them with each version; may raise a DecloudError, which is logged.
    """

    def __init__(self, store: Store, after: Callable[[Version], None] = lambda _: None) -> None:
        self._store = store
        self._after = after
        self._is_busy = self._is_urgent = False
        self._changed = threading.Condition()
        self._waiting: deque[_Offered] = deque()
        self._is_closed = False
        self._committed = self._failed = self._left_out = 0
        self._error = ""
        self.last: Version | None = None
        # A thread's policy is that of the one that starts it: the idle one can't start the other.
        self._threads = [
            threading.Thread(target=self._work, args=(gives_way,), name="commits", daemon=True)
            for gives_way in (True, False)
        ]
        for thread in self._threads:
            thread.start()

    def offer(self, checkpoint: Checkpoint, message: str, metrics: Mapping[str, float]) -> None:
        """Commit it soon, after those that were offered before."""
        with self._changed:
            until = time.monotonic() + PATIENCE_S
            self._waiting.append(_Offered(checkpoint, message, dict(metrics), until))
            while len(self._waiting) > 1 and self._waiting_bytes() > MAX_WAITING_BYTES:
                self._waiting.popleft()
                self._left_out += 1
            self._changed.notify_all()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being committed or waits for it."""
        with self._changed:
            return not self._waiting and not self._is_busy

    def _waiting_bytes(self) -> int:
        return sum(
            tensor.nbytes for each in self._waiting for tensor in each.checkpoint.tensors.values()
        )

    def close(self) -> CommitReport:
        """Wait until everything that was offered is committed, or has failed."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        return CommitReport(self._committed, self._failed, self._left_out, self._error)

    def _work(self, gives_way: bool) -> None:
        if gives_way:
            _give_way()
        while (offered := self._take(gives_way)) is not None:
            look = functools.partial(self._go_on, offered.until) if gives_way else lambda: None
            try:
                self._commit(offered, look)
            except _Interrupted:
                with self._changed:
                    self._waiting.appendleft(offered)
                    self._is_urgent = True
            except Exception:
                # The thread's top: without it the training would go on and keep nothing any more.
                self._failed += 1
                self._error = "unexpected; the log has the details"
                log.exception("step %s can't be committed", offered.checkpoint.document.get("step"))
            finally:
                with self._changed:
                    self._is_busy = False
                    self._changed.notify_all()

    def _take(self, gives_way: bool) -> _Offered | None:
        """The next one to be committed by the one thread or the other; None at its end."""

        def is_turn() -> bool:
            if gives_way:
                return self._is_closed or not (
                    self._is_busy or self._is_urgent or not self._waiting
                )
            return not self._is_busy and (self._is_closed or self._is_urgent)

        with self._changed:
            self._changed.wait_for(is_turn)
            if not self._waiting or (gives_way and self._is_closed):
                return None
            offered = self._waiting.popleft()
            self._is_busy = True
            # Those that came meanwhile have waited, too; a later one gives way again.
            self._is_urgent = not gives_way and bool(self._waiting)
            return offered

    def _go_on(self, until: float) -> None:
        if self._is_closed or time.monotonic() > until:
            raise _Interrupted

    def _commit(self, offered: _Offered, look: Callable[[], None]) -> None:
        checkpoint, message = offered.checkpoint, offered.message
        try:
            self.last = commit_checkpoint(
                self._store, checkpoint, message, metrics=offered.metrics, look=look
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
    """Let this thread run when no other wants to; only Linux knows that for single threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # forbidden, as seccomp can: it costs a few per cent
            own = threading.get_native_id()
            os.sched_setscheduler(own, os.SCHED_IDLE, os.sched_param(0))
