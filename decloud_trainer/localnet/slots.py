"""Slots, their blockhashes, and how far each commitment level lags behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from solders.hash import Hash

from decloud_trainer.errors import SettingsError

BLOCKHASH_SLOTS = 150
# A node remembers the blockhashes of so many slots; only the younger half may be used.
REMEMBERED_SLOTS = 300
GENESIS_SLOT = 0


class Commitment(StrEnum):
    """How sure a reader wants to be. In rising order."""

    PROCESSED = "processed"
    CONFIRMED = "confirmed"
    FINALIZED = "finalized"

    @property
    def rank(self) -> int:
        return list(Commitment).index(self)


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot; `block_time` in unix seconds."""

    number: int
    blockhash: Hash
    block_time: int


class Slots:
    """The recent slots. None is ever skipped, so a slot's number is its block height.

    Args:
        confirmed_lag, finalized_lag: after how many further slots a slot counts as such.
    """

    def __init__(self, confirmed_lag: int, finalized_lag: int) -> None:
        if not 1 <= confirmed_lag <= finalized_lag < BLOCKHASH_SLOTS:
            raise SettingsError(
                f"the commitment lags {confirmed_lag} and {finalized_lag} slots are not in the "
                f"order 1 <= confirmed <= finalized < {BLOCKHASH_SLOTS}"
            )
        self._lag = {
            Commitment.PROCESSED: 0,
            Commitment.CONFIRMED: confirmed_lag,
            Commitment.FINALIZED: finalized_lag,
        }
        self._known: deque[Slot] = deque(maxlen=REMEMBERED_SLOTS)
        self.floor = GENESIS_SLOT

    def restore(self, slots: Iterable[Slot]) -> None:
        """Take over an earlier run's slots; all of them count as final."""
        self._known.extend(slots)
        self.floor = self.current.number

    def add(self, slot: Slot) -> None:
        self._known.append(slot)

    @property
    def current(self) -> Slot:
        return self._known[-1]

    @property
    def first(self) -> Slot:
        """The oldest that is still known."""
        return self._known[0]

    def at(self, commitment: Commitment) -> Slot:
        """The newest slot of that commitment."""
        number = max(self.floor, self.current.number - self._lag[commitment])
        return self._known[number - self.current.number - 1]

    def commitment_of(self, number: int) -> Commitment:
        """What a slot that has begun has reached."""
        return [level for level in Commitment if number <= self.at(level).number][-1]

    def blockhash_is_valid(self, blockhash: Hash, commitment: Commitment) -> bool:
        """Whether a transaction with it would be accepted by a reader at that commitment."""
        newest = self.at(commitment).number
        return any(
            newest - BLOCKHASH_SLOTS <= slot.number <= newest and slot.blockhash == blockhash
            for slot in reversed(self._known)
        )

    def hashes(self) -> list[tuple[int, Hash]]:
        """Number and hash of the slots whose blockhash may be used, newest first."""
        newest = list(self._known)[-BLOCKHASH_SLOTS:]
        return [(slot.number, slot.blockhash) for slot in reversed(newest)]
