"""The last steps of a round's life: from our submission on chain to the reward in the wallet.

They are steps as those in `steps`, and keep the same promises.
"""

from __future__ import annotations

import dataclasses

from decloud_trainer.money import format_sol
from decloud_trainer.rounds import intents
from decloud_trainer.rounds.deciding import tip
from decloud_trainer.rounds.entry import Entry, State
from decloud_trainer.rounds.landing import land, settled
from decloud_trainer.rounds.model import (
    Action,
    ActionKind,
    Outcome,
    OutcomeState,
    RoundStatus,
    Submission,
)
from decloud_trainer.rounds.parts import Move, Parts, Result, Wait
from decloud_trainer.rounds.steps import read_round, recheck_s

# The chain must show a completed round without a share of ours for so long.
UNPAID_S = 20.0
# Between two claims that were refused: doubled each time, at most the second.
CLAIM_PAUSE_S, LONGEST_CLAIM_PAUSE_S = 60.0, 3600.0
CLAIM_REFUSED = "the claim was refused, trying again"


async def complete(parts: Parts, entry: Entry) -> Result:
    """SUBMITTED -> CLAIMABLE, when the validator has scored and completed the round."""
    round = await read_round(parts, entry)
    if round.status in (RoundStatus.EXPIRED, RoundStatus.CANCELLED):
        return Move(State.LOST, f"the round ended {round.status.value}: no rewards", entry.facts)
    if round.status is not RoundStatus.COMPLETED:
        reason = "submitted; waiting for the validator"
        return Wait(reason, recheck_s(parts, entry), entry.facts)
    submission = await parts.chain.submission(round.id)
    if submission is not None and (submission.contribution_bps or submission.reward_claimed):
        bps = submission.contribution_bps
        facts = dataclasses.replace(entry.facts, contribution_bps=bps, unpaid_since=None)
        share = f"share {bps / 100:.2f} %"
        if submission.reward_claimed:
            return Move(State.CLAIMED, f"{share}; already claimed", facts)
        return Move(State.CLAIMABLE, f"completed: {share}", facts)
    return _unpaid(parts, entry, submission)


async def claim(parts: Parts, entry: Entry) -> Result:
    """CLAIMABLE -> CLAIMED."""
    round_id = entry.key.round_id
    outcome = await settled(parts, entry, ActionKind.CLAIM)
    if outcome is not None and outcome.state is OutcomeState.LANDED:
        return Move(State.CLAIMED, _claimed(outcome), entry.facts)
    submission = await parts.chain.submission(round_id)
    if submission is not None and submission.reward_claimed:
        return Move(State.CLAIMED, "the chain shows the reward as claimed", entry.facts)
    if not parts.terms.auto_claim and not entry.facts.asked_claim:
        reason = f"auto_claim is off: `decloud-trainer claim {round_id}` claims it"
        return Wait(reason, recheck_s(parts, entry), entry.facts)
    early = await tip(parts, entry, ActionKind.CLAIM, entry.round)
    outcome = await land(parts, entry, Action(ActionKind.CLAIM, round_id, tip=early))
    if outcome.state is OutcomeState.LANDED:
        return Move(State.CLAIMED, _claimed(outcome), entry.facts)
    if outcome.state is OutcomeState.EXPIRED:
        return Wait("the claim never landed; trying again", 0, entry.facts)
    # Other trainers' claims can free what holds it up (a vault may not end up below its rent).
    pause = await _claim_pause(parts, entry)
    return Wait(f"{CLAIM_REFUSED}: {outcome.error}", pause, entry.facts)


def _unpaid(parts: Parts, entry: Entry, submission: Submission | None) -> Result:
    """The round is completed and shows no share of ours: true, or an old answer?"""
    since = entry.facts.unpaid_since
    now = parts.clock()
    if since is None or now < since + UNPAID_S:
        since = now if since is None else since
        facts = dataclasses.replace(entry.facts, unpaid_since=since)
        reason = "completed; the chain shows no share of ours: looking again"
        return Wait(reason, since + UNPAID_S - now, facts)
    if submission is None or not submission.submitted:
        return Move(State.LOST, "the round completed without our submission", entry.facts)
    facts = dataclasses.replace(entry.facts, contribution_bps=0)
    return Move(State.LOST, "the validator gave our submission no share", facts)


async def _claim_pause(parts: Parts, entry: Entry) -> float:
    refused = sum(
        sent.intent.action.kind is ActionKind.CLAIM
        and sent.outcome is not None
        and sent.outcome.state is OutcomeState.REJECTED
        for sent in await parts.journal(intents.sent, entry)
    )
    return float(min(CLAIM_PAUSE_S * 2 ** min(max(refused - 1, 0), 10), LONGEST_CLAIM_PAUSE_S))


def _claimed(outcome: Outcome) -> str:
    reward = outcome.wallet_change_lamports + outcome.fee_lamports
    return f"claimed {format_sol(reward)} in slot {outcome.slot}"
