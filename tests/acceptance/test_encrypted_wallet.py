"""An encrypted wallet as people use it: at a terminal, in scripts, in the background."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import base58
import pytest
from solders.keypair import Keypair
from terminal import AtTerminal, here, run

from decloud_trainer import config
from decloud_trainer.chain import keystore

KEY = Keypair.from_seed(bytes([9] * 32))
ADDRESS, AS_BASE58 = str(KEY.pubkey()), base58.b58encode(bytes(KEY)).decode()
WORD = "an ordinary passphrase"


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """For files that are made in this process."""
    monkeypatch.setattr(keystore, "SCRYPT_N", 1 << 12)


@pytest.fixture
def encrypted(own_home: Path) -> Path:
    """A home whose wallet is encrypted under WORD."""
    path = own_home / "decloud" / "wallet.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(keystore.seal(bytes([9] * 32), ADDRESS, WORD))
    path.chmod(0o600)
    config.update({"keypair_path": str(path)})
    return path


def passphrase_file(path: Path, text: str = WORD) -> Path:
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


def test_looking_needs_no_passphrase(encrypted: Path) -> None:
    """The address stands in the file; signing alone needs the key."""
    shown = run("wallet", "show", "--json")
    assert (shown.code, shown.json["address"], shown.json["encrypted"]) == (0, ADDRESS, True)
    done = run("wallet", "export", "--yes")
    assert done.code == 2
    assert "is encrypted and there is no passphrase" in done.err
    assert "hint: run it at a terminal" in done.err


def test_a_passphrase_comes_by_pipe_file_or_variable(encrypted: Path, tmp_path: Path) -> None:
    """Each of them opens it; a wrong one is an error of the configuration."""
    file = passphrase_file(tmp_path / "word")
    by_pipe = run("--passphrase-fd", "0", "wallet", "export", "--yes", stdin=f"{WORD}\n")
    assert (by_pipe.code, by_pipe.out.strip()) == (0, AS_BASE58)
    environment = {"DECLOUD_WALLET_PASSPHRASE": WORD}
    assert run("wallet", "export", "--yes", env=environment).out.strip() == AS_BASE58
    wrong = run("wallet", "export", "--yes", env={"DECLOUD_WALLET_PASSPHRASE": "nonsense"})
    assert (wrong.code, wrong.out) == (2, "")
    assert "wrong passphrase" in wrong.err
    assert "nonsense" not in wrong.err
    config.update({"passphrase_file": str(file)})
    assert run("wallet", "export", "--yes").out.strip() == AS_BASE58


def test_at_a_terminal_it_is_asked_for(encrypted: Path, at_terminal: AtTerminal) -> None:
    """Without showing it, three times at most; Ctrl-C leaves at once."""
    asked = at_terminal("wallet", "decrypt")
    asked.answer("Passphrase of the wallet", "no")
    asked.wait_for("wrong passphrase")
    asked.answer("Passphrase of the wallet", WORD)
    assert asked.end() == 0
    assert WORD not in asked.shown
    assert json.loads(encrypted.read_text()) == list(bytes(KEY))
    again = at_terminal("wallet", "encrypt")
    again.answer("(empty: none): ", WORD)
    again.answer("The same again: ", WORD)
    assert again.end() == 0
    leaving = at_terminal("wallet", "decrypt")
    leaving.wait_for("Passphrase of the wallet")
    assert leaving.leave() == 130


def test_scripts_make_encrypt_and_change_it(tmp_path: Path) -> None:
    """With a passphrase at hand, a new key is never in the clear; --plain says otherwise."""
    file, path = passphrase_file(tmp_path / "word"), tmp_path / "new.json"
    other = passphrase_file(tmp_path / "other", "another one")
    here("config", "--set", f"passphrase_file={file}")
    assert here("wallet", "new", "--path", str(path)).code == 0
    assert "decloud_wallet" in path.read_text()
    _, key, _ = here("wallet", "export", "--yes")
    code, out, _ = here("wallet", "passphrase", "--new-file", str(other))
    assert (code, "still has the former one" in out) == (0, True)
    assert here("wallet", "export", "--yes").code == 2
    os.replace(other, file)
    assert here("wallet", "export", "--yes")[1] == key
    assert here("wallet", "encrypt").code == 2
    assert here("wallet", "decrypt").code == 0
    assert here("wallet", "decrypt").code == 2
    assert here("wallet", "passphrase", "--new-file", str(file)).code == 2
    assert here("wallet", "encrypt").code == 0
    assert here("wallet", "export", "--yes")[1] == key
    assert here("wallet", "new", "--plain", "--path", str(tmp_path / "plain.json")).code == 0
    assert json.loads((tmp_path / "plain.json").read_text())[0] >= 0


def test_a_key_that_is_in_no_file_is_not_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to do with it instead."""
    monkeypatch.setenv("DECLOUD_PRIVATE_KEY", AS_BASE58)
    code, _, err = here("wallet", "encrypt")
    assert (code, "wallet import" in err) == (2, True)


def test_the_service_must_find_the_passphrase(
    encrypted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't ask: without a lasting source it isn't installed; a credential is one."""
    monkeypatch.setattr(sys, "platform", "linux")
    code, _, err = here("service", "install")
    assert (code, "--passphrase-credential" in err) == (2, True)
    file = passphrase_file(tmp_path / "word")
    _, unit, _ = here("service", "install", "--print", "--passphrase-credential", str(file))
    assert f"LoadCredential=decloud-wallet-passphrase:{file}" in unit
    assert "DECLOUD_WALLET_PASSPHRASE" in unit.partition("UnsetEnvironment=")[2].splitlines()[0]
    assert WORD not in unit
    wrong = passphrase_file(tmp_path / "wrong", "wrong")
    code, _, err = here("service", "install", "--passphrase-credential", str(wrong))
    assert (code, "wrong passphrase" in err) == (2, True)


def test_start_asks_before_anything_else(encrypted: Path, at_terminal: AtTerminal) -> None:
    """At a terminal the daemon asks before it needs the network, and Ctrl-C ends it there."""
    config.update({"network": "localnet", "rpc_url": "http://127.0.0.1:9"})
    starting = at_terminal("start")
    starting.wait_for("Passphrase of the wallet")
    assert starting.leave() == 130


def test_setup_encrypts_when_a_passphrase_is_given(own_home: Path) -> None:
    """Also where nobody is asked: by a pipe here."""
    words = ("--passphrase-fd", "0", "setup", "--non-interactive", "--network", "localnet")
    done = run(*words, "--wallet", "create", stdin=WORD)
    assert done.code == 0, done.err
    path = own_home / "decloud" / "wallet.json"
    assert "decloud_wallet" in path.read_text()
    assert "a new wallet, encrypted" in done.out
    assert WORD not in done.out + done.err
