"""An encrypted wallet as people use it: at a terminal, in scripts, in the background."""

from __future__ import annotations

import json
import os
from pathlib import Path

import base58
import pytest
from solders.keypair import Keypair
from terminal import Terminal, run

from decloud_trainer.chain.keystore import seal

KEY = Keypair.from_seed(bytes([9] * 32))
ADDRESS, AS_BASE58 = str(KEY.pubkey()), base58.b58encode(bytes(KEY)).decode()
WORD = "an ordinary passphrase"


@pytest.fixture
def encrypted(own_home: Path) -> Path:
    """A home whose wallet is encrypted under WORD."""
    path = own_home / "decloud" / "wallet.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(seal(bytes([9] * 32), ADDRESS, WORD))
    path.chmod(0o600)
    run("config", "--set", f"keypair_path={path}")
    return path


def passphrase_file(folder: Path, text: str = WORD) -> Path:
    path = folder / "passphrase"
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
    file = passphrase_file(tmp_path)
    by_pipe = run("--passphrase-fd", "0", "wallet", "export", "--yes", stdin=f"{WORD}\n")
    assert (by_pipe.code, by_pipe.out.strip()) == (0, AS_BASE58)
    environment = {"DECLOUD_WALLET_PASSPHRASE": WORD}
    assert run("wallet", "export", "--yes", env=environment).out.strip() == AS_BASE58
    wrong = run("wallet", "export", "--yes", env={"DECLOUD_WALLET_PASSPHRASE": "nonsense"})
    assert (wrong.code, wrong.out) == (2, "")
    assert "wrong passphrase" in wrong.err
    assert "nonsense" not in wrong.err
    run("config", "--set", f"passphrase_file={file}")
    assert run("wallet", "export", "--yes").out.strip() == AS_BASE58


def test_at_a_terminal_it_is_asked_for(encrypted: Path) -> None:
    """Without showing it, three times at most; Ctrl-C leaves at once."""
    asked = Terminal("wallet", "decrypt")
    asked.answer("Passphrase of the wallet", "no")
    asked.wait_for("wrong passphrase")
    asked.answer("Passphrase of the wallet", WORD)
    assert asked.end() == 0
    assert WORD not in asked.shown
    assert json.loads(encrypted.read_text()) == list(bytes(KEY))
    again = Terminal("wallet", "encrypt")
    again.answer("(empty: none): ", WORD)
    again.answer("The same again: ", WORD)
    assert again.end() == 0
    leaving = Terminal("wallet", "decrypt")
    leaving.wait_for("Passphrase of the wallet")
    assert leaving.leave() == 130


def test_scripts_make_encrypt_and_change_it(own_home: Path, tmp_path: Path) -> None:
    """With a passphrase at hand, a new key is never in the clear; --plain says otherwise."""
    file, path = passphrase_file(tmp_path), tmp_path / "new.json"
    run("config", "--set", f"passphrase_file={file}")
    assert run("wallet", "new", "--path", str(path)).code == 0
    assert "decloud_wallet" in path.read_text()
    before = run("wallet", "export", "--yes").out
    changed = passphrase_file(tmp_path / "", "another one").rename(tmp_path / "other")
    passphrase_file(tmp_path)
    done = run("wallet", "passphrase", "--new-file", str(changed))
    assert (done.code, done.err) == (0, "")
    assert "still has the former one" in done.out
    assert run("wallet", "export", "--yes").code == 2
    os.replace(changed, file)
    assert run("wallet", "export", "--yes").out == before
    assert run("wallet", "encrypt").code == 2
    assert run("wallet", "decrypt").code == 0
    assert run("wallet", "decrypt").code == 2
    assert run("wallet", "passphrase", "--new-file", str(file)).code == 2
    assert run("wallet", "new", "--plain", "--path", str(tmp_path / "plain.json")).code == 0
    assert json.loads((tmp_path / "plain.json").read_text())[0] >= 0


def test_the_service_must_find_the_passphrase(encrypted: Path, tmp_path: Path) -> None:
    """It can't ask: without a lasting source it isn't installed; a credential is one."""
    refused = run("service", "install")
    assert (refused.code, "--passphrase-credential" in refused.err) == (2, True)
    file = passphrase_file(tmp_path)
    unit = run("service", "install", "--print", "--passphrase-credential", str(file)).out
    assert f"LoadCredential=decloud-wallet-passphrase:{file}" in unit
    assert "DECLOUD_WALLET_PASSPHRASE" in unit.partition("UnsetEnvironment=")[2].splitlines()[0]
    assert WORD not in unit
    wrong = passphrase_file(tmp_path, "wrong")
    done = run("service", "install", "--passphrase-credential", str(wrong))
    assert (done.code, "wrong passphrase" in done.err) == (2, True)


def test_setup_encrypts_when_a_passphrase_is_given(own_home: Path, tmp_path: Path) -> None:
    """Also where nobody is asked: by a pipe here."""
    words = ("--passphrase-fd", "0", "setup", "--non-interactive", "--network", "localnet")
    done = run(*words, "--wallet", "create", stdin=WORD)
    assert done.code == 0, done.err
    path = own_home / "decloud" / "wallet.json"
    assert "decloud_wallet" in path.read_text()
    assert "a new wallet, encrypted" in done.out
    assert WORD not in done.out + done.err
