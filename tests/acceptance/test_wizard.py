"""``setup``, answered at a terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from loopback import serve
from solders.keypair import Keypair
from terminal import COMMAND, AtTerminal, here, run

from decloud_trainer.chain.wallet import LockedWallet, read_key_file


def stored(own_home: Path) -> dict[str, Any]:
    return json.loads((own_home / "decloud" / "config.json").read_bytes())


@pytest.fixture
def refused() -> Iterator[None]:
    """Every network is an endpoint that refuses at once: the questions need none."""

    async def refuse(request: web.Request) -> web.Response:
        error = {"code": -32601, "message": "not here"}
        return web.json_response(
            {"jsonrpc": "2.0", "id": (await request.json())["id"]} | {"error": error}
        )

    app = web.Application()
    app.router.add_post("/", refuse)
    with serve(app) as url:
        here.out("config", "--set", f"rpc_url={url}", "--set", f"pinata_api_url={url}")
        yield


def test_the_wizard_sets_everything_up(
    own_home: Path, refused: None, at_terminal: AtTerminal
) -> None:
    """Its answers are what is stored; a wrong one is asked again; a typed secret is never shown."""
    wizard = at_terminal("setup")
    wizard.answer("[mainnet-beta]: ", "devnet")
    wizard.answer("Choice [create]: ", "keep")  # a wallet's balance would be asked of a network
    wizard.answer("[y/N]: ", "")
    wizard.wait_for("Fitting: ")
    wizard.answer("Preset [none]: ", "image-small")
    wizard.answer("[mnist,fashionmnist,cifar10]: ", "")
    wizard.answer("Least reward in SOL [0]: ", "lots")
    wizard.answer("Least reward in SOL [0]: ", "0.01")
    wizard.answer("unlimited) [0]: ", "")
    wizard.answer("Epochs per round [1]: ", "2")
    wizard.answer("Rounds at once [1]: ", "")
    wizard.answer("or skip [jwt]: ", "jwt")
    wizard.answer("JWT (not shown): ", "very.secret.jwt")
    assert wizard.end() == 0
    assert "very.secret.jwt" not in wizard.shown
    assert "No private key found" in wizard.shown
    assert wizard.shown.count("next:") == 1
    wanted = {"network": "devnet", "preset": "image-small", "min_reward": 0.01, "epochs": 2}
    assert (wanted | {"pinata_jwt": "very.secret.jwt"}).items() <= stored(own_home).items()
    assert len(stored(own_home)["datasets"]) == 3
    lines = re.sub(r"\x1b\[\d*m", "", wizard.shown).splitlines()
    assert [line for line in lines if len(line) > 80] == []

    again = at_terminal("setup")
    again.answer("[devnet]: ", "")
    again.answer("Choice [create]: ", "keep")
    again.answer("[y/N]: ", "")
    again.answer("Preset [image-small]: ", "")
    again.answer("cifar10]: ", "Fashion-MNIST, mnist")
    again.answer("[0.01]: ", "")
    again.answer("[0]: ", "")
    again.answer("[2]: ", "")
    again.answer("[1]: ", "")
    again.answer("or skip [skip]: ", "")
    assert again.end() == 0
    assert stored(own_home) | {"datasets": ["fashionmnist", "mnist"]} == stored(own_home)
    assert wanted.items() <= stored(own_home).items()


def test_ctrl_c_changes_nothing(own_home: Path, refused: None, at_terminal: AtTerminal) -> None:
    """Whoever leaves at the last question has the settings and the keys of before."""
    folder = own_home / "decloud"
    before = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    wizard = at_terminal("setup", "--network", "devnet", "--preset", "mnist-only")
    wizard.answer("Choice [create]: ", "key")
    wizard.answer("Private key (not shown): ", str(Keypair()))
    wizard.answer("(empty: none): ", "a secret word")
    wizard.answer("The same again: ", "a secret word")
    for _ in range(5):
        wizard.answer("]: ", "")
    wizard.wait_for("or skip [jwt]: ")
    assert wizard.leave() == 130
    assert "interrupted" in wizard.shown
    assert {path.name: path.read_bytes() for path in folder.glob("*.json")} == before


def test_a_new_wallet_needs_the_promise_of_a_backup(
    own_home: Path, refused: None, at_terminal: AtTerminal
) -> None:
    """Without it the choice comes again; with it the key is in a file of its owner's alone."""
    path = own_home / "decloud" / "wallet.json"
    wizard = at_terminal("setup", "--network", "localnet", "--preset", "none")
    wizard.answer("Choice [create]: ", "create")
    wizard.wait_for("only key to what the wallet will hold")
    wizard.answer("back it up [no]: ", "")
    wizard.answer("Choice [create]: ", "create")
    wizard.answer("back it up [no]: ", "yes")
    wizard.answer("(empty: none): ", "")
    for _ in range(4):
        wizard.answer("]: ", "")
    wizard.wait_for("Rounds at once [1]: ")
    assert not path.exists()
    wizard.type("")
    assert wizard.end() == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert "not encrypted" in wizard.shown
    assert stored(own_home)["keypair_path"] == str(path)


def test_an_imported_key_gets_a_file(
    own_home: Path, refused: None, at_terminal: AtTerminal
) -> None:
    """A typed key, base58 or a list, is in a file encrypted under the typed passphrase then, and
    nowhere else."""
    keypair = Keypair()
    wizard = at_terminal("setup", "--network", "localnet", "--preset", "none", "--epochs", "2")
    wizard.answer("Choice [create]: ", "key")
    wrong = "5" * 87  # the right alphabet, and no key
    wizard.answer("Private key (not shown): ", wrong)
    wizard.answer("Private key (not shown): ", keypair.to_json())
    wizard.wait_for(str(keypair.pubkey()))
    wizard.answer("(empty: none): ", "a word")
    wizard.answer("The same again: ", "another word")
    wizard.answer("(empty: none): ", "a word")
    wizard.answer("The same again: ", "a word")
    for _ in range(4):
        wizard.answer("]: ", "")
    assert wizard.end() == 0
    path = own_home / "decloud" / "wallet.json"
    locked = read_key_file(path)
    assert isinstance(locked, LockedWallet)
    assert locked.unlock("a word").pubkey == str(keypair.pubkey())
    assert "a word" not in wizard.shown
    assert path.stat().st_mode & 0o777 == 0o600
    assert not stored(own_home)["private_key"]
    assert wrong not in wizard.shown
    assert keypair.to_json() not in wizard.shown


def test_answers_may_come_through_a_pipe(own_home: Path, refused: None) -> None:
    """A line is an answer; too few of them change nothing; then comes exactly one next step."""
    enough = "localnet\ncreate\nyes\nnone\nany\n0\n0\n2\n1\n"
    done = run("setup", stdin=enough[: enough.index("any")])
    assert done.code == 2
    assert "standard input ended" in done.err
    assert "network" not in stored(own_home)
    done = run("setup", stdin=enough)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "next:    decloud-trainer localnet up"
    assert stored(own_home)["epochs"] == 2


def test_setup_picks_a_preset_for_this_machine(own_home: Path, refused: None) -> None:
    """By its measured speed and the free disk; options win over the preset."""
    words = ("setup", "--non-interactive", "--network", "devnet")
    done = run(*words, "--preset", "auto", "--min-reward", "0.5")
    assert done.code == 0, done.err
    assert "samples/s" in done.out
    assert stored(own_home)["preset"] in ("quick-test", "image-small", "image-all")
    assert stored(own_home)["min_reward"] == 0.5
    assert here(*words, "--preset", "fastest").code == 2
    assert here(*words, "--preset", "none").code == 0
    assert stored(own_home)["preset"] == ""


def test_setup_never_loses_a_key(refused: None) -> None:
    """A key in the configuration gets a file of its own before another wallet takes its place."""
    keypair = Keypair()
    key, pubkey = str(keypair), str(keypair.pubkey())
    assert here("config", "--set", "private_key=-", stdin=key).code == 0
    done = here("setup", "--non-interactive", "--network", "localnet", "--wallet", "create")
    assert done.code == 0, done.err
    kept = Path(os.environ["DECLOUD_HOME"]) / f"wallet-{pubkey[:8]}.json"
    assert str(kept) in done.out
    assert key not in done.out
    assert kept.stat().st_mode & 0o777 == 0o600
    assert here.json("--keypair", str(kept), "wallet", "show")["address"] == pubkey


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_recording_of_setup_can_be_made_again(own_home: Path) -> None:
    """The script that answers setup in a tmux terminal ends with a configured trainer."""
    script = Path(__file__).parent.parent / "recordings" / "setup.sh"
    done = subprocess.run(
        ["bash", str(script), *COMMAND], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "custom:digits" in done.stdout
    assert done.stdout.rstrip().endswith("[exit 0]")
