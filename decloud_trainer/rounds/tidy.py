"""What a finished round leaves on disk, and what of it stays."""

from __future__ import annotations

import contextlib
from pathlib import Path

from decloud_trainer.rounds.entry import Facts


def discard_artifact(facts: Facts) -> None:
    """Remove the uploaded file of a round that is over. Its CID, record and log stay."""
    if facts.artifact:
        with contextlib.suppress(OSError):  # a leftover costs only its space
            Path(facts.artifact).unlink(missing_ok=True)
