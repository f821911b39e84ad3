"""An encrypted wallet: who has the file and not the passphrase has nothing."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair

from decloud_trainer.chain import keystore
from decloud_trainer.chain.wallet import (
    LockedWallet,
    Wallet,
    create_keypair_file,
    find_wallet,
    import_keypair_file,
    load_wallet,
    read_key_file,
    rewrite_key_file,
)
from decloud_trainer.errors import WalletError

KEY = Keypair.from_seed(bytes(range(32)))
SEED, PUBKEY = bytes(range(32)), str(KEY.pubkey())
PASSPHRASE = "correct horse battery staple"


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written with a small cost, which stands in them; one test takes the real one."""
    monkeypatch.setattr(keystore, "SCRYPT_N", 1 << 12)


def sealed_file(path: Path) -> Path:
    import_keypair_file(path, KEY.to_json(), PASSPHRASE)
    return path


def changed(path: Path, **values: Any) -> str:
    """The file's text with other values; a dotted name is one level down, by __."""
    content = json.loads(path.read_text())
    for name, value in values.items():
        at = content
        *above, last = name.split("__")
        for part in above:
            at = at[part]
        at[last] = value
    return json.dumps(content)


def test_the_passphrase_opens_the_file(tmp_path: Path) -> None:
    """What was sealed signs again; the address is known before that."""
    path = sealed_file(tmp_path / "wallet.json")
    locked = find_wallet(environ={}, keypair_path=str(path))
    assert isinstance(locked, LockedWallet)
    assert (locked.pubkey, locked.encrypted) == (PUBKEY, True)
    wallet = locked.unlock(PASSPHRASE)
    assert wallet.sign(b"m") == bytes(KEY.sign_message(b"m"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_real_cost_is_the_documented_one() -> None:
    """A new file takes scrypt's n of 2^17 with r 8: what the README says."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(keystore, "SCRYPT_N", 1 << 17)
    raw = keystore.seal(SEED, PUBKEY, PASSPHRASE)
    monkeypatch.undo()
    found = keystore.parse(raw.decode(), "it")
    assert (found.n, found.r, found.p) == (131072, 8, 1)
    assert keystore.unseal(found, PASSPHRASE, "it") == SEED


def test_a_composed_and_a_decomposed_passphrase_are_one() -> None:
    """Keyboards differ in how they spell an é; people don't see that."""
    found = keystore.parse(keystore.seal(SEED, PUBKEY, "caf\u00e9").decode(), "it")
    assert keystore.unseal(found, "cafe\u0301", "it") == SEED


def test_nothing_of_the_key_is_in_the_file(tmp_path: Path) -> None:
    """Neither the seed nor the secret key, in any spelling; and no two files are equal."""
    path, other = sealed_file(tmp_path / "one.json"), sealed_file(tmp_path / "two.json")
    for text in (path.read_text(), other.read_text()):
        assert SEED.hex() not in text
        assert str(KEY) not in text
        assert PASSPHRASE not in text
    assert (
        json.loads(path.read_text())["kdf"]["salt"] != json.loads(other.read_text())["kdf"]["salt"]
    )


def test_a_wrong_passphrase_says_so_and_no_more(tmp_path: Path) -> None:
    """The message names the file, never what was typed."""
    locked = read_key_file(sealed_file(tmp_path / "wallet.json"))
    assert isinstance(locked, LockedWallet)
    with pytest.raises(WalletError, match=r"wrong passphrase for file .*wallet\.json") as caught:
        locked.unlock("a wrong guess")
    assert "guess" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.__suppress_context__
    assert caught.value.exit_code == 2
    with pytest.raises(WalletError, match="encrypted"):
        load_wallet(environ={}, keypair_path=str(tmp_path / "wallet.json"))


@pytest.mark.parametrize(
    "change",
    [
        {"pubkey": str(Keypair.from_seed(bytes(32)).pubkey())},
        {"kdf__salt": "00" * 16},
        {"kdf__n": 1 << 11},
        {"cipher__nonce": "00" * 12},
        {"ciphertext": "00" * 48},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_byte_is_authenticated(tmp_path: Path, change: dict[str, Any]) -> None:
    """A file that was changed anywhere, the address included, opens with no passphrase."""
    path = sealed_file(tmp_path / "wallet.json")
    path.write_text(changed(path, **change))
    locked = read_key_file(path)
    assert isinstance(locked, LockedWallet)
    with pytest.raises(WalletError):
        locked.unlock(PASSPHRASE)


@pytest.mark.parametrize(
    "change",
    [
        {"kdf__n": 1 << 30},
        {"kdf__n": (1 << 17) + 1},
        {"kdf__n": 2},
        {"kdf__n": True},
        {"kdf__n": "131072"},
        {"kdf__n": 1 << 20, "kdf__r": 8},
        {"kdf__r": 1 << 20},
        {"kdf__r": 0},
        {"kdf__p": 10**9},
        {"kdf__p": -1},
        {"kdf__name": "md5"},
        {"kdf": None},
        {"cipher": []},
        {"ciphertext": "zz" * 48},
        {"ciphertext": "00" * 10_000},
        {"pubkey": 5},
        {"decloud_wallet": 2},
        {"more": 1},
    ],
    ids=str,
)
def test_hostile_files_cost_nothing(
    tmp_path: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters of gigabytes or hours, and what isn't a wallet: refused before any work."""
    path = sealed_file(tmp_path / "wallet.json")
    path.write_text(changed(path, **change))
    monkeypatch.setattr(keystore, "_cipher", None)  # computing would be a TypeError
    with pytest.raises(WalletError):
        read_key_file(path)


@pytest.mark.parametrize("text", ["{", "{}", '{"decloud_wallet": 1}', "[" * 3000, "{" * 3000])
def test_what_is_no_wallet_is_said(tmp_path: Path, text: str) -> None:
    """Damaged JSON, also deeply nested one, is an error of the wallet."""
    path = tmp_path / "wallet.json"
    path.write_text(text)
    with pytest.raises(WalletError):
        read_key_file(path)


def test_a_file_is_encrypted_decrypted_and_given_another_passphrase(tmp_path: Path) -> None:
    """The key stays the same through all of it, and so does a link to the file."""
    real = tmp_path / "real.json"
    wallet = create_keypair_file(real)
    path = tmp_path / "link.json"
    path.symlink_to(real)
    rewrite_key_file(path, wallet, PASSPHRASE)
    assert path.is_symlink()
    locked = read_key_file(path)
    assert isinstance(locked, LockedWallet)
    rewrite_key_file(path, locked.unlock(PASSPHRASE), "another")
    locked = read_key_file(path)
    assert isinstance(locked, LockedWallet)
    with pytest.raises(WalletError):
        locked.unlock(PASSPHRASE)
    rewrite_key_file(path, locked.unlock("another"), "")
    found = read_key_file(path)
    assert isinstance(found, Wallet)
    assert found.pubkey == wallet.pubkey
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


def test_another_key_in_the_place_is_left_alone(tmp_path: Path) -> None:
    """A file that was exchanged meanwhile is not overwritten by the key of before."""
    path = tmp_path / "wallet.json"
    wallet = create_keypair_file(path)
    path.unlink()
    other = create_keypair_file(path)
    with pytest.raises(WalletError, match="another key"):
        rewrite_key_file(path, wallet, PASSPHRASE)
    assert read_key_file(path).pubkey == other.pubkey


def test_an_empty_passphrase_is_none() -> None:
    """Sealing under nothing would be a promise without a meaning."""
    with pytest.raises(WalletError, match="empty"):
        keystore.seal(SEED, PUBKEY, "")
