"""``start`` with an end, and a daemon that is steered from another terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from terminal import here, local_network, run, running


@pytest.fixture
def network() -> Iterator[None]:
    """A local network of this home, without rounds and actors, and a wallet with money."""
    with local_network("--no-actors"):
        here.out("setup", "--non-interactive", "--network", "localnet", "--wallet", "create")
        wallet = here.json("config", "--show")["wallet"]
        here.out("localnet", "airdrop", wallet, "1")
        yield


def test_a_daemon_is_steered_from_another_terminal(network: None) -> None:
    """pause, resume, status, finish and stop reach it; it ends cleanly, and so is said."""
    assert here("stop").code == 1
    assert here("finish").code == 1
    with running("start", "--json") as daemon:
        daemon.until(event="started")
        assert run("pause", "2h").code == 0
        view = here.json("status")
        assert view["running"]
        assert view["paused_until"] > time.time() + 7000
        assert run("resume").code == 0
        assert here.json("status")["paused_until"] is None
        assert run("start").code == 1  # one is running
        assert run("stop").code == 0
        assert daemon.finished().code == 0
    assert not here.json("status")["running"]
    with running("start", "--json") as daemon:
        daemon.until(event="started")
        assert run("finish").code == 0
        assert daemon.finished().code == 0  # nothing was in work


def test_sessions_end_by_themselves(network: None) -> None:
    """--for takes nothing new after its time; --once looks once; --dry-run sends nothing."""
    with running("start", "--json", "--for", "1s") as daemon:
        assert daemon.finished().code == 0
    once = run("start", "--once", "--plain")
    assert once.code == 0, once.err
    assert run("start", "--dry-run", "--once").out == "no round is open on localnet at the moment\n"
    posted = here.json("localnet", "round")["round_id"]
    deadline = time.monotonic() + 60
    while not (listed := here.json("list")):
        assert time.monotonic() < deadline
    assert [row["round"] for row in listed] == [posted]
    dry = run("start", "--dry-run", "--once", "--json")
    assert dry.json == {
        "event": "decision",
        "round": posted,
        "take": True,
        "reason": dry.json["reason"],
    }
    rules = here.json("explain", str(posted))
    assert rules["take"]
    assert {rule["passed"] for rule in rules["rules"]} == {True}
    here.json("earnings")
    assert here.json("status", str(posted))["here"] is None  # nothing was taken


def test_contradictory_limits_are_refused() -> None:
    """An option that would have no meaning is not ignored."""
    for words in (
        ["--once", "--for", "1h"],
        ["--once", "--until", "07:00"],
        ["--dry-run", "--max-rounds", "2"],
        ["--for", "1h", "--until", "07:00"],
        ["--until", "25:99"],
        ["--until", "07:00:30"],
        ["--for", "soon"],
    ):
        assert here("start", *words).code == 2, words
