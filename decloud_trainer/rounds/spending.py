"""What may be spent: ceilings, and the reason why one stands against a transaction. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from decloud_trainer.money import format_sol
from decloud_trainer.rounds.model import ActionKind

DAY_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class ColdStore:
    """An address whose key isn't on this machine, for what exceeds the float.

    Attributes:
        address: base58.
        kept_lamports: the float: no transfer leaves less.
    """

    address: str
    kept_lamports: int


@dataclass(frozen=True, slots=True)
class Ceilings:
    """In lamports; 0 means no ceiling.

    Attributes:
        transaction: what one transaction may take out of the wallet.
        round: what all transactions of a round may; a claim that pays is never held up by it.
        day: what may be spent in 24 hours; binds joins, since whoever has joined must finish.
        floor: what a join must leave in the wallet, so that claims can be paid.
        cold: where a transfer may go; None: there is none.
    """

    transaction: int = 0
    round: int = 0
    day: int = 0
    floor: int = 0
    cold: ColdStore | None = None


NO_CEILINGS = Ceilings()


@dataclass(frozen=True, slots=True)
class Spent:
    """A transaction of the past.

    Attributes:
        lamports: what it took out of the wallet; None while its fate is open.
    """

    signature: str
    round_id: int
    kind: ActionKind
    at: float
    lamports: int | None


@dataclass(frozen=True, slots=True)
class Purchase:
    """A transaction that is about to be signed.

    Attributes:
        cost_lamports: what it takes out of the wallet; negative if it brings more.
        balance_lamports: the wallet's, before it.
    """

    kind: ActionKind
    round_id: int
    cost_lamports: int
    balance_lamports: int


def against(
    purchase: Purchase, ceilings: Ceilings, past: Iterable[Spent], *, now: float, join_cost: int
) -> str:
    """Why not; empty if nothing stands against it.

    Args:
        past: at least all of the last 24 hours and all of the round.
        join_cost: lamports that a join whose fate is open is taken to cost.
    """
    cost = purchase.cost_lamports
    if purchase.kind is ActionKind.TRANSFER:
        return _against_transfer(purchase, ceilings, past, join_cost)
    if cost <= 0:
        return ""
    if 0 < ceilings.transaction < cost:
        return _over("it", cost, "max_cost_per_transaction", ceilings.transaction)
    costs = [(spent, _lamports(spent, join_cost)) for spent in past]
    of_round = sum(paid for spent, paid in costs if spent.round_id == purchase.round_id)
    if 0 < ceilings.round < of_round + cost:
        what = f"round {purchase.round_id}"
        return _over(what, of_round + cost, "max_cost_per_round", ceilings.round)
    if purchase.kind is not ActionKind.JOIN:
        return ""
    of_day = sum(paid for spent, paid in costs if spent.at > now - DAY_S)
    if 0 < ceilings.day < of_day + cost:
        return _over("the last 24 hours", of_day + cost, "max_cost_per_day", ceilings.day)
    left = purchase.balance_lamports - cost
    if 0 <= left < ceilings.floor:  # what the wallet can't pay at all, the chain refuses
        return (
            f"the wallet would be left with {format_sol(left)}, less than the floor_balance "
            f"{format_sol(ceilings.floor)} that is kept for claims"
        )
    return ""


def _against_transfer(
    purchase: Purchase, ceilings: Ceilings, past: Iterable[Spent], join_cost: int
) -> str:
    """It isn't spending, so no ceiling holds it up; but it takes nothing that is needed here."""
    if ceilings.cold is None:
        return "no cold_address is set"
    under_way = sum(_lamports(spent, join_cost) for spent in past if spent.lamports is None)
    left = purchase.balance_lamports - purchase.cost_lamports - under_way
    kept = max(ceilings.cold.kept_lamports, ceilings.floor)
    if left < kept:
        return (
            f"the wallet would be left with {format_sol(left)} of the {format_sol(kept)} that "
            "sweep_above keeps"
        )
    return ""


def _lamports(spent: Spent, join_cost: int) -> int:
    if spent.lamports is not None:
        return max(spent.lamports, 0)
    return join_cost if spent.kind is ActionKind.JOIN else 0


def _over(what: str, cost: int, setting: str, ceiling: int) -> str:
    return f"{what} would cost {format_sol(cost)}, and {setting} is {format_sol(ceiling)}"
