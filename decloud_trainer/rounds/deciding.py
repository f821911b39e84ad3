"""What steps decide by: gathers for `policy` what the chain, the journal and the plan say."""

from __future__ import annotations

from decloud_trainer.rounds import intents, policy
from decloud_trainer.rounds.entry import Entry, Facts
from decloud_trainer.rounds.figures import ended
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import NO_TIP, ActionKind, OutcomeState, Round, RoundStatus, Tip
from decloud_trainer.rounds.parts import Parts, TrainingPlan
from decloud_trainer.rounds.prospects import expected_share_lamports, share_lamports, tip_for
from decloud_trainer.rounds.watchdog import Ended, back_offs


async def decision(
    parts: Parts, entry: Entry, round: Round, *, look_closely: bool = True
) -> policy.Decision:
    """Whether to take the round.

    Args:
        look_closely: ask the chain for the balance, and for what others pay for priority.
    """
    if entry.facts.refused:
        return policy.Decision(False, entry.facts.refused, lasting=True)
    situation = await _situation(parts, entry, round, look_closely=look_closely)
    return policy.decide(round, parts.terms, situation, asked=entry.facts.asked_join)


async def _situation(
    parts: Parts, entry: Entry, round: Round, *, look_closely: bool
) -> policy.Situation:
    # What no validator has taken yet may hold slots, but not against a round to be joined now.
    with_early = round.status is RoundStatus.WAITING_VALIDATOR
    pays = look_closely and parts.terms.max_priority_lamports > 0
    now = parts.clock()
    past = await _ended(parts, entry)
    return policy.Situation(
        now=now,
        balance_lamports=await parts.chain.balance() if look_closely else None,
        costs=await parts.chain.costs(round.id if pays else None),
        rounds_in_work=await parts.journal(Journal.slots_in_use, entry.key, with_early=with_early),
        training_s=training_s(parts.plan, entry.facts),
        work_s=work_s(parts.plan, entry.facts, parts.terms.expected_training_window_s),
        past=past,
        closed=parts.gate.closed(round.id),
        back_offs=back_offs(past, now, parts.terms.patience),
    )


async def _ended(parts: Parts, entry: Entry) -> tuple[Ended, ...]:
    """How rounds of ours ended; read again only when another one has."""
    gate = parts.gate
    if gate.ended is None or gate.ended[0] != gate.endings:
        endings = gate.endings  # another round may end while the journal is read
        gate.ended = endings, await parts.journal(ended, entry.key)
    return gate.ended[1]


def training_s(plan: TrainingPlan, facts: Facts) -> float | None:
    """Seconds that one epoch takes at the measured speed: the least worth joining for."""
    if not facts.samples_per_s or facts.data_samples is None:
        return None
    most = facts.max_batches if facts.max_batches is not None else plan.max_batches
    samples = facts.data_samples
    if most:
        samples = min(samples, most * plan.batch_size)
    return samples / facts.samples_per_s


def work_s(plan: TrainingPlan, facts: Facts, window_s: float) -> float | None:
    """Seconds that the whole training takes, at most the window; None if the speed isn't known.

    Epochs that fill the time take all of it."""
    one = training_s(plan, facts)
    if one is None:
        return None
    epochs = facts.epochs if facts.epochs is not None else plan.epochs
    return window_s if isinstance(epochs, str) else min(one * epochs, window_s)


# What a transaction may pay to be early


async def tip(parts: Parts, entry: Entry, kind: ActionKind, round: Round | None) -> Tip:
    """By what is at stake in it, and by the time that is left."""
    most = parts.terms.max_priority_lamports
    if not most or round is None:
        return NO_TIP
    worth, deadline = await _at_stake(parts, entry, kind, round)
    left_s = None if deadline is None else deadline - parts.clock()
    tries = await parts.journal(intents.sent, entry)
    again = any(
        sent.intent.action.kind is kind
        and sent.outcome is not None
        and sent.outcome.state is OutcomeState.EXPIRED
        for sent in tries
    )
    return tip_for(worth, most, left_s=left_s, again=again)


async def _at_stake(
    parts: Parts, entry: Entry, kind: ActionKind, round: Round
) -> tuple[int, int | None]:
    """Lamports that the transaction is expected to bring, and until when it must be in a block."""
    if kind is ActionKind.JOIN:
        situation = await _situation(parts, entry, round, look_closely=False)
        found = policy.prospect_of(round, parts.terms, situation)
        return found.profit - parts.terms.min_profit_lamports, round.join_deadline
    costs = await parts.chain.costs()
    if kind is ActionKind.SUBMIT:
        share = expected_share_lamports(round, others=max(round.trainers_count - 1, 0))
        return share - 2 * costs.fee_lamports, round.submit_deadline
    return share_lamports(round, entry.facts.contribution_bps or 0) - costs.fee_lamports, None
