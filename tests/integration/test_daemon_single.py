"""One daemon per home and per wallet, and the parts that settings make."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from localchain import LocalChain, local_chain
from solders.keypair import Keypair

from decloud_trainer import plans, services, wiring
from decloud_trainer.config import load
from decloud_trainer.errors import AlreadyRunning, SettingsError
from decloud_trainer.jobs.supervisor import SCRIPTED_WORKER
from decloud_trainer.rounds.engine import Told
from decloud_trainer.rounds.parts import Progress
from decloud_trainer.settings import Settings


def settings_for(net: LocalChain, keypair: Keypair, **changes: object) -> Settings:
    options = {
        "network": "localnet",
        "rpc_url": net.endpoints.rpc_url,
        "ws_url": net.endpoints.ws_url,
        "private_key": str(keypair),
        **changes,
    }
    return load(options=options, environ={}).settings


def nothing(told: Told | Progress) -> None:
    """Nobody listens."""


@contextlib.asynccontextmanager
async def a_trainer(settings: Settings) -> AsyncIterator[wiring.Trainer]:
    async with wiring.open_trainer(
        settings, None, on_event=nothing, on_progress=nothing, worker=SCRIPTED_WORKER
    ) as trainer:
        yield trainer


async def test_a_second_daemon_is_told_about_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same home, and another home with the same wallet: who runs and what to do."""
    async with local_chain() as net:
        settings = settings_for(net, net.trainer)
        monkeypatch.setenv("DECLOUD_HOME", str(tmp_path / "one"))
        assert not wiring.home_is_held()
        async with a_trainer(settings):
            assert wiring.home_is_held()
            with pytest.raises(AlreadyRunning, match=f"the home {tmp_path / 'one'}") as caught:
                async with a_trainer(settings):
                    pass
            assert "DECLOUD_HOME" in caught.value.hint
            monkeypatch.setenv("DECLOUD_HOME", str(tmp_path / "two"))
            with pytest.raises(AlreadyRunning, match=net.wallet.pubkey) as caught:
                async with a_trainer(settings):
                    pass
            assert "another wallet" in caught.value.hint
            assert not wiring.home_is_held(), "a refused start lets go of its home"
            other = Keypair()
            net.ledger.airdrop(other.pubkey(), 10**9)
            async with a_trainer(settings_for(net, other)) as trainer:
                assert trainer.wallet.pubkey == str(other.pubkey())
        async with a_trainer(settings) as trainer:
            assert "v1.2" in trainer.generation


HOLDER = """
import sys, time
from decloud_trainer.wiring import the_only_one
with the_only_one(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


LOOKER = """
from decloud_trainer.wiring import home_is_held
print("looking", flush=True)
while True:
    home_is_held()
"""


@contextlib.contextmanager
def started(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process of ours that has said its first word; killed in the end."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


async def test_a_killed_daemon_holds_nothing() -> None:
    """After kill -9 the next one starts at once."""
    async with local_chain() as net:
        settings = settings_for(net, net.trainer)
        with started(HOLDER, net.wallet.pubkey) as holder:
            with pytest.raises(AlreadyRunning):
                async with a_trainer(settings):
                    pass
            holder.send_signal(signal.SIGKILL)
            holder.wait(10)
        async with a_trainer(settings):
            pass


async def test_commands_that_only_look_never_keep_a_daemon_from_starting() -> None:
    """`home_is_held` takes the lock for a moment: a start waits for so long."""
    async with local_chain() as net:
        settings = settings_for(net, net.trainer)
        with started(LOOKER):
            for _ in range(5):
                async with a_trainer(settings):
                    pass


async def test_an_empty_wallet_may_start_and_wait(tmp_path: Path) -> None:
    """The generation isn't known without SOL to simulate with; it is found out later."""
    async with local_chain() as net, a_trainer(settings_for(net, Keypair())) as trainer:
        assert await trainer.chain.balance() == 0
        assert "not known yet" in trainer.generation


def test_endpoints_follow_the_network_and_the_settings() -> None:
    """One setting changes the network; an endpoint of one's own wins, and brings its WebSocket."""

    def where(**options: object) -> services.Services:
        return services.services(load(options=options, environ={}).settings)

    main = where()
    assert main.rpc_urls == ("https://api.mainnet-beta.solana.com",)
    assert main.ws_urls == ("wss://api.mainnet-beta.solana.com",)
    assert (main.gateways, main.local_jwt) == (services.PUBLIC_GATEWAYS, "")
    assert where(network="devnet").rpc_urls == ("https://api.devnet.solana.com",)
    local = where(network="localnet")
    assert (*local.rpc_urls, *local.ws_urls) == (
        "http://127.0.0.1:8899",
        "ws://127.0.0.1:8900",
    )
    assert local.local_jwt == "localnet-jwt"
    own = where(rpc_url="https://node.example/?api-key=1")
    assert own.ws_urls == ("wss://node.example/?api-key=1",)
    assert where(rpc_url="http://node.example:9000").ws_urls == ("ws://node.example:9001",)
    both = where(rpc_url="http://a.example:1", ws_url="ws://b.example:2")
    assert both.ws_urls == ("ws://b.example:2",)
    several = where(
        rpc_url="http://a.example:1", rpc_fallbacks="https://b.example,http://a.example:1"
    )
    assert several.rpc_urls == ("http://a.example:1", "https://b.example")
    assert several.ws_urls == ("ws://a.example:2", "wss://b.example")
    told = where(rpc_fallbacks="https://b.example/key", ws_fallbacks="wss://c.example/key")
    assert told.ws_urls == ("wss://api.mainnet-beta.solana.com", "wss://c.example/key")
    assert "key" not in repr(told)


def test_a_program_id_that_is_none_is_refused() -> None:
    """Before anything is signed for it."""
    settings = load(options={"program_id": "not base58!"}, environ={}).settings
    with pytest.raises(SettingsError, match="is not a Solana address"):
        services.program_of(settings)


def test_the_plan_speaks_the_networks_convention() -> None:
    """`auto` is what v1's validator expects; the other is chosen by its name."""
    assert plans.plan_of(load(environ={}).settings).apply_scale == -0.1
    delta = load(options={"convention": "delta"}, environ={}).settings
    assert plans.plan_of(delta).apply_scale == 1.0
    assert plans.plan_of(delta).tokenizer is None
    named = load(options={"tokenizer_path": "~/bert"}, environ={}).settings
    assert plans.plan_of(named).tokenizer == str(Path("~/bert").expanduser().resolve())
    assert plans.terms_of(delta).trainable >= {"digits", "mnist", "fashionmnist"}


def test_no_secret_reaches_a_repr(tmp_path: Path) -> None:
    """Of what the settings make."""
    options = {"pinata_jwt": "s3cret-jwt", "private_key": str(Keypair())}
    settings = load(options=options, environ={}).settings
    made = [settings, services.services(settings), services.pin_services_of(settings)]
    made.append(services.wallet_of(settings, None))
    text = json.dumps([repr(one) for one in made])
    assert "s3cret" not in text
    assert str(options["private_key"]) not in text
