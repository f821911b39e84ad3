"""Where a passphrase comes from: in the documented order, from private places, never shown."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest
from solders.keypair import Keypair

from decloud_trainer.chain import keystore, passphrases
from decloud_trainer.chain.passphrases import find_passphrase, unlock
from decloud_trainer.chain.wallet import LockedWallet, import_keypair_file, read_key_file
from decloud_trainer.errors import WalletError

ADDRESS = "4wBqpZM9xaSheZzJSMawUKKwhdpChKbZ5eu5ky4Vigw"


def secret_file(path: Path, text: str = "from the file\n", mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def a_pipe(text: str) -> int:
    """The reading end of a pipe that holds this; its writer has gone on without closing it."""
    read, write = os.pipe()
    os.write(write, text.encode())
    os.close(write)
    return read


@pytest.fixture
def keyring_with(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
    """A keyring package that keeps this."""
    kept: dict[tuple[str, str], str] = {}
    package = types.ModuleType("keyring")
    package.get_password = lambda service, user: kept.get((service, user))  # type: ignore[attr-defined]
    errors = types.ModuleType("keyring.errors")
    errors.KeyringError = type("KeyringError", (Exception,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", package)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    monkeypatch.setattr(passphrases.importlib.util, "find_spec", lambda name: object())
    return kept


def test_sources_are_taken_in_the_documented_order(
    tmp_path: Path, keyring_with: dict[tuple[str, str], str]
) -> None:
    """Descriptor, file, variable, credential, keyring; then there is none."""
    keyring_with["decloud-trainer", ADDRESS] = "from the keyring"
    file = str(secret_file(tmp_path / "file"))
    secret_file(tmp_path / "decloud-wallet-passphrase", "from systemd", mode=0o400)
    environ = {
        "DECLOUD_WALLET_PASSPHRASE_FD": str(a_pipe("from the pipe\nmore\n")),
        "DECLOUD_WALLET_PASSPHRASE": "from the variable",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    found = [find_passphrase(environ, file, ADDRESS)]
    found += [find_passphrase(environ, "", ADDRESS) for _ in range(2)]
    del environ["CREDENTIALS_DIRECTORY"]
    found.append(find_passphrase(environ, file, ADDRESS))
    found.append(find_passphrase(environ, "", ADDRESS))
    assert [passphrase.text for passphrase in found if passphrase] == [
        "from the pipe",
        "from the variable",
        "from systemd",
        "from the file",
        "from the keyring",
    ]
    assert find_passphrase(environ, "", "another address") is None
    assert all("from the" not in repr(passphrase) for passphrase in found)


def test_variables_are_taken_out_of_the_environment() -> None:
    """No child inherits what was read there."""
    environ = {"DECLOUD_WALLET_PASSPHRASE": "secret", "HOME": "/home/me"}
    assert find_passphrase(environ) is not None
    assert environ == {"HOME": "/home/me"}


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("secret\n", 0o644, "other users"),
        ("secret\n", 0o640, "other users"),
        ("", 0o600, "empty"),
        ("\nsecret", 0o600, "empty"),
        ("s" * 9999, 0o600, "too long"),
    ],
)
def test_a_passphrase_file_is_its_owners_alone(
    tmp_path: Path, text: str, mode: int, said: str
) -> None:
    """One that others can read, or that holds none, is refused; nothing of it is repeated."""
    path = secret_file(tmp_path / "file", text, mode)
    with pytest.raises(WalletError, match=said) as caught:
        find_passphrase({}, str(path))
    assert "sss" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("number", ["x", "-1", "999999", "9" * 50])
def test_a_descriptor_that_is_none_is_said(number: str) -> None:
    """A wrong number is an error with the right way to do it."""
    with pytest.raises(WalletError, match="file descriptor"):
        find_passphrase({"DECLOUD_WALLET_PASSPHRASE_FD": number})


def test_a_wrong_one_names_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of the places has to be mended is said; the next place isn't tried."""
    monkeypatch.setattr(keystore, "SCRYPT_N", 1 << 12)
    path = tmp_path / "wallet.json"
    import_keypair_file(path, Keypair().to_json(), "right")
    locked = read_key_file(path)
    assert isinstance(locked, LockedWallet)
    file = secret_file(tmp_path / "file", "wrong")
    environ = {"DECLOUD_WALLET_PASSPHRASE": "right"}
    with pytest.raises(WalletError, match=r"wrong passphrase.*came from the file"):
        unlock(locked, environ, str(file))
    assert unlock(locked, environ).pubkey == locked.pubkey
    monkeypatch.setattr(passphrases, "is_attended", lambda: False)
    with pytest.raises(WalletError, match="there is no passphrase") as caught:
        unlock(locked, {})
    assert "passphrase_file" in caught.value.hint
