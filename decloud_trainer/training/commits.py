"""A training that commits itself to a chain of versions, without waiting for it."""

from __future__ import annotations

import logging
import string
import threading
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from decloud_trainer.errors import DecloudError, SettingsError
from decloud_trainer.store.chain import Store
from decloud_trainer.store.version import Version
from decloud_trainer.training.checkpoint import Checkpoint
from decloud_trainer.training.snapshots import commit_checkpoint

log = logging.getLogger(__name__)

MESSAGE_FIELDS = ("step", "loss", "batch", "epoch", "accuracy")
DEFAULT_MESSAGE = "Training checkpoint: step={step}, loss={loss:.6f}"
_WHOLE = ("step", "batch", "epoch")
# States that wait for a slow store may take so much memory; then the oldest of them is left out.
MAX_WAITING_BYTES = 512 * 1024**2


@dataclass(frozen=True, slots=True)
class CommitPlan:
    """When a training commits itself, and with which words.

    Attributes:
        auto_commit: at its end.
        commit_interval: and after every so many batches; None = not before the end.
        message: a template; see `check_message`.
    """

    auto_commit: bool = False
    commit_interval: int | None = None
    message: str = DEFAULT_MESSAGE

    def check(self, *, has_store: bool, known: Collection[str] = MESSAGE_FIELDS) -> None:
        """Before anything is trained.

        Raises:
            SettingsError: the parts don't go together, or the template is wrong.
        """
        interval = self.commit_interval
        if (self.auto_commit or interval is not None) and not has_store:
            raise SettingsError(
                "auto_commit or commit_interval requires blockchain_store",
                hint="name a chain of versions to commit to",
            )
        if interval is not None and not self.auto_commit:
            raise SettingsError("commit_interval requires auto_commit", hint="set auto_commit, too")
        if interval is not None and (type(interval) is not int or interval < 1):
            raise SettingsError(f"commit_interval must be 1 or more, not {interval!r}")
        check_message(self.message, known)


def check_message(template: str, known: Collection[str] = MESSAGE_FIELDS) -> None:
    """A template has plain text and fields such as ``{step}`` or ``{loss:.4f}``.

    Raises:
        SettingsError: another field, or a format that such a number can't be shown in.
    """
    try:
        for _, field, _, conversion in string.Formatter().parse(template):
            # Also no attributes or items: a template may be a stranger's.
            if field is not None and field not in known:
                raise SettingsError(
                    f"the commit message has the unknown field {{{field}}}",
                    hint=f"use {', '.join(f'{{{name}}}' for name in known)}",
                )
            if conversion:
                raise SettingsError(f"the commit message converts {{{field}!{conversion}}}")
        filled_message(template, dict.fromkeys(known, 1.5))
    except (ValueError, KeyError, IndexError) as error:
        raise SettingsError(f"the commit message {template!r} can't be filled: {error}") from error


def filled_message(template: str, values: Mapping[str, float | None]) -> str:
    """The template with these values; what isn't known is shown as nan."""
    return template.format_map(
        {
            name: int(value) if name in _WHOLE and value is not None else _number(value)
            for name, value in values.items()
        }
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


@dataclass(frozen=True, slots=True)
class CommitReport:
    """What became of a training's commits.

    Attributes:
        left_out: states that gave their memory to newer ones while the store was slow.
        error: why the last failed one failed.
    """

    committed: int
    failed: int
    left_out: int
    error: str


class Commits:
    """Commits of one training, on a thread of their own. Failures are counted, never raised."""

    def __init__(self, store: Store) -> None:
        self._store = store
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
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                checkpoint, message, metrics = self._waiting.popleft()
            self._commit(checkpoint, message, metrics)

    def _commit(self, checkpoint: Checkpoint, message: str, metrics: dict[str, float]) -> None:
        try:
            self.last = commit_checkpoint(self._store, checkpoint, message, metrics=metrics)
            self._committed += 1
            log.info("%s: committed %s: %s", self._store.where, self.last.name, message)
        except DecloudError as error:
            self._failed += 1
            self._error = error.message
            step = checkpoint.document.get("step")
            log.warning("failed to commit at step %s: %s; training goes on", step, error.message)
