"""A training that commits itself to a chain of versions, without waiting for it."""

from __future__ import annotations

import logging
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


class Commits:
    """Commits of one training, on a thread of their own. Failures are counted, never raised.

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
        self._thread = threading.Thread(target=self._work, name="commits", daemon=True)
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
        return CommitReport(self._committed, self._failed, self._left_out, self._error)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                checkpoint, message, metrics = self._waiting.popleft()
                self._is_busy = True
            try:
                self._commit(checkpoint, message, metrics)
            except Exception:
                # The thread's top: without it the training would go on and keep nothing any more.
                self._failed += 1
                self._error = "unexpected; the log has the details"
                log.exception("step %s can't be committed", checkpoint.document.get("step"))

    def _commit(self, checkpoint: Checkpoint, message: str, metrics: dict[str, float]) -> None:
        try:
            self.last = commit_checkpoint(self._store, checkpoint, message, metrics=metrics)
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
