"""What one WebSocket connection has subscribed to, and which news make which notifications.

A subscription turns a `Change` of the ledger into the values to send. The commitment asked for
decides which changes it sees, so a subscriber at `finalized` hears of an event when it is final.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from decloud_trainer.localnet.accounts import CLOSED
from decloud_trainer.localnet.history import Landed
from decloud_trainer.localnet.ledger import Change, Ledger
from decloud_trainer.localnet.rpc_accounts import Filter, View, account_filter, keyed
from decloud_trainer.localnet.rpc_params import Params, invalid, pubkey
from decloud_trainer.localnet.slots import Commitment


def _in_slot(slot: int, value: Any) -> dict[str, Any]:
    return {"context": {"slot": slot}, "value": value}


class Subscription(Protocol):
    """One subscription.

    Attributes:
        notification: the method name of its notifications.
    """

    notification: str

    def results(self, ledger: Ledger, change: Change) -> Iterable[Any]:
        """The results of the notifications that this change makes, in order."""
        ...

    def is_over(self) -> bool:
        """Whether it has sent all that it ever will."""
        ...


@dataclass(slots=True)
class AccountSubscription:
    address: Pubkey
    view: View
    commitment: Commitment
    notification: str = "accountNotification"

    def results(self, ledger: Ledger, change: Change) -> Iterator[Any]:
        if change.commitment is self.commitment and self.address in change.accounts:
            account = ledger.account_in_slot(self.address, change.slot) or CLOSED
            yield _in_slot(change.slot, self.view.show(account))

    def is_over(self) -> bool:
        return False


@dataclass(slots=True)
class ProgramSubscription:
    program: Pubkey
    view: View
    matches: Filter
    commitment: Commitment
    notification: str = "programNotification"

    def results(self, ledger: Ledger, change: Change) -> Iterator[Any]:
        if change.commitment is not self.commitment:
            return
        for address in change.accounts:
            account = ledger.account_in_slot(address, change.slot)
            # As on a node, nothing is said of an account that was closed.
            if account and account.owner == self.program and self.matches(account):
                yield _in_slot(change.slot, keyed(address, account, self.view))

    def is_over(self) -> bool:
        return False


@dataclass(slots=True)
class LogsSubscription:
    mentions: Pubkey | None
    commitment: Commitment
    notification: str = "logsNotification"

    def results(self, ledger: Ledger, change: Change) -> Iterator[Any]:
        if change.commitment is not self.commitment:
            return
        for landed in change.landed:
            if self.mentions is None or self.mentions in _mentioned(ledger, landed):
                value = {
                    "signature": str(landed.signature),
                    "err": landed.error,
                    "logs": landed.meta["logMessages"],
                }
                yield _in_slot(landed.slot, value)

    def is_over(self) -> bool:
        return False


def _mentioned(ledger: Ledger, landed: Landed) -> tuple[Pubkey, ...]:
    return ledger.keys(VersionedTransaction.from_bytes(landed.wire)).all


@dataclass(slots=True)
class SignatureSubscription:
    """Tells once that a transaction has reached the commitment; also when that was long ago."""

    signature: Signature
    commitment: Commitment
    wants_received: bool
    notification: str = "signatureNotification"
    over: bool = False

    def results(self, ledger: Ledger, change: Change) -> Iterator[Any]:
        for landed in change.landed:
            if landed.signature == self.signature:
                yield from self._progress(change.slot, landed, change.commitment)

    def already(self, ledger: Ledger) -> Iterator[Any]:
        """What a subscriber that comes late is told at once."""
        landed = ledger.transaction(self.signature)
        if landed is not None:
            slot = ledger.current.number
            yield from self._progress(slot, landed, Commitment.PROCESSED)
            level = ledger.commitment_of(landed.slot)
            if not self.over and level.rank >= self.commitment.rank:
                yield from self._progress(slot, landed, self.commitment)

    def _progress(self, slot: int, landed: Landed, level: Commitment) -> Iterator[Any]:
        if self.over:
            return
        if self.wants_received:
            self.wants_received = False
            yield _in_slot(slot, "receivedSignature")
        if level is self.commitment:
            self.over = True
            yield _in_slot(slot, {"err": landed.error})

    def is_over(self) -> bool:
        return self.over


@dataclass(slots=True)
class SlotSubscription:
    notification: str = "slotNotification"

    def results(self, ledger: Ledger, change: Change) -> Iterator[Any]:
        if change.new_slot:
            yield {
                "slot": change.slot,
                "parent": change.slot - 1,
                "root": ledger.slot_at(Commitment.FINALIZED),
            }

    def is_over(self) -> bool:
        return False


def _account(params: Params) -> Subscription:
    address, config = params.pubkey(0), params.config(1)
    return AccountSubscription(address, View.of(config), config.commitment())


def _program(params: Params) -> Subscription:
    program, config = params.pubkey(0), params.config(1)
    return ProgramSubscription(
        program, View.of(config), account_filter(config), config.commitment()
    )


def _logs(params: Params) -> Subscription:
    wanted = params.required(0, object)
    level = params.config(1).commitment()
    if wanted in ("all", "allWithVotes"):
        return LogsSubscription(None, level)
    mentions = wanted.get("mentions") if isinstance(wanted, dict) else None
    if not isinstance(mentions, list) or len(mentions) != 1:
        raise invalid("Invalid Request: Only 1 address supported")
    return LogsSubscription(pubkey(mentions[0]), level)


def _signature(params: Params) -> Subscription:
    signature, config = params.signature(0), params.config(1)
    return SignatureSubscription(
        signature, config.commitment(), config.flag("enableReceivedNotification")
    )


def _slot(params: Params) -> Subscription:
    return SlotSubscription()


SUBSCRIBE: dict[str, Callable[[Params], Subscription]] = {
    "accountSubscribe": _account,
    "programSubscribe": _program,
    "logsSubscribe": _logs,
    "signatureSubscribe": _signature,
    "slotSubscribe": _slot,
}
UNSUBSCRIBE = {name.replace("Subscribe", "Unsubscribe") for name in SUBSCRIBE}
