"""One idempotent function per step of a round's life.

A step reads the chain, does its work and says where the row goes (`Move`) or that it stays
(`Wait`). It may be run again after a crash at any point: work may be done twice, money moves
once, because every transaction goes through `land`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decloud_trainer.errors import PinRefused, RoundError, TrainingError, UntrustedData
from decloud_trainer.files import sha256_file
from decloud_trainer.money import format_sol
from decloud_trainer.rounds import policy
from decloud_trainer.rounds.entry import Entry, Facts, State
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.landing import land, settle_open
from decloud_trainer.rounds.model import (
    Action,
    ActionKind,
    Outcome,
    OutcomeState,
    Round,
    RoundStatus,
    Submission,
)
from decloud_trainer.rounds.parts import Move, Parts, Result, Wait
from decloud_trainer.rounds.training_jobs import prepare_round, train_round

# A row in this time's future is due only when its round changes or the user asks.
NEVER = 1e12
# Between two looks at a round when no event says that it changed.
RECHECK_S = 30.0
# Kept free before submit_deadline for pinning and landing the submission: at most this, and at
# most this part of what is left.
SUBMIT_MARGIN_S = 45.0
SUBMIT_MARGIN_PART = 0.25
# An adopted round (another machine may be at work on it) is trained when so little is left.
ADOPT_WITHIN_S = 600.0


async def decide(parts: Parts, entry: Entry) -> Result:
    """SEEN, SKIPPED -> WATCHING or SKIPPED: is this round worth it?"""
    round = await read_round(parts, entry)
    if await parts.chain.submission(round.id) is not None and not round.status.is_over:
        return Move(State.JOINED, "already joined", entry.facts)
    decision = await _decision(parts, entry, round)
    if decision.take:
        return Move(State.WATCHING, decision.reason, entry.facts)
    joinable = round.status in (RoundStatus.WAITING_VALIDATOR, RoundStatus.WAITING_TRAINERS)
    pause = NEVER if entry.facts.refused or not joinable else RECHECK_S
    if entry.state is State.SKIPPED:
        return Wait(decision.reason, pause, entry.facts)
    return Move(State.SKIPPED, decision.reason, entry.facts)


async def fetch(parts: Parts, entry: Entry) -> Result:
    """WATCHING -> FETCHED: the data is ready, the model verified and recognised.

    All of it before joining, since a join costs rent that never comes back."""
    round = await read_round(parts, entry)
    decision = await _decision(parts, entry, round)
    if not decision.take:
        return Move(State.SKIPPED, decision.reason, entry.facts)
    key = parts.terms.data_for(round.dataset.key)
    assert key is not None, "a decision to take it implies data"
    try:
        facts = await prepare_round(parts, entry, round, key)
    except (TrainingError, UntrustedData) as error:
        refused = dataclasses.replace(entry.facts, refused=str(error))
        return Move(State.SKIPPED, f"can't be trained here: {error}", refused)
    reason = f"model verified: {facts.architecture}, {facts.parameters:,} parameters"
    return Move(State.FETCHED, reason, facts)


async def join(parts: Parts, entry: Entry) -> Result:
    """FETCHED -> JOINED, as soon as the round can be joined."""
    round = await read_round(parts, entry)
    outcome = await settle_open(parts, entry, ActionKind.JOIN)
    if await parts.chain.submission(round.id) is not None:
        return Move(State.JOINED, _landed(outcome, "joined"), entry.facts)
    decision = await _decision(parts, entry, round)
    if not decision.take:
        return Move(State.SKIPPED, decision.reason, entry.facts)
    if round.status is RoundStatus.WAITING_VALIDATOR:
        return Wait("waiting for a validator to take the round", RECHECK_S, entry.facts)
    outcome = await land(parts, entry, Action(ActionKind.JOIN, round.id))
    if outcome.state is OutcomeState.LANDED:
        return Move(State.JOINED, _landed(outcome, "joined"), entry.facts)
    if outcome.state is OutcomeState.EXPIRED:
        return Wait("the join never landed; trying again", 0, entry.facts)
    if await parts.chain.submission(round.id) is not None:
        return Move(State.JOINED, "already joined", entry.facts)
    return Move(State.SKIPPED, f"the join was refused: {outcome.error}", entry.facts)


async def train(parts: Parts, entry: Entry) -> Result:
    """JOINED -> TRAINED: wait for the training phase, then train until the deadline at most."""
    round = await read_round(parts, entry)
    submission = await parts.chain.submission(round.id)
    if submission is not None and submission.submitted:
        return Move(State.SUBMITTED, "already submitted", _with_cid(entry.facts, submission))
    facts = entry.facts
    if round.status is RoundStatus.WAITING_TRAINERS:
        return Wait("joined; waiting for the training phase", RECHECK_S, facts)
    if round.status is not RoundStatus.TRAINING:
        return _too_late(round, facts)
    now = parts.clock()
    left = round.submit_deadline - now
    if left <= 0:
        return Move(State.LOST, "the submit deadline passed before training", facts)
    if not facts.asked_train:
        if not parts.terms.auto_train:
            reason = f"auto_train is off: `decloud-trainer train {round.id}` trains it"
            return Wait(reason, RECHECK_S, facts)
        if facts.adopted and left > ADOPT_WITHIN_S:
            reason = "joined elsewhere; `decloud-trainer train` or a near deadline starts it here"
            return Wait(reason, min(RECHECK_S, left - ADOPT_WITHIN_S), facts)
    if not facts.model_sha256:  # joined by another run or machine
        key = parts.terms.data_for(round.dataset.key)
        if key is None:
            raise TrainingError(f"Dataset not found: {round.dataset} can't be trained here")
        facts = await prepare_round(parts, entry, round, key)
    deadline = round.submit_deadline - min(SUBMIT_MARGIN_S, left * SUBMIT_MARGIN_PART)
    result = await train_round(parts, entry, facts, round, parts.to_local(deadline))
    preview = result.get("preview") or {}
    folder = Path(result["folder"])
    facts = dataclasses.replace(
        facts,
        artifact=str(folder / result["artifact"]),
        artifact_sha256=result["sha256"],
        preview_before=preview.get("before"),
        preview_after=preview.get("after"),
    )
    return Move(State.TRAINED, _trained(result, facts), facts)


async def pin(parts: Parts, entry: Entry) -> Result:
    """TRAINED -> PINNED: is it worth submitting? Then make the artefact public."""
    round = await read_round(parts, entry)
    if round.status is not RoundStatus.TRAINING or parts.clock() > round.submit_deadline:
        return _too_late(round, entry.facts)
    costs = await parts.chain.costs()
    decision = policy.decide_submission(
        round, parts.terms, costs, improvement=entry.facts.improvement
    )
    if not decision.take:
        return Move(State.LOST, f"not submitted: {decision.reason}", entry.facts)
    artifact = Path(entry.facts.artifact)
    if not await asyncio.to_thread(_is_intact, artifact, entry.facts.artifact_sha256):
        return Move(State.JOINED, "the trained artefact is gone: training again", entry.facts)
    try:
        cid = await parts.pins.pin(artifact, name=f"gradient_round_{round.id}.pt")
    except PinRefused as error:
        # The user can mend this while the round is open: keep trying, keep saying so.
        return Wait(f"{error} {error.hint}".strip(), 20.0, entry.facts)
    facts = dataclasses.replace(entry.facts, gradient_cid=cid)
    return Move(State.PINNED, f"pinned {cid} ({decision.reason})", facts)


async def submit(parts: Parts, entry: Entry) -> Result:
    """PINNED -> SUBMITTED: one shot; the chain takes no second submission."""
    round = await read_round(parts, entry)
    outcome = await settle_open(parts, entry, ActionKind.SUBMIT)
    submission = await parts.chain.submission(round.id)
    if submission is not None and submission.submitted:
        facts = _with_cid(entry.facts, submission)
        return Move(State.SUBMITTED, _landed(outcome, "submitted"), facts)
    if outcome is not None and outcome.state is OutcomeState.LANDED:
        return Move(State.SUBMITTED, _landed(outcome, "submitted"), entry.facts)
    if round.status is not RoundStatus.TRAINING or parts.clock() > round.submit_deadline:
        return _too_late(round, entry.facts)
    action = Action(ActionKind.SUBMIT, round.id, entry.facts.gradient_cid)
    outcome = await land(parts, entry, action)
    if outcome.state is OutcomeState.LANDED:
        return Move(State.SUBMITTED, _landed(outcome, "submitted"), entry.facts)
    if outcome.state is OutcomeState.EXPIRED:
        return Wait("the submission never landed; trying again", 0, entry.facts)
    return Wait(f"the submission was refused: {outcome.error}", 5.0, entry.facts)


async def complete(parts: Parts, entry: Entry) -> Result:
    """SUBMITTED -> CLAIMABLE, when the validator has scored and completed the round."""
    round = await read_round(parts, entry)
    if round.status in (RoundStatus.EXPIRED, RoundStatus.CANCELLED):
        return Move(State.LOST, f"the round ended {round.status.value}: no rewards", entry.facts)
    if round.status is not RoundStatus.COMPLETED:
        return Wait("submitted; waiting for the validator", RECHECK_S, entry.facts)
    submission = await parts.chain.submission(round.id)
    if submission is None:
        return Wait("the chain doesn't show our submission yet", 5.0, entry.facts)
    facts = dataclasses.replace(entry.facts, contribution_bps=submission.contribution_bps)
    share = f"share {submission.contribution_bps / 100:.2f} %"
    if submission.reward_claimed:
        return Move(State.CLAIMED, f"{share}; already claimed", facts)
    if not submission.submitted:
        return Move(State.LOST, "the round completed without our submission", facts)
    if submission.contribution_bps == 0:
        return Move(State.LOST, "the validator gave our submission no share", facts)
    return Move(State.CLAIMABLE, f"completed: {share}", facts)


async def claim(parts: Parts, entry: Entry) -> Result:
    """CLAIMABLE -> CLAIMED."""
    round = await read_round(parts, entry)
    outcome = await settle_open(parts, entry, ActionKind.CLAIM)
    submission = await parts.chain.submission(round.id)
    if outcome is not None and outcome.state is OutcomeState.LANDED:
        return Move(State.CLAIMED, _claimed(outcome), entry.facts)
    if submission is not None and submission.reward_claimed:
        return Move(State.CLAIMED, "the chain shows the reward as claimed", entry.facts)
    if not parts.terms.auto_claim and not entry.facts.asked_claim:
        reason = f"auto_claim is off: `decloud-trainer claim {round.id}` claims it"
        return Wait(reason, RECHECK_S, entry.facts)
    outcome = await land(parts, entry, Action(ActionKind.CLAIM, round.id))
    if outcome.state is OutcomeState.LANDED:
        return Move(State.CLAIMED, _claimed(outcome), entry.facts)
    if outcome.state is OutcomeState.EXPIRED:
        return Wait("the claim never landed; trying again", 0, entry.facts)
    # Other trainers' claims can free what holds it up (a vault may not end up below its rent).
    return Wait(f"the claim was refused, trying again: {outcome.error}", 60.0, entry.facts)


# Reading


async def read_round(parts: Parts, entry: Entry) -> Round:
    """The round as it is on chain now; the journal learns of it, too."""
    round = await parts.chain.round(entry.key.round_id)
    if round is None:
        raise RoundError(
            f"round {entry.key.round_id} is not on chain",
            hint="`decloud-trainer list` shows the rounds there are",
        )
    await parts.journal(Journal.saw, entry.key, round)
    return round


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


async def _decision(parts: Parts, entry: Entry, round: Round) -> policy.Decision:
    if entry.facts.refused:
        return policy.Decision(False, f"can't be trained here: {entry.facts.refused}")
    in_work = await parts.journal(Journal.slots_in_use, entry.key)
    situation = policy.Situation(
        now=parts.clock(),
        balance_lamports=await parts.chain.balance(),
        costs=await parts.chain.costs(),
        rounds_in_work=in_work - entry.state.holds_slot,
        training_s=_training_s(parts, entry.facts),
    )
    return policy.decide(round, parts.terms, situation, asked=entry.facts.asked_join)


def _training_s(parts: Parts, facts: Facts) -> float | None:
    """Seconds that one epoch takes at the measured speed: the least worth joining for."""
    if not facts.samples_per_s or facts.data_samples is None:
        return None
    most = facts.max_batches if facts.max_batches is not None else parts.plan.max_batches
    samples = facts.data_samples
    if most:
        samples = min(samples, most * parts.plan.batch_size)
    return samples / facts.samples_per_s


# Texts


def _landed(outcome: Outcome | None, what: str) -> str:
    if outcome is None or outcome.state is not OutcomeState.LANDED:
        return f"{what}; the chain shows it"
    paid = -outcome.wallet_change_lamports
    return f"{what} in slot {outcome.slot} for {format_sol(paid)}"


def _claimed(outcome: Outcome) -> str:
    reward = outcome.wallet_change_lamports + outcome.fee_lamports
    return f"claimed {format_sol(reward)} in slot {outcome.slot}"


def _trained(result: Mapping[str, Any], facts: Facts) -> str:
    if facts.improvement is None:
        preview = "score unknown: the scored dataset isn't here"
    else:
        preview = f"preview {facts.preview_before:.2f} % -> {facts.preview_after:.2f} %"
    return (
        f"trained {result['epochs']} epochs in {result['seconds']:.1f} s "
        f"({result['samples_per_s']:,.0f} samples/s); {preview}"
    )


def _too_late(round: Round, facts: Facts) -> Move:
    if round.status is RoundStatus.TRAINING:
        return Move(State.LOST, "the submit deadline passed before our submission", facts)
    return Move(State.LOST, f"the round is {round.status.value} and we have not submitted", facts)


def _with_cid(facts: Facts, submission: Submission) -> Facts:
    return dataclasses.replace(facts, gradient_cid=submission.gradient_cid)
