"""The only way in which money moves: sign, record, send, settle, record."""

from __future__ import annotations

from decloud_trainer.rounds.entry import Entry
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import Action, ActionKind, Intent, Outcome
from decloud_trainer.rounds.parts import Parts


async def land(parts: Parts, entry: Entry, action: Action) -> Outcome:
    """Have a new transaction on chain, or know that it never will be."""
    intent = await parts.sender.prepare(action)
    await parts.journal(Journal.record_intent, entry, intent)
    return await _settle(parts, entry, intent, fresh=True)


async def settle_open(parts: Parts, entry: Entry, kind: ActionKind) -> Outcome | None:
    """Learn the fate of a transaction that an earlier run left open; None if there is none."""
    intent = await parts.journal(Journal.open_intent, entry, kind)
    if intent is None:
        return None
    return await _settle(parts, entry, intent, fresh=False)


async def _settle(parts: Parts, entry: Entry, intent: Intent, *, fresh: bool) -> Outcome:
    outcome = await parts.sender.settle(intent, fresh=fresh)
    await parts.journal(Journal.settle_intent, entry, intent, outcome)
    return outcome
