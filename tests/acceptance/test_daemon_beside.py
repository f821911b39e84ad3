"""``start`` with commands beside it, and what it gives away to others: nothing."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import base58
import pytest
from processes import descendants, is_gone, told_by, worker_of
from solders.keypair import Keypair
from terminal import here, local_network, run, running

JWT = "localnet-jwt"


def spellings(key: bytes) -> list[bytes]:
    """The forms in which a key could have got into a file."""
    numbers = ",".join(map(str, key)), ", ".join(map(str, key))
    texts = [base58.b58encode(key).decode(), key.hex(), *numbers]
    return [key, key[:32], *(text.encode() for text in texts)]


@pytest.mark.slow
def test_commands_beside_a_daemon(own_home: Path) -> None:
    """With a daemon running, join, train and claim go through it; a second daemon is refused; the
    key is nowhere but in the configuration; SIGTERM ends the daemon and its children."""
    home = own_home / "decloud"
    keypair = Keypair()
    key, wallet = bytes(keypair), str(keypair.pubkey())
    secrets = {"private_key": base58.b58encode(key).decode(), "pinata_jwt": JWT}
    with local_network("--competitors", "lazy") as where:
        done = run("setup", "--secrets-stdin", "--network", "localnet", stdin=json.dumps(secrets))
        assert done.code == 0, done.err
        assert wallet in done.out
        assert "Pinata accepts the credentials" in done.out
        here.out("localnet", "airdrop", wallet, "1")
        with running("start", "--json", "--no-auto-train", "--no-auto-claim") as daemon:
            assert daemon.line()["wallet"] == wallet
            daemon.until(event="round", round=0, state="joined")

            refused = run("start")
            assert refused.code == 1
            assert "already running" in refused.err
            elsewhere = own_home / "elsewhere"
            copied = json.loads((home / "config.json").read_bytes())
            copied |= {"rpc_url": where["rpc_url"], "pinata_api_url": where["pin_api_url"]}
            elsewhere.mkdir(mode=0o700)
            (elsewhere / "config.json").write_text(json.dumps(copied))
            refused = run("start", env={"DECLOUD_HOME": str(elsewhere)})
            assert refused.code == 1
            assert f"with the wallet {wallet} is already running" in refused.err

            assert here("join", "0").code == 1
            with running("train", "0", "--max-batches", "15", "--json") as training:
                child = worker_of(daemon.process.pid)
                below = descendants(daemon.process.pid)
                assert child in below
                given_away = b"".join(map(told_by, [daemon.process.pid, *below]))
                trained = training.finished()
            assert trained.code == 0, trained.err
            assert "a daemon is running" not in trained.out
            assert json.loads(trained.out)["state"] in ("submitted", "claimable")

            daemon.until(event="round", round=0, state="claimable", moved=True)
            claimed = run("claim", "0")
            assert claimed.code == 0, claimed.err
            assert "a daemon is running: it was asked to claim round 0" in claimed.err
            daemon.until(event="round", round=0, state="claimed")

            # Another round, left in the middle of its work.
            here.out("localnet", "round")
            daemon.until(event="round", round=1, state="joined")
            with running("train", "1", "--epochs", "1000", "--json"):
                child = worker_of(daemon.process.pid)
                ended = daemon.end(signal.SIGTERM)
            assert ended.code == 0, ended.err
            assert json.loads(ended.out.splitlines()[-1]) == {"event": "stopped"}
            assert is_gone(child)

    stored = {
        path: path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and path.name not in ("config.json", "localnet.json")
    }
    assert {"daemon.log", "journal.sqlite", "worker.log"} <= {path.name for path in stored}
    assert b"round 0 claimed" in (home / "logs" / "daemon.log").read_bytes()
    for spelling in [*spellings(key), JWT.encode()]:
        assert spelling not in given_away
        assert not [path for path, content in stored.items() if spelling in content]
    shown = here("config", "--show", "--json")
    assert secrets["private_key"] not in shown.out
    assert shown.json["settings"]["private_key"] == "(set)"
    assert secrets["private_key"] not in here.out("config", "--show")
    assert (home / "config.json").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert "DECLOUD_PRIVATE_KEY" not in os.environ
