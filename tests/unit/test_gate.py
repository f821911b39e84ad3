"""Whether new rounds are taken: the rules of the gate."""

from __future__ import annotations

from decloud_trainer.rounds.entry import State
from decloud_trainer.rounds.gate import Gate


def test_it_is_open_unless_told() -> None:
    """Nothing stands in the way of a fresh session."""
    assert Gate().closed(1) == ""


def test_a_pause_and_an_end_close_it_with_their_reason() -> None:
    """The reason is what a user reads in the round's story; the end goes before a pause."""
    gate = Gate(paused=True)
    assert "resume" in gate.closed(1)
    gate.finishing = "finishing: nothing new is taken"
    assert gate.closed(1) == "finishing: nothing new is taken"


def test_a_session_takes_only_so_many_rounds() -> None:
    """What was taken stays welcome; what is skipped again makes room."""
    gate = Gate(max_rounds=2)
    for number in (1, 2):
        assert gate.closed(number) == ""
        gate.moved(number, State.WATCHING)
    assert gate.is_full
    assert gate.closed(3) == "this session takes only 2 rounds"
    assert gate.closed(2) == ""
    gate.moved(1, State.SKIPPED)
    assert gate.closed(3) == ""
    gate.moved(2, State.CLAIMED)
    gate.moved(3, State.WATCHING)
    assert gate.closed(4) != ""


def test_a_session_without_a_limit_remembers_no_rounds() -> None:
    """It may run for years."""
    gate = Gate()
    gate.moved(1, State.WATCHING)
    gate.moved(1, State.CLAIMED)
    assert not gate.taken
