"""How well an endpoint has served lately, in numbers that put the better one first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Each place further down the user's list counts like a quarter of a second more of latency.
PLACE_S: Final = 0.25
LATENCY_PART: Final = 0.2  # of the newest answer in the moving average
FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0
# Whatever Retry-After says, an endpoint is asked again after so long.
LONGEST_LIMIT_S: Final = 120.0
# An endpoint on another cluster is looked at again after so long.
FOREIGN_REST_S: Final = 300.0
# An endpoint so far behind another one tells the past: 20 seconds on the real network.
MAX_LAG_SLOTS: Final = 50


@dataclass(slots=True)
class Health:
    """One endpoint's record. All times are monotonic seconds.

    Attributes:
        place: in the user's list, from 0.
        latency_s: moving average.
        failures: in a row.
        rests_until: until then it comes after all others.
        limited_until: until then it gets no request at all, since it asked for that.
        slot: the newest that it has shown.
        trouble: what is wrong with it, in words; empty while nothing is.
        is_ours: whether it serves our cluster; None while nobody has asked it.
    """

    place: int
    latency_s: float = 0.0
    failures: int = 0
    rests_until: float = 0.0
    limited_until: float = 0.0
    slot: int = 0
    trouble: str = ""
    is_ours: bool | None = None

    def answered(self, took_s: float) -> None:
        """An answer that is of use came."""
        if self.latency_s:
            self.latency_s += (took_s - self.latency_s) * LATENCY_PART
        else:
            self.latency_s = took_s
        self.failures = 0
        self.rests_until = 0.0
        self.trouble = ""

    def failed(self, trouble: str, now: float, *, retry_after_s: float | None = None) -> None:
        """No answer, a wrong one, an old one, or a plea to ask less."""
        self.failures += 1
        self.trouble = trouble
        rest = min(FIRST_REST_S * 2.0 ** min(self.failures - 1, 10), LONGEST_REST_S)
        self.rests_until = now + rest
        if retry_after_s is not None:
            self.limited_until = now + min(retry_after_s, LONGEST_LIMIT_S)

    def is_foreign(self, trouble: str, now: float) -> None:
        """It serves another cluster: no answer of it means anything to us."""
        self.is_ours = False
        self.trouble = trouble
        self.rests_until = now + FOREIGN_REST_S

    def is_barred(self, now: float) -> bool:
        """Whether it must not be asked at all."""
        return now < self.limited_until or (self.is_ours is False and now < self.rests_until)

    def rank(self, now: float, wait_s: float) -> tuple[bool, float]:
        """The smaller, the sooner it is asked; `wait_s` is what its budget makes us wait."""
        return now < self.rests_until, self.place * PLACE_S + self.latency_s + wait_s
