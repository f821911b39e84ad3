"""Which gateways have served well of late, over restarts, too."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from decloud_trainer.files import make_private_dir, write_atomic

# A gateway that nothing is known of counts like one that needs so long for its first byte, and
# what is known fades towards that: a bad day is forgotten.
UNKNOWN_S = 2.0
HALF_LIFE_S = 3600.0
FAILED_S, WRONG_S = 30.0, 300.0
_NEW_PART = 0.5  # of the latest experience in the mean
_MAX_BYTES = 64 * 1024
_MAX_URLS = 100


class Scores:
    """Seconds that each gateway may cost, a moving mean. May be used by several threads."""

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """Kept in the file `path`, if one is given: a damaged or missing one is a fresh start."""
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._known = _load(path) if path else {}

    def order(self, urls: Sequence[str]) -> list[str]:
        """The best first; those that are equal in the order given."""
        with self._lock:
            return sorted(urls, key=self._now)

    def of(self, urls: Sequence[str]) -> dict[str, float]:
        """The seconds that each of them may cost."""
        with self._lock:
            return {url: self._now(url) for url in urls}

    def note(self, url: str, seconds: float) -> None:
        """Take an experience in: seconds to the first byte, or what a failure counts."""
        with self._lock:
            mean = (1 - _NEW_PART) * self._now(url) + _NEW_PART * seconds
            self._known.pop(url, None)
            self._known[url] = (mean, self._clock())
            while len(self._known) > _MAX_URLS:
                del self._known[next(iter(self._known))]
            self._save()

    def _now(self, url: str) -> float:
        mean, noted_at = self._known.get(url, (UNKNOWN_S, 0.0))
        age_s = max(self._clock() - noted_at, 0.0)
        return UNKNOWN_S + (mean - UNKNOWN_S) * math.pow(0.5, age_s / HALF_LIFE_S)

    def _save(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):  # a full disk costs only this knowledge
                write_atomic(self._path, json.dumps(self._known, indent=1).encode())


def _load(path: Path) -> dict[str, tuple[float, float]]:
    make_private_dir(path.parent)
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MAX_BYTES))
        known = {str(url): (float(mean), float(at)) for url, (mean, at) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {
        url: (mean, at)
        for url, (mean, at) in known.items()
        if 0 <= mean <= WRONG_S and math.isfinite(at)
    }
