"""The order of steps in each network generation."""

from __future__ import annotations

from decloud_trainer.rounds import rewards, steps
from decloud_trainer.rounds.entry import State
from decloud_trainer.rounds.path import Path

V1 = Path(
    {
        State.SEEN: steps.decide,
        State.SKIPPED: steps.decide,
        State.WATCHING: steps.fetch,
        State.FETCHED: steps.join,
        State.JOINED: steps.train,
        State.TRAINED: steps.pin,
        State.PINNED: steps.submit,
        State.SUBMITTED: rewards.complete,
        State.CLAIMABLE: rewards.claim,
    }
)
