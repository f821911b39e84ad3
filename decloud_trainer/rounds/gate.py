"""Whether new rounds are taken at all: steered from outside, asked by every decision."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from decloud_trainer.rounds.entry import State
from decloud_trainer.rounds.watchdog import Ended


class Wish(enum.Enum):
    """What another terminal can ask of a running daemon. Values are what the journal keeps."""

    FINISH = "finish"  # take nothing new, end when what was taken is over
    STOP = "stop"  # end now; rounds go on where they are at the next start


@dataclass(slots=True)
class Gate:
    """Open unless something closes it. Rounds that a user asked for by name go around it.

    Attributes:
        paused: a user wants nothing new for now.
        finishing: why nothing new is taken any more in this session; empty: it is.
        max_rounds: how many rounds this session may take; None: any number.
        taken: ids of the rounds that it has taken, where they are counted; what is skipped again
            doesn't count.
        endings: how often a round of ours has ended in this session.
        ended: how the latest ones ended, as read from the journal, with `endings` at that time.
    """

    paused: bool = False
    finishing: str = ""
    max_rounds: int | None = None
    taken: set[int] = field(default_factory=set)
    endings: int = 0
    ended: tuple[int, tuple[Ended, ...]] | None = None

    def closed(self, round_id: int) -> str:
        """Why this round isn't taken; empty when the gate is open for it."""
        if self.finishing:
            return self.finishing
        if self.paused:
            return "paused: `decloud-trainer resume` goes on"
        if self.is_full and round_id not in self.taken:
            return f"this session takes only {self.max_rounds} rounds"
        return ""

    @property
    def is_full(self) -> bool:
        return self.max_rounds is not None and len(self.taken) >= self.max_rounds

    def moved(self, round_id: int, state: State) -> None:
        """Keep count: called with every move of a row."""
        if state is State.WATCHING and self.max_rounds is not None:
            self.taken.add(round_id)
        elif state is State.SKIPPED:
            self.taken.discard(round_id)
        if state.is_final or state is State.CLAIMABLE:
            self.endings += 1
