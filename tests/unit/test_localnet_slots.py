"""Slots, blockhashes and commitment lags."""

from __future__ import annotations

import pytest
from solders.hash import Hash

from decloud_trainer.errors import SettingsError
from decloud_trainer.localnet.slots import BLOCKHASH_SLOTS, Commitment, Slot, Slots

LEVELS = tuple(Commitment)


def slots_up_to(number: int) -> Slots:
    slots = Slots(1, 8)
    for n in range(number + 1):
        slots.add(Slot(n, Hash.new_unique(), 1000 + n))
    return slots


def test_each_level_lags_behind_the_one_before() -> None:
    """Confirmed is a slot behind, finalized eight, and none is before the beginning."""
    assert [slots_up_to(20).at(level).number for level in LEVELS] == [20, 19, 12]
    assert [slots_up_to(3).at(level).number for level in LEVELS] == [3, 2, 0]


def test_a_slot_has_the_highest_level_that_it_reached() -> None:
    """What a status answer says of a transaction's slot."""
    slots = slots_up_to(20)
    assert [slots.commitment_of(n) for n in (20, 19, 13, 12)] == [
        Commitment.PROCESSED,
        Commitment.CONFIRMED,
        Commitment.CONFIRMED,
        Commitment.FINALIZED,
    ]


def test_a_blockhash_lives_for_150_slots() -> None:
    """It is good for 150 slots after its own, and not one more."""
    slots = slots_up_to(10)
    blockhash = slots.current.blockhash
    for n in range(11, 11 + BLOCKHASH_SLOTS):
        assert slots.blockhash_is_valid(blockhash, Commitment.PROCESSED)
        slots.add(Slot(n, Hash.new_unique(), 0))
    assert slots.blockhash_is_valid(blockhash, Commitment.PROCESSED)
    slots.add(Slot(11 + BLOCKHASH_SLOTS, Hash.new_unique(), 0))
    assert not slots.blockhash_is_valid(blockhash, Commitment.PROCESSED)
    assert slots.blockhash_is_valid(blockhash, Commitment.FINALIZED)


def test_a_blockhash_is_unknown_to_those_who_wait_for_certainty() -> None:
    """A node asked at `finalized` doesn't know the newest blockhash yet; a common mistake."""
    slots = slots_up_to(20)
    assert not slots.blockhash_is_valid(slots.current.blockhash, Commitment.FINALIZED)


def test_an_earlier_runs_slots_are_final() -> None:
    """After a restart nothing that was stored becomes less certain again."""
    slots = Slots(1, 8)
    slots.restore(Slot(n, Hash.new_unique(), 0) for n in range(50, 60))
    slots.add(Slot(60, Hash.new_unique(), 0))
    assert slots.at(Commitment.FINALIZED).number == 59
    assert slots.first.number == 50


@pytest.mark.parametrize("lags", [(0, 8), (3, 2), (1, 150)])
def test_refuses_lags_that_make_no_sense(lags: tuple[int, int]) -> None:
    """Confirmed comes before finalized, and both before a blockhash dies."""
    with pytest.raises(SettingsError):
        Slots(*lags)
