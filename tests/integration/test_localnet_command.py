"""``localnet`` as a person or a script uses it: real processes, real signals."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result
from processes import is_gone
from terminal import Running, running

from decloud_trainer.cli.localnet import localnet
from decloud_trainer.errors import AlreadyRunning, SettingsError
from decloud_trainer.localnet.network import LocalNetwork
from decloud_trainer.localnet.options import LocalOptions

ADDRESS = "4wBqpZM9xaSheZzJSMawUKKwhdpChKbZ5eu5ky4Vigw"


@pytest.fixture
def up() -> Iterator[Running]:
    """A ``localnet up --json`` with all its actors."""
    free = ("--rpc-port", "0", "--pin-port", "0", "--slot-ms", "100")
    actors = ("--rounds", "1", "--competitors", "lazy", "--min-trainers", "3")
    with running("localnet", "up", "--json", *free, *actors) as network:
        yield network


def remaining(where: dict[str, Any]) -> list[str]:
    """Its processes that don't end."""
    return [name for name, pid in where["pids"].items() if not is_gone(pid)]


def run(*words: str) -> Result:
    return CliRunner().invoke(localnet, words)


def rpc(url: str, method: str, *params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return requests.post(url, json=body, timeout=5).json()["result"]


def test_a_network_is_started_steered_and_ended(up: Running, own_home: Path) -> None:
    """One line of JSON when ready; the other commands find it; SIGTERM ends everything."""
    where = up.line()
    assert set(where["pids"]) == {"network", "validator", "creator", "competitor"}
    assert rpc(where["rpc_url"], "getGenesisHash") == where["genesis_hash"]
    gateway = requests.get(f"{where['gateway_url']}/data/testAuthentication", timeout=5)
    assert gateway.status_code == 401
    assert (own_home / "decloud" / "localnet.json").stat().st_mode & 0o777 == 0o600

    drop = json.loads(run("airdrop", ADDRESS, "1.5", "--json").output)
    assert drop["balance_lamports"] == 1_500_000_000
    confirmed = {"commitment": "confirmed"}
    assert rpc(where["rpc_url"], "getBalance", ADDRESS, confirmed)["value"] == 1_500_000_000

    posted = json.loads(run("round", "--reward", "0.05", "--json").output)
    content = requests.get(f"{where['gateway_url']}/ipfs/{posted['model_cid']}", timeout=5).content
    assert 2_345_000 < len(content) < 2_360_000

    before = json.loads(run("warp", "0", "--json").output)["unix_timestamp"]
    after = json.loads(run("warp", "10m", "--json").output)["unix_timestamp"]
    assert 600 <= after - before < 610

    assert json.loads(run("fault", "pin-down", "--json").output)["faults"] == {
        "pin_down": {"count": None, "seconds": None}
    }
    files = requests.post(f"{where['pin_upload_url']}/v3/files", timeout=5)
    assert files.status_code == 503
    assert "none" in run("fault", "pin-down", "--off").output
    assert isinstance(run("fault", "earthquake").exception, SettingsError)

    assert up.end(signal.SIGTERM) == (0, "", "")
    assert remaining(where) == []
    assert not (own_home / "decloud" / "localnet.json").exists()
    assert not Path(where["state"]).exists()
    gone = run("airdrop", ADDRESS)
    assert isinstance(gone.exception, SettingsError)
    assert "no local network is running" in str(gone.exception)


def test_a_killed_network_leaves_no_actors_behind(up: Running) -> None:
    """Even SIGKILL of the network ends its children, by the end of their input."""
    where = up.line()
    assert up.end(signal.SIGKILL).code == -signal.SIGKILL
    assert remaining(where) == []
    gone = run("round")
    assert "was killed" in str(gone.exception)


async def test_a_state_folder_and_a_port_belong_to_one_network(tmp_path: Path) -> None:
    """A second network on the same state or port is refused and leaves the first alone."""
    options = LocalOptions(state=tmp_path / "state", actors=False)
    async with LocalNetwork(options) as network:
        with pytest.raises(AlreadyRunning, match="state"):
            async with LocalNetwork(options):
                pass
        port = int(network.endpoints.rpc_url.rpartition(":")[2])
        with pytest.raises(SettingsError, match="listen"):
            async with LocalNetwork(LocalOptions(rpc_port=port, actors=False)):
                pass
        pin_port = int(network.endpoints.pin_api_url.rpartition(":")[2])
        with pytest.raises(SettingsError, match="listen") as refused:
            async with LocalNetwork(LocalOptions(pin_port=pin_port, actors=False)):
                pass
        assert "--pin-port" in refused.value.hint
        assert await asyncio.to_thread(rpc, network.endpoints.rpc_url, "getHealth") == "ok"


async def test_rounds_and_pins_survive_a_restart(tmp_path: Path) -> None:
    """With --state the ledger, its clock and the pinned files are there again."""
    options = LocalOptions(state=tmp_path / "state", actors=False, slot_ms=100)
    async with LocalNetwork(options) as network:
        posted = await network.post_round(reward_lamports=50_000_000)
        time_then = network.ledger.warp(86_400)
    async with LocalNetwork(options) as network:
        assert network.ledger.unix_timestamp >= time_then
        again = await network.post_round(reward_lamports=50_000_000)
        assert again.round_id == posted.round_id + 1
        url = f"{network.endpoints.gateway_url}/ipfs/{posted.model_cid}"
        assert (await asyncio.to_thread(requests.get, url, timeout=5)).status_code == 200


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("generation", "v3"),
        ("rpc_port", 80),
        ("join_s", 0),
        ("fee_bps", 10_001),
        ("min_trainers", 11),
        ("slot_ms", 1),
        ("reward_lamports", 0),
        ("dataset", "imdb"),
        ("dataset", "mnist"),
        ("competitors", ("evil",)),
        ("competitors", ("good", "good")),
        ("data", Path("/nonexistent")),
    ],
)
def test_senseless_options_are_refused(option: str, value: Any) -> None:
    """Before anything is started, with a sentence."""
    with pytest.raises(SettingsError):
        LocalOptions(**{option: value})


@pytest.mark.parametrize(
    "words",
    [
        ["warp", "10x"],
        ["warp", "-1"],
        ["airdrop", ADDRESS, "0.0000000001"],
        ["up", "--join-s", "1.5"],
    ],
)
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    """As everywhere in the program."""
    assert run(*words).exit_code == 2


def test_every_help_has_an_example_and_exit_codes() -> None:
    """A person can start from any of them, a script rely on them."""
    for name in localnet.commands:
        text = run(name, "--help").output
        assert f"decloud-trainer localnet {name}" in text
        assert "Exit codes:" in text
