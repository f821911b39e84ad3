"""The only way in which money moves: sign, record, send, settle, record."""

from __future__ import annotations

from decloud_trainer.errors import DecloudError
from decloud_trainer.faultpoints import reach
from decloud_trainer.rounds import intents
from decloud_trainer.rounds.entry import Entry
from decloud_trainer.rounds.marks import REBUILT, mark
from decloud_trainer.rounds.model import Action, ActionKind, Intent, Outcome, OutcomeState
from decloud_trainer.rounds.parts import Parts

# A transaction dies after 150 blocks, which take 60 to 90 s; on a network in trouble longer.
UNKNOWN_S = 180.0


async def land(parts: Parts, entry: Entry, action: Action) -> Outcome:
    """Have a new transaction on chain, or know that it never will be.

    Only after `settled` has found none of the kind that landed or is open."""
    await wait_for_unknown_ones(parts)
    reach(f"send.{action.kind.value}.signing")
    intent = await parts.sender.prepare(action)
    await parts.journal(intents.record, entry, intent)
    reach(f"send.{action.kind.value}.recorded")
    return await _settle(parts, entry, intent, fresh=True)


class TooSoon(DecloudError):
    """An earlier transaction that nobody here knows of could still land."""

    retryable = True


async def wait_for_unknown_ones(parts: Parts) -> None:
    """After a journal was lost, what it held open must have landed or died before more is sent.

    Raises:
        TooSoon: not yet."""
    rebuilt = await parts.journal(mark, REBUILT)
    left = rebuilt["at"] + UNKNOWN_S - parts.clock() if isinstance(rebuilt, dict) else 0.0
    if left > 0:
        raise TooSoon(
            f"the journal was rebuilt a moment ago: nothing is sent for {left:.0f} s, in which "
            "an earlier transaction could still land"
        )


async def settled(parts: Parts, entry: Entry, kind: ActionKind) -> Outcome | None:
    """The outcome of the row's transaction of that kind that landed, if one did.

    First learns the fate of one that an earlier run left open; then this is its outcome,
    whatever it is. The journal is asked before the chain, whose answer may be an old one."""
    intent = await parts.journal(intents.under_way, entry, kind)
    if intent is not None:
        return await _settle(parts, entry, intent, fresh=False)
    for sent in await parts.journal(intents.sent, entry):
        landed = sent.outcome is not None and sent.outcome.state is OutcomeState.LANDED
        if landed and sent.intent.action.kind is kind:
            return sent.outcome
    return None


async def _settle(parts: Parts, entry: Entry, intent: Intent, *, fresh: bool) -> Outcome:
    outcome = await parts.sender.settle(intent, fresh=fresh)
    reach(f"send.{intent.action.kind.value}.settled")
    await parts.journal(intents.settle, entry, intent, outcome)
    return outcome
