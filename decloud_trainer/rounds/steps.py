"""One idempotent function per step of a round's life, until it is submitted; see also `rewards`.

A step reads the chain, does its work and says where the row goes (`Move`) or that it stays
(`Wait`). It may be run again after a crash at any point: work may be done twice, money moves
once, because every transaction goes through `land`. The chain's answers may be older than what
this daemon did itself, so a transaction's outcome goes before what the accounts show, and no
row is given up because of a single look.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decloud_trainer.errors import (
    ContentMismatch,
    DecloudError,
    GatewayError,
    JobFailed,
    TrainingError,
    UntrustedData,
)
from decloud_trainer.files import sha256_file
from decloud_trainer.money import format_sol
from decloud_trainer.rounds import policy
from decloud_trainer.rounds.deciding import decision, tip
from decloud_trainer.rounds.entry import NEVER, Entry, Facts, State
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.landing import land, settled
from decloud_trainer.rounds.model import (
    Action,
    ActionKind,
    Outcome,
    OutcomeState,
    Round,
    RoundStatus,
    Submission,
    existing,
)
from decloud_trainer.rounds.parts import Move, Parts, Result, Wait
from decloud_trainer.rounds.training_jobs import prepare_round, train_round

# Between two looks at a round when no event says that it changed; more, the older the row is.
RECHECK_S = 30.0
LONGEST_RECHECK_S = 3600.0
# A read that contradicts what we know is probably an old answer: look again so soon.
LOOK_AGAIN_S = 2.0
# While training: between two looks whether the journal has heard that the round is over.
PHASE_LOOK_S = 1.0
# Kept free before submit_deadline for pinning and landing the submission: at most this, and at
# most this part of what is left.
SUBMIT_MARGIN_S = 45.0
SUBMIT_MARGIN_PART = 0.25
# Of what is left when pinning begins; the rest is for landing the submission.
PIN_PART = 0.75
# An adopted round (another machine may be at work on it) is trained when so little is left.
ADOPT_WITHIN_S = 600.0
# So long after the join deadline, a validator that hasn't started the training holds up no slot.
LATE_START_S = 900.0
# So often in a row a model may fail to come before its round makes room for others, and how long.
MODEL_TRIES = 7
MODEL_PAUSE_S = 600.0
# After a join that the wallet couldn't pay although it seemed to.
POOR_PAUSE_S = 120.0
# Refusals of a join that no later try can change.
_FINAL_REFUSALS = frozenset({"JoinDeadlinePassed", "MaxTrainersReached"})


async def decide(parts: Parts, entry: Entry) -> Result:
    """SEEN, SKIPPED -> WATCHING or SKIPPED: is this round worth it?"""
    if entry.round is not None:  # most are refused without asking the chain anything
        verdict = await decision(parts, entry, entry.round, look_closely=False)
        if not verdict.take:
            return _skip(entry, verdict)
    round = await read_round(parts, entry)
    if await parts.chain.submission(round.id) is not None and not round.status.is_over:
        return await _joined(parts, entry)
    verdict = await decision(parts, entry, round)
    if verdict.take:
        return Move(State.WATCHING, verdict.reason, entry.facts)
    return _skip(entry, verdict)


async def fetch(parts: Parts, entry: Entry) -> Result:
    """WATCHING -> FETCHED: the data is ready, the model verified and recognised.

    All of it before joining, since a join costs rent that never comes back."""
    round = await read_round(parts, entry)
    verdict = await decision(parts, entry, round)
    if not verdict.take:
        return _skip(entry, verdict)
    key = parts.terms.data_for(round.dataset.key)
    assert key is not None, "a decision to take it implies data"
    try:
        facts = await prepare_round(parts, entry, round, key)
    except (GatewayError, ContentMismatch) as error:
        if entry.failures >= MODEL_TRIES:
            reason = f"its model can't be had for now: {error}"
            return Move(State.SKIPPED, reason, entry.facts, MODEL_PAUSE_S)
        raise GatewayError(error.message, hint=error.hint) from error  # so it is tried again
    except (TrainingError, UntrustedData, JobFailed) as error:
        return _refuse(entry, f"can't be trained here: {error}")
    reason = f"model verified: {facts.architecture}, {facts.parameters:,} parameters"
    return Move(State.FETCHED, reason, facts)


async def join(parts: Parts, entry: Entry) -> Result:
    """FETCHED -> JOINED, as soon as the round can be joined."""
    outcome = await settled(parts, entry, ActionKind.JOIN)
    if outcome is not None and outcome.state is OutcomeState.LANDED:
        return Move(State.JOINED, _landed(outcome, "joined"), entry.facts)
    round = await read_round(parts, entry)
    if await parts.chain.submission(round.id) is not None:
        return await _joined(parts, entry)
    verdict = await decision(parts, entry, round)
    if not verdict.take:
        return _skip(entry, verdict)
    if round.status is RoundStatus.WAITING_VALIDATOR:
        return Wait(
            "waiting for a validator to take the round", recheck_s(parts, entry), entry.facts
        )
    early = await tip(parts, entry, ActionKind.JOIN, round)
    outcome = await land(parts, entry, Action(ActionKind.JOIN, round.id, tip=early))
    if outcome.state is OutcomeState.LANDED:
        return Move(State.JOINED, _landed(outcome, "joined"), entry.facts)
    if outcome.state is OutcomeState.EXPIRED:
        return Wait("the join never landed; trying again", 0, entry.facts)
    return await _join_refused(parts, entry, outcome)


async def train(parts: Parts, entry: Entry) -> Result:
    """JOINED -> TRAINED: wait for the training phase, then train until the deadline at most."""
    round = await read_round(parts, entry)
    submission = await parts.chain.submission(round.id)
    if submission is not None and submission.submitted:
        return Move(State.SUBMITTED, "already submitted", _with_cid(entry.facts, submission))
    if round.status in (RoundStatus.WAITING_VALIDATOR, RoundStatus.WAITING_TRAINERS):
        return _await_training(parts, entry, round)
    if (end := _no_submission_any_more(parts, entry, round)) is not None:
        return end
    facts = entry.facts
    left = round.submit_deadline - parts.clock()
    if not facts.asked_train:
        if not parts.terms.auto_train:
            reason = f"auto_train is off: `decloud-trainer train {round.id}` trains it"
            return Wait(reason, RECHECK_S, facts)
        if facts.adopted and left > ADOPT_WITHIN_S:
            reason = "joined elsewhere; `decloud-trainer train` or a near deadline starts it here"
            idle = dataclasses.replace(facts, idle=True)
            return Wait(reason, min(RECHECK_S, left - ADOPT_WITHIN_S), idle)
    if facts.idle:
        facts = dataclasses.replace(facts, idle=False)
        entry = await parts.journal(Journal.revise, entry, facts)
    if not facts.model_sha256:  # joined by another run or machine
        key = parts.terms.data_for(round.dataset.key)
        if key is None:
            raise TrainingError(f"Dataset not found: {round.dataset} can't be trained here")
        facts = await prepare_round(parts, entry, round, key)
    deadline = round.submit_deadline - min(SUBMIT_MARGIN_S, left * SUBMIT_MARGIN_PART)
    return await _trained(parts, entry, facts, round, parts.to_local(deadline))


async def pin(parts: Parts, entry: Entry) -> Result:
    """TRAINED -> PINNED: is it worth submitting? Then make the artefact public."""
    round = await read_round(parts, entry)
    if (end := _no_submission_any_more(parts, entry, round)) is not None:
        return end
    costs = await parts.chain.costs()
    decision = policy.decide_submission(
        round, parts.terms, costs, improvement=entry.facts.improvement
    )
    if not decision.take:
        return Move(State.LOST, f"not submitted: {decision.reason}", entry.facts)
    artifact = Path(entry.facts.artifact)
    if not await asyncio.to_thread(_is_intact, artifact, entry.facts.artifact_sha256):
        return Move(State.JOINED, "the trained artefact is gone: training again", entry.facts)
    left = max(round.submit_deadline - parts.clock(), 0.0)
    cid = await parts.pins.pin(
        artifact, name=f"gradient_round_{round.id}.pt", within_s=left * PIN_PART
    )
    facts = dataclasses.replace(entry.facts, gradient_cid=cid)
    return Move(State.PINNED, f"pinned {cid} ({decision.reason})", facts)


async def submit(parts: Parts, entry: Entry) -> Result:
    """PINNED -> SUBMITTED: one shot; the chain takes no second submission."""
    outcome = await settled(parts, entry, ActionKind.SUBMIT)
    round = await read_round(parts, entry)
    submission = await parts.chain.submission(round.id)
    has_landed = outcome is not None and outcome.state is OutcomeState.LANDED
    if submission is not None and submission.submitted:
        facts = _with_cid(entry.facts, submission)
        return Move(State.SUBMITTED, _landed(outcome, "submitted"), facts)
    if has_landed:
        return Move(State.SUBMITTED, _landed(outcome, "submitted"), entry.facts)
    if (end := _no_submission_any_more(parts, entry, round)) is not None:
        return end
    early = await tip(parts, entry, ActionKind.SUBMIT, round)
    action = Action(ActionKind.SUBMIT, round.id, entry.facts.gradient_cid, early)
    outcome = await land(parts, entry, action)
    if outcome.state is OutcomeState.LANDED:
        return Move(State.SUBMITTED, _landed(outcome, "submitted"), entry.facts)
    if outcome.state is OutcomeState.EXPIRED:
        return Wait("the submission never landed; trying again", 0, entry.facts)
    # A refusal before broadcasting costs nothing, an executed one costs its fee each time.
    pause = 5.0 if outcome.slot is None else 60.0
    return Wait(f"the submission was refused, trying again: {outcome.error}", pause, entry.facts)


# Reading


async def read_round(parts: Parts, entry: Entry) -> Round:
    """The round as it is on chain now; the journal learns of it, too."""
    round_id = entry.key.round_id
    round = existing(await parts.chain.round(round_id), round_id)
    await parts.journal(Journal.saw, entry.key, round)
    return round


def recheck_s(parts: Parts, entry: Entry) -> float:
    """Seconds until the next look: the watch tells of changes, this is for those that it loses."""
    age = parts.clock() - entry.created_at
    return min(max(RECHECK_S, age / 20), LONGEST_RECHECK_S)


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


# Parts of steps


def _skip(entry: Entry, decision: policy.Decision) -> Result:
    pause = NEVER if decision.lasting else RECHECK_S
    if entry.state is State.SKIPPED:
        return Wait(decision.reason, pause, entry.facts)
    return Move(State.SKIPPED, decision.reason, entry.facts, pause)


def _refuse(entry: Entry, reason: str) -> Move:
    facts = dataclasses.replace(entry.facts, refused=reason)
    return Move(State.SKIPPED, reason, facts, NEVER)


async def _joined(parts: Parts, entry: Entry) -> Move:
    """To JOINED, since the chain shows our submission: by whom, the journal knows."""
    outcome = await settled(parts, entry, ActionKind.JOIN)
    here = outcome is not None and outcome.state is OutcomeState.LANDED
    facts = dataclasses.replace(entry.facts, adopted=not here)
    return Move(State.JOINED, "joined; the chain shows it", facts)


async def _join_refused(parts: Parts, entry: Entry, outcome: Outcome) -> Result:
    if await parts.chain.submission(entry.key.round_id) is not None:
        return await _joined(parts, entry)
    reason = f"the join was refused: {outcome.error}"
    if outcome.error_name in _FINAL_REFUSALS or outcome.slot is not None:
        return _refuse(entry, reason)  # an executed refusal costs its fee each time
    if outcome.error_name == "InsufficientFunds":
        return Move(State.SKIPPED, reason, entry.facts, POOR_PAUSE_S)
    return Wait(reason, 5.0, entry.facts)


def _await_training(parts: Parts, entry: Entry, round: Round) -> Wait:
    late = 0 < round.join_deadline < parts.clock() - LATE_START_S
    reason = "joined; waiting for the training phase"
    if late:
        reason = "joined; the validator is late to start the training (this holds no slot)"
    elsewhere = entry.facts.adopted and not entry.facts.asked_train
    facts = dataclasses.replace(entry.facts, idle=late or elsewhere)
    return Wait(reason, recheck_s(parts, entry), facts)


def _no_submission_any_more(parts: Parts, entry: Entry, round: Round) -> Result | None:
    """What to do when the round doesn't take our submission; None when it does."""
    if round.status is RoundStatus.TRAINING:
        if parts.clock() <= round.submit_deadline:
            return None
        return Move(State.LOST, "the submit deadline passed before our submission", entry.facts)
    if round.status in (RoundStatus.WAITING_VALIDATOR, RoundStatus.WAITING_TRAINERS):
        # It has been in training before: this answer is older than that.
        return Wait("the endpoint shows an old state of the round", LOOK_AGAIN_S, entry.facts)
    if round.status is RoundStatus.UNKNOWN:
        reason = f"its status {round.status_index} is unknown to this version"
        return Wait(reason, recheck_s(parts, entry), entry.facts)
    reason = f"the round is {round.status.value} and we have not submitted"
    return Move(State.LOST, reason, entry.facts)


async def _trained(
    parts: Parts, entry: Entry, facts: Facts, round: Round, deadline: float
) -> Result:
    """Train; stop at once when the round ends meanwhile (its validator can abort it)."""
    ended = asyncio.create_task(_end_of_training_phase(parts, entry))
    try:
        result = await train_round(parts, entry, facts, round, deadline, unless=ended)
    except TrainingError:
        if not ended.done():
            raise
        end = _no_submission_any_more(parts, entry, ended.result())
        return end or Wait("looking again at the round", LOOK_AGAIN_S, entry.facts)
    finally:
        ended.cancel()
        await asyncio.wait({ended})  # a cancellation of our own gets through
    preview = result.get("preview") or {}
    folder = Path(result["folder"])
    facts = dataclasses.replace(
        facts,
        artifact=str(folder / result["artifact"]),
        artifact_sha256=result["sha256"],
        preview_before=preview.get("before"),
        preview_after=preview.get("after"),
    )
    return Move(State.TRAINED, _training_report(result, facts), facts)


async def _end_of_training_phase(parts: Parts, entry: Entry) -> Round:
    """The round, once it takes no submissions any more.

    The journal knows from the watch; the chain itself is asked now and then."""
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    over = {status for status in RoundStatus if status.is_over} | {RoundStatus.VALIDATING}
    while True:
        await asyncio.sleep(PHASE_LOOK_S)
        with contextlib.suppress(DecloudError):  # a look that fails says nothing
            row = await parts.journal(Journal.entry, entry.key)
            told = row is not None and row.round is not None and row.round.status in over
            if told or loop.time() - asked_at > RECHECK_S:
                asked_at = loop.time()
                round = await parts.chain.round(entry.key.round_id)
                if round is not None and round.status in over:
                    return round


# Texts


def _landed(outcome: Outcome | None, what: str) -> str:
    if outcome is None or outcome.state is not OutcomeState.LANDED:
        return f"{what}; the chain shows it"
    paid = -outcome.wallet_change_lamports
    return f"{what} in slot {outcome.slot} for {format_sol(paid)}"


def _training_report(result: Mapping[str, Any], facts: Facts) -> str:
    if facts.improvement is None:
        preview = "score unknown: the scored dataset isn't here"
    else:
        preview = f"preview {facts.preview_before:.2f} % -> {facts.preview_after:.2f} %"
    epochs = result["epochs"]
    return (
        f"trained {epochs} epoch{'s' * (epochs != 1)} in {result['seconds']:.1f} s "
        f"({result['samples_per_s']:,.0f} samples/s); {preview}" + _commit_report(result)
    )


def _commit_report(result: Mapping[str, Any]) -> str:
    told = result.get("commits")
    if told is None:
        return ""
    made = f"; {told['committed']} versions committed to {told['store']}"
    return made + (f"; {told['trouble']}" if told["trouble"] else "")


def _with_cid(facts: Facts, submission: Submission) -> Facts:
    return dataclasses.replace(facts, gradient_cid=submission.gradient_cid)
