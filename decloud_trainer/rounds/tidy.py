"""What a finished round leaves on disk, and how much of it stays."""

from __future__ import annotations

import contextlib
from pathlib import Path

from decloud_trainer.rounds.entry import Facts

# Models are kept for later rounds about the same one: fetching takes a part of the time to join.
MAX_MODELS_BYTES = 2 * 1024**3


def discard_artifact(facts: Facts) -> None:
    """Remove the uploaded file of a round that is over. Its CID, record and log stay."""
    if facts.artifact:
        with contextlib.suppress(OSError):  # a leftover costs only its space
            Path(facts.artifact).unlink(missing_ok=True)


def prune_models(folder: Path, max_bytes: int = MAX_MODELS_BYTES) -> None:
    """Remove the models that were fetched the longest time ago, down to `max_bytes` in all."""
    with contextlib.suppress(OSError):
        found = [(path.stat(), path) for path in folder.glob("*.pt")]
        spare = sum(stat.st_size for stat, _ in found) - max_bytes
        for stat, path in sorted(found, key=lambda item: item[0].st_mtime):
            if spare <= 0:
                return
            path.unlink(missing_ok=True)
            spare -= stat.st_size
