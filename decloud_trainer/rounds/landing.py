"""The only way in which money moves: sign, record, send, settle, record."""

from __future__ import annotations

from decloud_trainer.faultpoints import reach
from decloud_trainer.rounds.entry import Entry
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import Action, ActionKind, Intent, Outcome, OutcomeState
from decloud_trainer.rounds.parts import Parts


async def land(parts: Parts, entry: Entry, action: Action) -> Outcome:
    """Have a new transaction on chain, or know that it never will be.

    Only after `settled` has found none of the kind that landed or is open."""
    reach(f"send.{action.kind.value}.signing")
    intent = await parts.sender.prepare(action)
    await parts.journal(Journal.record_intent, entry, intent)
    reach(f"send.{action.kind.value}.recorded")
    return await _settle(parts, entry, intent, fresh=True)


async def settled(parts: Parts, entry: Entry, kind: ActionKind) -> Outcome | None:
    """The outcome of the row's transaction of that kind that landed, if one did.

    First learns the fate of one that an earlier run left open; then this is its outcome,
    whatever it is. The journal is asked before the chain, whose answer may be an old one."""
    intent = await parts.journal(Journal.open_intent, entry, kind)
    if intent is not None:
        return await _settle(parts, entry, intent, fresh=False)
    for sent in await parts.journal(Journal.intents, entry):
        landed = sent.outcome is not None and sent.outcome.state is OutcomeState.LANDED
        if landed and sent.intent.action.kind is kind:
            return sent.outcome
    return None


async def _settle(parts: Parts, entry: Entry, intent: Intent, *, fresh: bool) -> Outcome:
    outcome = await parts.sender.settle(intent, fresh=fresh)
    reach(f"send.{intent.action.kind.value}.settled")
    await parts.journal(Journal.settle_intent, entry, intent, outcome)
    return outcome
