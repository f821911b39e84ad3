"""Values of rounds for tests: whole, with what a test cares about replaced."""

from __future__ import annotations

import dataclasses
from typing import Any

from decloud_trainer.rounds.entry import RowKey
from decloud_trainer.rounds.model import (
    Action,
    ActionKind,
    Costs,
    Dataset,
    Intent,
    Outcome,
    OutcomeState,
    Round,
    RoundStatus,
)
from decloud_trainer.rounds.policy import Situation, Terms

SOL = 10**9
COSTS = Costs(join_rent_lamports=1_733_040, fee_lamports=5_000)
KEY = RowKey("genesis", "program", "wallet", 7)
NOW = 1_800_000_000.0


def a_round(**changes: Any) -> Round:
    """A round of 1 SOL that waits for trainers."""
    status = changes.get("status", RoundStatus.WAITING_TRAINERS)
    base = Round(
        id=7,
        creator="creator",
        model_cid="bafy",
        dataset=Dataset(2, "Mnist"),
        reward_lamports=SOL,
        status=status,
        status_index=list(RoundStatus).index(status),
        validator="validator",
        validator_fee_bps=1000,
        baseline_score=0,
        created_at=int(NOW) - 100,
        validator_deadline=int(NOW) + 3600,
        join_deadline=int(NOW) + 600,
        submit_deadline=0,
        trainers_count=0,
        submissions_count=0,
    )
    return dataclasses.replace(base, **changes)


def terms(**changes: Any) -> Terms:
    base = Terms(
        datasets=frozenset(),
        min_reward_lamports=0,
        max_reward_lamports=0,
        max_concurrent_rounds=1,
        trainable=frozenset({"mnist", "digits"}),
        trained_on={"custom": "digits"},
    )
    return dataclasses.replace(base, **changes)


def situation(**changes: Any) -> Situation:
    base = Situation(now=NOW, balance_lamports=SOL, costs=COSTS, rounds_in_work=0)
    return dataclasses.replace(base, **changes)


def an_intent(
    kind: ActionKind = ActionKind.JOIN, signature: str = "signature", round_id: int = 7
) -> Intent:
    cid = "bafy" if kind is ActionKind.SUBMIT else ""
    return Intent(Action(kind, round_id, cid), signature, b"raw " + signature.encode(), 1000)


def landed(change: int, *, fee: int = 5000, slot: int = 12) -> Outcome:
    return Outcome(OutcomeState.LANDED, slot, fee, change)
