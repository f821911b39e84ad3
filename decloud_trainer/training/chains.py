"""A training's chain of versions in its own folder: its checkpoints, and what it commits."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from decloud_trainer.errors import CorruptionError, DecloudError
from decloud_trainer.store.backend import Folder
from decloud_trainer.store.chain import Store
from decloud_trainer.store.collect import collect, give_up
from decloud_trainer.store.forwarding import CHAIN, done_up_to
from decloud_trainer.store.version import Version
from decloud_trainer.training.checkpoint import Checkpoint, encode
from decloud_trainer.training.commit_plan import CommitReport
from decloud_trainer.training.commits import Commits
from decloud_trainer.training.snapshots import commit_checkpoint, load_checkpoint

log = logging.getLogger(__name__)

# The newest state, and the one before it in case that one is damaged.
KEPT = 2
# What was asked for and can't go on to its own chain may take so much of the disk.
MAX_WAITING_BYTES = 2 * 1024**3
# The version after a damaged one, so that nothing is shared with that.
EMPTY = Checkpoint({}, {})


class ChainCheckpoints:
    """A run's states as versions of the chain in ``folder/chain``, of which no one else is a
    writer. They are committed on a thread of their own.

    The newest contents stay, and those that wait to go on to another chain, as far as there is
    room. All records stay: the chain can be verified from its first version on.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / CHAIN
        self._store = Store(Folder(path), str(path))
        self._empty = hashlib.sha256(encode(EMPTY)).hexdigest()
        try:
            self._held = self._taken_over()
        except CorruptionError as error:
            log.warning("%s; a new chain of versions is begun", error.message)
            shutil.rmtree(path, ignore_errors=True)
            self._held = []
        except DecloudError as error:
            log.warning("%s can't be read: %s", path, error.message)
            self._held = []
        self._commits = Commits(self._store, self._clear_up)

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep it for resuming; left out while another one is being written."""
        if self.is_idle:
            self._offer(checkpoint, f"checkpoint at step {checkpoint.document.get('step')}", {})

    def commit(self, checkpoint: Checkpoint, message: str, metrics: Mapping[str, float]) -> None:
        """Keep it as a version that was asked for."""
        self._offer(checkpoint, message, metrics)

    def latest(self) -> Checkpoint | None:
        """The newest whole state; damaged ones are told of and never looked at again."""
        damaged = []
        found = None
        while self._held and found is None:
            version = self._held[-1]
            try:
                found = load_checkpoint(self._store, version)
            except DecloudError as error:
                log.warning("%s (%s)", error.message, error.hint or "an older one takes its place")
                damaged.append(self._held.pop())
        if damaged:
            self._leave_behind(damaged)
        return found

    @property
    def is_idle(self) -> bool:
        """Whether everything has been written."""
        return self._commits.is_idle

    def close(self) -> CommitReport:
        return self._commits.close()

    def settle(self) -> None:
        """The run is over: only its newest state stays, and what waits to go on."""
        self.close()
        self._prune(1)

    def _offer(self, checkpoint: Checkpoint, message: str, metrics: Mapping[str, float]) -> None:
        self._commits.offer(checkpoint, message, metrics)

    def _taken_over(self) -> list[Version]:
        """The versions with a content, oldest first; what a crash left behind goes."""
        held = [
            version
            for version in self._store.log()
            if version.content_hash != self._empty and not self._store.is_collected(version)
        ]
        if held:
            collect(self._store, 1, [version.counter for version in held], young_s=0.0)
        return held[::-1]

    def _clear_up(self, newest: Version) -> None:
        self._held.append(newest)
        self._prune(KEPT)

    def _prune(self, newest: int) -> None:
        done, kept, waiting_bytes = done_up_to(self._store), list[Version](), 0
        for number, version in enumerate(reversed(self._held)):
            if version.metrics and version.counter > done:
                waiting_bytes += version.size
            elif number >= newest:
                continue
            if number < newest or waiting_bytes <= MAX_WAITING_BYTES:
                kept.append(version)
        kept.reverse()
        gone = [version for version in self._held if version not in kept]
        if gone:
            give_up(self._store, gone, kept)
            self._held = kept

    def _leave_behind(self, damaged: list[Version]) -> None:
        try:
            commit_checkpoint(self._store, EMPTY, "what came before is damaged")
            give_up(self._store, damaged, self._held)
        except DecloudError as error:
            log.warning("%s: %s", self._store.where, error.message)
