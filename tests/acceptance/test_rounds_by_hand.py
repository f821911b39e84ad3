"""Setup, money, and a round by hand, in the order in which the README tells it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from processes import descendants, is_gone, worker_of
from terminal import Done, here, local_network, run, running


def set_up(network: str = "localnet") -> str:
    """A new wallet with one SOL in it; its address."""
    told = here.out("setup", "--non-interactive", "--network", network, "--wallet", "create")
    wallet = here.json("config", "--show")["wallet"]
    assert f"localnet airdrop {wallet} 1" in told
    here.out("localnet", "airdrop", wallet, "1")
    return str(wallet)


def said(done: Done, code: int, *words: str) -> None:
    assert done.code == code, done
    for word in words:
        assert word in done.out + done.err, done


@pytest.mark.slow
def test_a_round_by_hand(own_home: Path) -> None:
    """list, join, train, claim and status, without a daemon, bring a reward; each step says what
    is next, refuses what is not due, and an interrupted one is taken up again."""
    with local_network("--competitors", "none"):
        wallet = set_up()
        until = time.monotonic() + 60  # the creator and the validator are starting
        while [r["status"] for r in here.json("list")] != ["WaitingTrainers"]:
            assert time.monotonic() < until, here.json("list")
            time.sleep(0.1)
        assert [(r["round"], r["mine"]) for r in here.json("list")] == [(0, False)]
        said(here("list"), 0, "WaitingTrainers", "Custom", "0.1 SOL")
        said(here("list", "--status", "training"), 0, "no such rounds")
        said(here("train", "0"), 1, "not joined", "decloud-trainer join 0")
        said(here("join", "7"), 1, "round 7 is not on chain", "decloud-trainer list")
        said(here("status", "7"), 1, "round 7")

        # Ctrl-C while the model is being looked at.
        with running("join", "0") as joining:
            child = worker_of(joining.process.pid)
            below = descendants(joining.process.pid)
            said(joining.end(signal.SIGINT), 130, "interrupted")
            assert child in below
            assert all(map(is_gone, below))

        said(run("join", "0"), 0, "joined", "next: decloud-trainer train 0")
        said(here("join", "0"), 1, "already joined", "decloud-trainer train 0")
        said(here("claim", "0"), 1, "nothing was submitted")
        trained = run("train", "0", "--epochs", "2", "--max-batches", "10", "--json")
        said(trained, 0)
        assert trained.json["round"] == 0
        assert trained.json["state"] == "submitted"
        said(here("train", "0"), 1, "has our submission already", "decloud-trainer claim 0")

        wait_for_status(0, "Completed")
        said(run("claim", "0"), 0, "claimed 0.0882 SOL")
        said(here("claim", "0"), 1, "already claimed")

        told = here.json("status", "0")
        assert told["status"] == "Completed"
        assert told["here"]["state"] == "claimed"
        assert told["here"]["train_on"] == "digits"
        assert told["submission"]["reward_claimed"] is True
        kinds = [line["kind"] for line in told["transactions"]]
        assert kinds == ["join", "submit", "claim"]
        before = 1_000_000_000
        after = before + sum(line["change_lamports"] for line in told["transactions"])
        drop = here.json("localnet", "airdrop", wallet, "0.000000001")
        assert drop["balance_lamports"] == after + 1
        text = here.out("status", "0")
        for line in told["transactions"]:
            assert line["signature"] in text

        # Damaged data of our own is neither used nor overwritten; the chain knows the round.
        damaged = b"no database at all" * 100
        (own_home / "decloud" / "journal.sqlite").write_bytes(damaged)
        said(run("join", "0"), 1, "the journal was damaged")
        aside = [path.read_bytes() for path in (own_home / "decloud").glob("journal*")]
        assert damaged in aside


def wait_for_status(round_id: int, status: str) -> None:
    until = time.monotonic() + 60
    while here.json("status", str(round_id))["status"] != status:
        assert time.monotonic() < until, f"round {round_id} is not {status}"
        time.sleep(0.2)  # the validator is at work, and needs the processor
