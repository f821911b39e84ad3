"""Events are read from honest logs, and hostile logs can neither forge one nor break the reader."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decloud_trainer.chain import v1
from decloud_trainer.chain.codec import Idl
from decloud_trainer.chain.events import Event

OURS = "HvQ8c3BBCsibJpH74UDXbvqEidJymzFYyGjNjRn7MYwC"
OTHER = "FzuCxi65QyFXAGbHcXB28RXqyBZSZ5KXLQxeofx1P9K2"
SYSTEM = "11111111111111111111111111111111"
T = "4wBqpZM9xaSheZzJSMawUKKwhdpChKbZ5eu5ky4Vigw"
T_HEX = bytes(range(1, 33)).hex()
CANCELLED = Event("RoundCancelled", {"round_id": 42})


def data_line(data: bytes) -> str:
    return "Program data: " + base64.b64encode(data).decode()


CANCELLED_LINE = data_line(bytes.fromhex("ee8d69afb69e0f07" + "2a00000000000000"))


def call(program: str, *inside: str, depth: int = 1) -> list[str]:
    return [
        f"Program {program} invoke [{depth}]",
        *inside,
        f"Program {program} consumed 4242 of 200000 compute units",
        f"Program {program} success",
    ]


def test_an_event_is_read_with_its_fields() -> None:
    """A line of our program, between its start and its end, is an event."""
    joined = bytes.fromhex("2c0ac486b8b15956" + "2a00000000000000" + T_HEX + "03")
    logs = call(
        OURS,
        "Program log: Instruction: JoinRound",
        *call(SYSTEM, depth=2),
        data_line(joined),
        f"Program log: Trainer {T} joined round 42. Total trainers: 3",
    )
    (event,) = v1.events(logs, v1.PROGRAM_ID)
    assert event == Event("TrainerJoined", {"round_id": 42, "trainer": T, "trainers_count": 3})
    assert event.round_id == 42


def test_one_transaction_may_have_many_events() -> None:
    """They come in order, from every call of the program, also from a call inside another."""
    ended = data_line(bytes.fromhex("18339f73ca5d54bb" + "2a00000000000000" + "01"))
    logs = [
        *call(OURS, CANCELLED_LINE, ended),
        *call(OTHER, *call(OURS, CANCELLED_LINE, depth=2)),
    ]
    found = v1.events(logs, OURS)
    assert [e.name for e in found] == ["RoundCancelled", "TrainingEnded", "RoundCancelled"]


def test_v1_0_payout_events_have_no_fees() -> None:
    """They are shorter on the wire; what they don't say isn't made up."""
    claimed = bytes.fromhex("311c57549e30e5af" + "2a00000000000000" + T_HEX + "00e1f50500000000")
    fees = bytes.fromhex("0100000000000000" + "0200000000000000")
    old: dict[str, Any] = {"round_id": 42, "trainer": T, "amount": 100_000_000}
    for data, fields in (
        (claimed, old),
        (claimed + fees, old | {"treasury_fee": 1, "referrer_fee": 2}),
    ):
        assert v1.events(call(OURS, data_line(data)), OURS) == [Event("RewardClaimed", fields)]
    fee = bytes.fromhex("10b4381efbff55fb") + claimed[8:]
    (event,) = v1.events(call(OURS, data_line(fee)), OURS)
    assert event.fields == {"round_id": 42, "validator": T, "amount": 100_000_000}


def test_bytes_behind_an_event_are_tolerated() -> None:
    """A later program may have appended a field."""
    data = bytes.fromhex("ee8d69afb69e0f07" + "2a00000000000000" + "ffff")
    assert v1.events(call(OURS, data_line(data)), OURS) == [CANCELLED]


@pytest.mark.parametrize(
    "logs",
    [
        [CANCELLED_LINE],
        call(OTHER, CANCELLED_LINE),
        [*call(OURS), CANCELLED_LINE],
        call(OURS, *call(OTHER, CANCELLED_LINE, depth=2)),
        call(OTHER, f"Program log: Program {OURS} invoke [2]", CANCELLED_LINE),
        call(OTHER, f"Program {OURS} invoke [2] ", CANCELLED_LINE),
        call(OTHER, f"Program {OURS} invoke [2]\n", CANCELLED_LINE),
        call(OTHER, f"Program log: \nProgram {OURS} invoke [2]", CANCELLED_LINE),
        call(OTHER, f"Program data: {OURS} invoke [2]", CANCELLED_LINE),
        call(OTHER, f" Program {OURS} invoke [2]", CANCELLED_LINE),
        call(OURS, f"Program log: x\n{CANCELLED_LINE}", "Program log: " + CANCELLED_LINE),
        call(OURS, CANCELLED_LINE.lower()),
    ],
)
def test_no_other_program_can_speak_for_ours(logs: list[str]) -> None:
    """Data counts only while our program is on top of the stack, whatever others print."""
    assert v1.events(logs, OURS) == []


def test_our_program_speaks_again_after_a_call() -> None:
    """When the inner call has returned, ours is on top again."""
    logs = call(OURS, *call(OTHER, CANCELLED_LINE, depth=2), CANCELLED_LINE)
    assert v1.events(logs, OURS) == [CANCELLED]


@pytest.mark.parametrize("message", ["custom program error: 0x1779", "", "a\nb"])
def test_a_failed_transaction_has_no_events(message: str) -> None:
    """What it logged before it failed never happened."""
    logs = [
        *call(OURS, CANCELLED_LINE),
        f"Program {OURS} invoke [1]",
        CANCELLED_LINE,
        f"Program {OURS} failed: {message}",
    ]
    assert v1.events(logs, OURS) == []


@pytest.mark.parametrize(
    "line",
    [
        "Program data: ",
        "Program data: !!!!",
        "Program data: AAAA",
        "Program data: 7o1pr7aeDwc=",  # the discriminator alone
        "Program data: 7o1pr7aeDwcqAAAAAAAAAA== 7o1pr7aeDwcqAAAAAAAAAA==",
        "Program data: é",
        "Program data: " + "A" * 100_000,
        data_line(bytes.fromhex("1013447557c6077c") + bytes(40) + b"\xff\xff\xff\xff"),
    ],
)
def test_data_that_is_no_event_is_passed_over(line: str) -> None:
    """What follows it is read all the same."""
    assert v1.events(call(OURS, line, CANCELLED_LINE), OURS) == [CANCELLED]


@pytest.mark.parametrize(
    "break_",
    [
        "Log truncated",
        f"Program {OTHER} success",
        f"Program {OURS} invoke [7]",
        f"Program {OURS} invoke [1]",
    ],
)
def test_reading_ends_where_the_log_can_no_longer_be_followed(break_: str) -> None:
    """After a cut or a contradiction nobody knows who is speaking; what came before holds."""
    logs = call(OURS, CANCELLED_LINE, break_, CANCELLED_LINE)
    assert v1.events(logs, OURS) == [CANCELLED]


LINES = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            CANCELLED_LINE,
            "Log truncated",
            *call(OURS),
            *call(OTHER),
            *call(OURS, depth=2),
            *call(OTHER, depth=2),
            f"Program {OURS} failed: custom program error: 0x1",
        ]
    ),
    st.binary(max_size=80).map(data_line),
    st.sampled_from(sorted(Idl.load("v1.2").events.values())).flatmap(
        lambda head: st.binary(max_size=120).map(lambda tail: data_line(head + tail))
    ),
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(LINES, max_size=12))
def test_no_log_breaks_the_reader(logs: list[str]) -> None:
    """Any lines give a list of events; without a call of our program, an empty one."""
    found = v1.events(logs, OURS)
    assert len(found) <= len(logs)
    if f"Program {OURS} invoke [1]" not in logs and f"Program {OURS} invoke [2]" not in logs:
        assert found == []
