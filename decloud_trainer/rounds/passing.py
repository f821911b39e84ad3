"""What a round's training commits goes on to the chain that the user named, beside the training.

The training child commits to a chain in its job's folder alone: it has neither network nor keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from decloud_trainer.errors import CorruptionError, DecloudError
from decloud_trainer.rounds.entry import Facts
from decloud_trainer.store.forwarding import CHAIN, forward
from decloud_trainer.store.opening import open_store
from decloud_trainer.training.record import read, write

log = logging.getLogger(__name__)

EVERY_S = 5.0
LONGEST_PAUSE_S = 300.0
# After the training's end the round waits so long for the last versions, and no longer.
ENDING_S = 15.0


def wanted(plan: Mapping[str, Any] | None, facts: Facts) -> Mapping[str, Any] | None:
    """What is to be committed where: as asked for this round, else as for all; None = nothing."""
    return (plan if facts.commits is None else facts.commits) or None


@dataclass(slots=True)
class Passing:
    """The way of one training's versions to a chain. Failures are counted, never raised.

    Attributes:
        chain: the training's own.
        url: of the one they go to.
        metrics: what is added to every version's.
        committed: how many have arrived.
        failed: passes that failed.
        lost: versions that won't arrive.
        error: why the last failed pass did; empty after one that succeeded.
    """

    chain: Path
    url: str
    metrics: Mapping[str, float]
    committed: int = 0
    failed: int = 0
    lost: int = 0
    error: str = ""

    def once(self) -> None:
        """Pass on what there is."""
        try:
            if self.chain.is_symlink() or not self.chain.is_dir():
                return
            done = forward(open_store(str(self.chain)), open_store(self.url), self.metrics)
        except DecloudError as error:
            self.failed += 1
            self.error = error.message
            log.warning(
                "commits of %s can't go on to %s now: %s; the training goes on",
                self.chain.parent.name,
                self.url,
                error.message,
            )
        else:
            self.committed += len(done.versions)
            self.lost += done.lost
            self.error = ""

    async def follow(self, ended: asyncio.Event) -> None:
        """Again and again, once more after the end; more slowly while it fails."""
        pause_s = EVERY_S
        is_last = False
        while not is_last:
            is_last = ended.is_set()
            await asyncio.to_thread(self.once)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S) if self.error else EVERY_S
            if not is_last:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await ended.wait()

    @property
    def trouble(self) -> str:
        """What went wrong, in words; empty when nothing did."""
        said = []
        if self.failed:
            last = f"; the last time: {self.error}" if self.error else ", then succeeded"
            said.append(f"committing to {self.url} failed {self.failed} times{last}")
        if self.lost:
            said.append(f"{self.lost} versions were lost before they were in {self.url}")
        return "; ".join(said)


@contextlib.asynccontextmanager
async def passing_on(passing: Passing) -> AsyncIterator[None]:
    """Pass versions on while the block runs, and for a short while after it."""
    ended = asyncio.Event()
    task = asyncio.create_task(passing.follow(ended))
    patience_s = ENDING_S
    try:
        yield
    except asyncio.CancelledError:
        patience_s = 0.0
        raise
    finally:
        ended.set()
        _, late = await asyncio.wait({task}, timeout=patience_s)
        if late:
            task.cancel()
            passing.failed += 1
            passing.error = passing.error or f"not done within {patience_s:g} s"


def discard(jobs_dir: Path, prefix: str, url: str, metrics: Mapping[str, float]) -> None:
    """Remove the chains of a round that is over, after a last try to pass on what waits in them.

    Args:
        prefix: of the round's jobs' names.
        url: where to; empty = nowhere.
    """
    for chain in _chains(jobs_dir, f"{prefix}-train"):
        if url:
            Passing(chain, url, metrics).once()
        shutil.rmtree(chain, ignore_errors=True)


def _chains(jobs_dir: Path, start: str) -> list[Path]:
    """The chains in folders whose names begin so; looked at one by one, since all rounds that
    ever were trained have theirs there."""
    try:
        with os.scandir(jobs_dir) as folders:
            found = [Path(one.path, CHAIN) for one in folders if one.name.startswith(start)]
    except FileNotFoundError:
        return []
    return sorted(chain for chain in found if chain.is_dir())


def note(record: Path, sentence: str) -> None:
    """Add a sentence to a run's record; one that can't be read stays as it is."""
    try:
        found = read(record)
        write(record.parent, replace(found, notes=(*found.notes, sentence)))
    except (CorruptionError, OSError) as error:
        log.warning("%s: %s", record, error)
