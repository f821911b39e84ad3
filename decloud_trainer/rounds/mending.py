"""A journal that can't be read is set aside, and a new one begins with what the chain knows.

The chain knows every submission of the wallet, so that rewards are found again and rounds under
way are adopted (see `intake.sweep`). What only the journal knew is named, and the file stays.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

from decloud_trainer.errors import CorruptionError
from decloud_trainer.files import set_aside
from decloud_trainer.rounds import intents
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.journal_rows import entry_of, request_of, sent_intent_of
from decloud_trainer.rounds.landing import UNKNOWN_S
from decloud_trainer.rounds.marks import REBUILT, mark_of, set_mark
from decloud_trainer.rounds.transfers import transfer_of

log = logging.getLogger(__name__)

LOST = (
    "Rewards and rounds under way are found again on chain. Not rebuilt: why rounds were skipped, "
    "the earnings and fees before now (`earnings`), requests of commands that waited, and "
    "transactions that were under way, for which nothing is sent in the next {minutes} minutes"
)
# What is read of it, and by what.
READ: tuple[tuple[str, Callable[[sqlite3.Row], object]], ...] = (
    ("SELECT * FROM rounds", entry_of),
    (intents.ALL, sent_intent_of),
    ("SELECT * FROM transfers", transfer_of),
    ("SELECT * FROM requests WHERE state = 'new'", request_of),
    ("SELECT * FROM marks", mark_of),
)


def mend(path: Path, clock: Callable[[], float]) -> str:
    """Make sure that the journal can be read; what was done for that, empty if nothing.

    The caller holds the home's lock.

    Raises:
        DecloudError: it was written by a newer version, or can't be used now.
    """
    if not path.exists():
        return ""
    try:
        _check(path)
    except CorruptionError as damage:
        kept = set_aside(path, clock())
        with contextlib.closing(Journal(path, clock=clock)) as journal:
            set_mark(journal, REBUILT, {"at": clock(), "kept_as": kept.name})
        lost = LOST.format(minutes=round(UNKNOWN_S / 60))
        text = f"the journal was damaged ({damage}) and is kept as {kept}. {lost}"
        log.warning("%s", text)
        return text
    return ""


def _check(path: Path) -> None:
    """Have every page looked at, and read all that a daemon may ever read.

    Raises:
        CorruptionError: something can't be read.
    """
    with contextlib.closing(Journal(path)) as journal:
        journal.check()
        for query, read in READ:
            # Closed before the file is moved: a reader that is left would still have it open.
            with contextlib.closing(journal.each(query)) as rows:
                for row in rows:
                    read(row)
