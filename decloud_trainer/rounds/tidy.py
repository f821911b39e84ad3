"""What a finished round leaves on disk, and what of it stays."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from decloud_trainer.faultpoints import reach
from decloud_trainer.rounds.entry import Entry, Facts
from decloud_trainer.rounds.models import prune_models
from decloud_trainer.rounds.parts import Parts
from decloud_trainer.rounds.training_jobs import discard_chains


async def tidy(parts: Parts, entry: Entry) -> None:
    """Remove what a round that is over doesn't need: its upload, its chains, models over the limit.

    Its CID, record and log stay."""
    reach("artifact.discarding")
    await asyncio.to_thread(discard_artifact, entry.facts)
    await discard_chains(parts, entry)
    await prune_models(parts)


def discard_artifact(facts: Facts) -> None:
    """Remove the uploaded file."""
    if facts.artifact:
        with contextlib.suppress(OSError):  # a leftover costs only its space
            Path(facts.artifact).unlink(missing_ok=True)
