"""Where log records go: a file that is kept small, and the terminal when asked."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from pathlib import Path

from decloud_trainer.files import log_dir, make_private_dir
from decloud_trainer.watching.loglines import JsonLines

MAX_LOG_BYTES, KEPT_LOGS = 5_000_000, 3


def log_files(name: str) -> list[Path]:
    """Where the lines of `start_logging(name)` are, the oldest first."""
    ages = (f".{age}" for age in range(KEPT_LOGS, 0, -1))
    return [log_dir() / f"{name}.log{age}" for age in (*ages, "")]


def start_logging(name: str, *, verbose: bool, as_json: bool = False) -> Path:
    """Log to ``NAME.log`` in the log folder (mode 0600), and to stderr: warnings, or all with
    `verbose`. The file's path.

    Args:
        as_json: the file's lines are JSON objects.
    """
    path = make_private_dir(log_dir()) / f"{name}.log"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    keeper = logging.handlers.RotatingFileHandler(
        path, maxBytes=MAX_LOG_BYTES, backupCount=KEPT_LOGS, encoding="utf-8"
    )
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    keeper.setFormatter(JsonLines() if as_json else plain)
    screen = logging.StreamHandler(sys.stderr)
    screen.setLevel(logging.INFO if verbose else logging.WARNING)
    # What the commands print themselves is not printed twice.
    screen.addFilter(lambda record: not record.name.startswith("decloud_trainer.cli"))
    screen.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s: %(message)s", "%H:%M:%S"))
    root = logging.getLogger("decloud_trainer")
    root.setLevel(logging.INFO)
    for earlier in root.handlers:  # of a command before this one in the same process
        earlier.close()
    root.handlers = [keeper, screen]
    root.propagate = False
    return path
