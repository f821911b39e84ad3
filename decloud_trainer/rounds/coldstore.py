"""What exceeds the float goes to an address whose key isn't on this machine.

No account on chain forbids a second transfer, so the journal does: one that was signed is settled
before another is thought of. It either landed, or can't any more.
"""

from __future__ import annotations

import logging
from typing import Final

from decloud_trainer.errors import SpendingRefused
from decloud_trainer.faultpoints import reach
from decloud_trainer.money import format_sol
from decloud_trainer.rounds import transfers
from decloud_trainer.rounds.entry import RowKey
from decloud_trainer.rounds.landing import TooSoon, wait_for_unknown_ones
from decloud_trainer.rounds.marks import mark, set_mark
from decloud_trainer.rounds.model import (
    NO_ROUND,
    Action,
    ActionKind,
    Intent,
    Outcome,
    OutcomeState,
)
from decloud_trainer.rounds.parts import Parts

log = logging.getLogger(__name__)

# Less isn't worth a fee, and couldn't stand alone in an account that doesn't exist yet.
LEAST_LAMPORTS: Final = 1_000_000
# The first transfer to an address is told of so long before it.
NOTICE_S: Final = 600.0
# The mark under which an address that was told of is kept.
TOLD: Final = "cold_address"


def excess_lamports(balance: int, kept: int, fee: int) -> int:
    """What to transfer, so that with its fee the float is left; 0 if that isn't worth it."""
    lamports = balance - kept - fee
    return lamports if lamports >= LEAST_LAMPORTS else 0


async def store_excess(parts: Parts, scope: RowKey) -> Outcome | None:
    """Settle a transfer that an earlier run left open; then make a new one, if one is due.

    The outcome of the new one, None if there was none.

    Raises:
        NetworkError: try again later; what was signed is settled then.
    """
    # Also when the setting is gone: what was signed has to be booked.
    intent = await parts.journal(transfers.under_way, scope)
    if intent is not None:
        await _settle(parts, intent, fresh=False)
    if parts.cold is None:
        return None
    fee = (await parts.chain.costs()).fee_lamports
    kept = max(parts.cold.kept_lamports, parts.terms.floor_lamports)
    # An endpoint that is behind would show as there what has gone already.
    since = await parts.journal(transfers.latest_slot, scope)
    balance = await parts.chain.balance(since_slot=since)
    lamports = excess_lamports(balance, kept, fee)
    if not lamports or not await _is_told(parts, scope, lamports):
        return None
    action = Action(ActionKind.TRANSFER, NO_ROUND, to=parts.cold.address, lamports=lamports)
    try:
        await wait_for_unknown_ones(parts)
    except TooSoon as reason:
        log.warning("nothing is sent to the cold address for now: %s", reason)
        return None
    reach("send.transfer.signing")
    try:
        intent = await parts.sender.prepare(action)
    except SpendingRefused as refusal:
        # Most likely a join is under way, which the balance doesn't show yet.
        log.warning("nothing is sent to the cold address for now: %s", refusal)
        return None
    await parts.journal(transfers.record, scope, intent)
    reach("send.transfer.recorded")
    return await _settle(parts, intent, fresh=True)


async def _settle(parts: Parts, intent: Intent, *, fresh: bool) -> Outcome:
    outcome = await parts.sender.settle(intent, fresh=fresh)
    reach("send.transfer.settled")
    await parts.journal(transfers.settle, intent, outcome)
    action = intent.action
    if outcome.state is OutcomeState.LANDED:
        log.warning(
            "sent %s to the cold address %s (%s)",
            format_sol(action.lamports),
            action.to,
            intent.signature,
        )
    else:
        log.warning("not sent to %s: %s %s", action.to, outcome.state.value, outcome.error)
    return outcome


async def _is_told(parts: Parts, scope: RowKey, lamports: int) -> bool:
    """Whether the user has had time to object to this address."""
    assert parts.cold is not None
    now = parts.clock()
    told = await parts.journal(mark, TOLD)
    same = {"address": parts.cold.address, "wallet": scope.wallet, "genesis": scope.genesis}
    if isinstance(told, dict) and {name: told.get(name) for name in same} == same:
        return now >= float(told["from"])
    await parts.journal(set_mark, TOLD, {**same, "from": now + NOTICE_S})
    log.warning(
        "%s more than sweep_above keeps are in the wallet: they go to %s in %d minutes, and from "
        "then on whatever exceeds it. If that isn't your address: "
        "decloud-trainer config --unset cold_address, and start again",
        format_sol(lamports),
        parts.cold.address,
        NOTICE_S // 60,
    )
    return False
