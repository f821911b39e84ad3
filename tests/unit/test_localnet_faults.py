"""The fault switchboard."""

from __future__ import annotations

import pytest

from decloud_trainer.errors import SettingsError
from decloud_trainer.localnet.faults import NAMES, Faults


def test_nothing_is_wrong_at_first() -> None:
    """No fault strikes that nobody asked for."""
    faults = Faults()
    assert not any(faults.take(name) for name in NAMES)
    assert faults.active() == {}


def test_a_counted_fault_strikes_that_often() -> None:
    """`count=2` is two times, and looking doesn't count."""
    faults = Faults()
    faults.switch("rpc_429", count=2)
    assert faults.is_on("rpc_429")
    assert [faults.take("rpc_429") for _ in range(4)] == [True, True, False, False]
    assert faults.active() == {}


def test_a_timed_fault_ends_by_itself() -> None:
    """`seconds=5` is over five seconds later, on the switchboard's clock."""
    now = [100.0]
    faults = Faults(clock=lambda: now[0])
    faults.switch("pin_down", seconds=5)
    assert faults.active() == {"pin_down": {"count": None, "seconds": 5.0}}
    now[0] = 104.9
    assert faults.take("pin_down")
    now[0] = 105.0
    assert not faults.take("pin_down")


def test_an_open_fault_lasts_until_it_is_switched_off() -> None:
    """Without count and seconds only the switch ends it, and watchers hear of each switching."""
    faults, heard = Faults(), []
    end = faults.watch(heard.append)
    faults.switch("ws_drop")
    assert all(faults.take("ws_drop") for _ in range(50))
    faults.switch("ws_drop", on=False)
    assert not faults.take("ws_drop")
    end()
    faults.switch("ws_drop")
    assert heard == ["ws_drop", "ws_drop"]


@pytest.mark.parametrize(
    "wrong",
    [{"name": "rpc_500"}, {"name": "rpc_429", "count": -1}, {"name": "ws_drop", "seconds": -1}],
)
def test_refuses_what_makes_no_sense(wrong: dict[str, object]) -> None:
    """A misspelled name or a negative number is told, not ignored."""
    with pytest.raises(SettingsError):
        Faults().switch(**wrong)  # type: ignore[arg-type]
