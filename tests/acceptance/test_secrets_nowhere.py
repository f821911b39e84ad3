"""A whole round with real processes, and then: the key and the service secrets are nowhere.

The daemon is `start` as a user runs it, with an encrypted wallet, its passphrase on a pipe and
secrets in the configuration; only its training children are the scripted ones. The network is the
test's own, so that every upload is in its hands.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import base58
import pytest
from daemonworld import World, a_world
from loopback import serving
from processes import descendants, told_by

from decloud_trainer.chain import keystore
from decloud_trainer.localnet.pin_server import make_pin_app
from decloud_trainer.rounds.model import RoundStatus

PASSPHRASE = "a passphrase like no other 7f3a"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ0aGUgdGVzdCJ9.c2VjcmV0LXNpZ25hdHVyZQ"
API_KEY = "rpc-key-0d9f41c2b7"
# What a user runs, but for the workers of its children; and the same with a defect in it.
START = """
import json, sys
from decloud_trainer.cli.main import main
from decloud_trainer.jobs import supervisor
supervisor.TRAINING_WORKER = (*supervisor.SCRIPTED_WORKER, json.dumps({"seconds": 0.3}))
sys.exit(main(sys.argv[1:]))
"""
CRASH = """
import sys
from decloud_trainer.cli.main import main
from decloud_trainer.rounds import daemon
async def run(self, until):
    wallet = self._engine.parts.sender._wallet
    raise RuntimeError(f"{wallet!r} {wallet._keypair} {list(bytes(wallet._keypair))} %s")
daemon.Daemon.run = run
sys.exit(main(sys.argv[1:]))
"""


def spellings(key: bytes) -> Iterator[bytes]:
    """Every form in which a key, or its seed half, could have got somewhere."""
    for part in (key, key[:32]):
        yield part
        yield base58.b58encode(part)
        yield base64.b64encode(part).rstrip(b"=")
        yield base64.urlsafe_b64encode(part).rstrip(b"=")
        yield part.hex().encode()
        yield part.hex().upper().encode()
        yield ",".join(map(str, part)).encode()
        yield ", ".join(map(str, part)).encode()
        yield repr(part)[2:-1].encode()


class Watched:
    """A process, all that it prints, and what it and those below it show in /proc."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.printed = b""
        self.given_away: dict[int, bytes] = {}

    async def until(self, **wanted: Any) -> None:
        """Read its lines of JSON up to one with these values."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        while True:
            line = await asyncio.wait_for(self.process.stdout.readline(), 30)
            self.printed += line
            assert line, (await self.process.stderr.read()).decode()
            if wanted.items() <= json.loads(line).items():
                return

    async def look(self) -> None:
        while True:
            for pid in (self.process.pid, *descendants(self.process.pid)):
                self.given_away[pid] = self.given_away.get(pid, b"") + told_by(pid)
            await asyncio.sleep(0.02)

    async def end(self) -> int:
        """Stop it; its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        return await self.finished()

    async def finished(self) -> int:
        out, err = await asyncio.wait_for(self.process.communicate(), 30)
        self.printed += out + err
        assert self.process.returncode is not None
        return self.process.returncode


@contextlib.asynccontextmanager
async def command(code: str, *words: str, typed: str) -> AsyncIterator[Watched]:
    """A command with this on its standard input."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *words, stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdin is not None
    watched = Watched(process)
    looking = asyncio.create_task(watched.look())
    try:
        process.stdin.write(f"{typed}\n".encode())
        await process.stdin.drain()
        yield watched
    finally:
        looking.cancel()
        if process.returncode is None:
            process.kill()
        await process.communicate()  # which closes its pipes


def set_up(home: Path, world: World, pins_url: str) -> Path:
    """The configuration with all secrets, and the encrypted wallet; where that is."""
    home.mkdir(mode=0o700, exist_ok=True)
    wallet = home / "wallet.json"
    seed = bytes(world.net.trainer)[:32]
    wallet.write_bytes(keystore.seal(seed, world.net.wallet.pubkey, PASSPHRASE))
    wallet.chmod(0o600)
    settings = {
        "network": "localnet",
        "rpc_url": f"{world.net.endpoints.rpc_url}/?api-key={API_KEY}",
        "ws_url": f"{world.net.endpoints.ws_url}/?api-key={API_KEY}",
        "keypair_path": str(wallet),
        "gateways": [pins_url],
        "pinata_api_url": pins_url,
        "pinata_upload_url": pins_url,
        "pinata_jwt": JWT,
        "dataset_mappings": {"custom": "digits"},
        "expected_training_window": 10_000_000,
    }
    config = home / "config.json"
    config.write_text(json.dumps(settings))
    config.chmod(0o600)
    return wallet


async def a_round(daemon: Watched, world: World) -> None:
    """From the start of the daemon to the claimed reward."""
    await daemon.until(event="started")
    number = world.open()
    await daemon.until(event="round", round=number, state="joined")
    world.net.start_training(number)
    await daemon.until(event="round", round=number, state="submitted")
    world.complete(number)
    await daemon.until(event="round", round=number, state="claimed")
    found = await world.net.chain.round(number)
    assert found is not None
    assert found.status is RoundStatus.COMPLETED


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
async def test_a_rounds_secrets_are_nowhere(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments and environment of every process, logs, journal, crash reports, uploads, output and
    error texts: neither the key, in any spelling, nor the passphrase, the JWT or an RPC key."""
    monkeypatch.setattr(keystore, "SCRYPT_N", 1 << 12)
    home = own_home / "decloud"
    by_pipe = ("--verbose", "--passphrase-fd", "0", "start", "--json")
    async with (
        a_world(tmp_path) as world,
        serving(make_pin_app(world.store, jwt=JWT)) as pins_url,
    ):
        wallet = set_up(home, world, pins_url)
        key = bytes(world.net.trainer)
        async with command(START, *by_pipe, typed=PASSPHRASE) as daemon:
            await a_round(daemon, world)
            assert await daemon.end() == 0
        async with command(START, *by_pipe, typed="a wrong passphrase") as refused:
            assert await refused.finished() == 2
        crash = CRASH.replace("%s", f"{API_KEY} {JWT}")
        (tmp_path / "crash.py").write_text(crash)
        run_it = "import sys; exec(open(sys.argv.pop(1)).read())"
        words = (str(tmp_path / "crash.py"), *by_pipe)
        async with command(run_it, *words, typed=PASSPHRASE) as crashed:
            assert await crashed.finished() == 3

    workers = [told for told in daemon.given_away.values() if b"scripted" in told]
    assert workers, "no training child was seen"
    places = {f"process {pid}": told for pid, told in daemon.given_away.items()}
    places |= {f"process {pid}": told for pid, told in crashed.given_away.items()}
    places |= {"output": daemon.printed, "refusal": refused.printed, "crash": crashed.printed}
    for folder in (home, tmp_path / "pins"):
        for path in folder.rglob("*"):
            if path.is_file() and path.name != "config.json":
                places[str(path)] = path.read_bytes()
    names = " ".join(places)
    for part in ("daemon.log", "journal.sqlite", "jobs.sqlite", "worker.log", "crash-", "pins"):
        assert part in names, part
    assert str(wallet) in places
    secrets = {"passphrase": PASSPHRASE, "JWT": JWT, "RPC key": API_KEY}
    wanted = {name: [text.encode()] for name, text in secrets.items()}
    wanted["key"] = list(spellings(key))
    found = [
        f"{name} in {place}"
        for place, content in places.items()
        for name, forms in wanted.items()
        if any(form in content for form in forms)
    ]
    assert not found
    assert "DECLOUD_WALLET_PASSPHRASE" not in os.environ
