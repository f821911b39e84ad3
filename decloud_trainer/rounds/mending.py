"""A journal that can't be read is set aside, and a new one begins with what the chain knows.

The chain knows every submission of the wallet, so that rewards are found again and rounds under
way are adopted (see `intake.sweep`). What only the journal knew is named, and the file stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from decloud_trainer.errors import CorruptionError
from decloud_trainer.files import set_aside
from decloud_trainer.rounds.journal import REBUILT, Journal

log = logging.getLogger(__name__)

LOST = (
    "Rewards and rounds under way are found again on chain. Not rebuilt: why rounds were skipped, "
    "the earnings and fees before now (`history`, `stats`), requests of commands that waited, and "
    "transactions that were under way, for which nothing is sent in the next {minutes} minutes"
)


def mend(path: Path, clock: Callable[[], float]) -> str:
    """Make sure that the journal can be read; what was done for that, empty if nothing.

    The caller holds the home's lock.

    Raises:
        DecloudError: it was written by a newer version, or can't be used now.
    """
    from decloud_trainer.rounds.landing import UNKNOWN_S

    if not path.exists():
        return ""
    try:
        _check(path)
    except CorruptionError as damage:
        kept = set_aside(path, clock())
        journal = Journal(path, clock=clock)
        try:
            journal.set_mark(REBUILT, {"at": clock(), "kept_as": kept.name})
        finally:
            journal.close()
        lost = LOST.format(minutes=round(UNKNOWN_S / 60))
        text = f"the journal was damaged ({damage}) and is kept as {kept}. {lost}"
        log.warning("%s", text)
        return text
    return ""


def _check(path: Path) -> None:
    """Raises CorruptionError for a journal that can't be read whole."""
    journal = Journal(path)
    try:
        journal.check()
    finally:
        journal.close()
