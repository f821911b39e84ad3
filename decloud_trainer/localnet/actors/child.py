"""How an actor lives as a child process.

The first line on stdin is its settings, a JSON object; the end of stdin means that the parent is
gone, and the actor with it. What it has to report goes to stdout as JSON lines; everything that
libraries print goes to stderr.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from decloud_trainer.errors import DecloudError

log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")
Settings = dict[str, Any]
Report = Callable[..., None]

NICENESS = 5  # the machine belongs to the trainers


def start() -> tuple[Settings, Report]:
    """Take the process over: its settings, and the function that reports events.

    SIGTERM and the end of stdin end the process at once, in the middle of whatever it does: all
    that an actor needs later is on the chain.
    """
    os.nice(NICENESS)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def report(event: str, **fields: Any) -> None:
        with lock:
            out.write(json.dumps({"event": event, **fields}) + "\n")

    settings = json.loads(sys.stdin.readline() or "null")
    if not isinstance(settings, dict):
        os._exit(0)  # the parent went before it had told anything
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return settings, report


def repeat(turn: Callable[[], None], every_s: float) -> None:
    """Take turns for ever. A turn that fails is logged, and the next one tries again."""
    while True:
        try:
            turn()
        except DecloudError as error:
            log.warning("%s: %s", type(error).__name__, error)
        except Exception:  # the actor's top: what failed is in its log, the others go on waiting
            log.exception("a turn failed")
        time.sleep(every_s)


def patiently(action: Callable[[], Outcome]) -> Outcome:
    """What `action` gives, tried again every second for as long as the network is in trouble."""
    while True:
        try:
            return action()
        except DecloudError as error:
            if not error.retryable:
                raise
            log.warning("%s: %s", type(error).__name__, error)
        time.sleep(1.0)


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)
