"""Keys are found in the documented order, checked, and never shown."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from pathlib import Path

import base58
import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from decloud_trainer.chain.wallet import create_keypair_file, load_wallet, read_key_file
from decloud_trainer.errors import WalletError

KEY, OTHER, THIRD, FOURTH, FIFTH = (Keypair.from_seed(bytes([n] * 32)) for n in range(1, 6))


def as_base58(keypair: Keypair) -> str:
    return base58.b58encode(bytes(keypair)).decode()


def as_json(keypair: Keypair) -> str:
    return json.dumps(list(bytes(keypair)))


def keypair_file(path: Path, keypair: Keypair, mode: int = 0o600) -> Path:
    path.write_text(as_json(keypair))
    path.chmod(mode)
    return path


def test_sources_are_taken_in_the_documented_order(tmp_path: Path) -> None:
    """Option, DECLOUD_PRIVATE_KEY, SOLANA_PRIVATE_KEY, private_key, keypair_path."""
    option = keypair_file(tmp_path / "option.json", KEY)
    configured = keypair_file(tmp_path / "configured.json", FIFTH)
    environ = {"DECLOUD_PRIVATE_KEY": as_base58(OTHER), "SOLANA_PRIVATE_KEY": as_json(THIRD)}
    rest = {"private_key": as_base58(FOURTH), "keypair_path": str(configured)}

    wallet = load_wallet(keypair_option=option, environ=environ, **rest)
    assert (wallet.pubkey, wallet.source) == (str(KEY.pubkey()), f"option {option}")
    wallet = load_wallet(environ=environ, **rest)
    assert (wallet.pubkey, wallet.source) == (
        str(OTHER.pubkey()),
        "environment DECLOUD_PRIVATE_KEY",
    )
    environ["DECLOUD_PRIVATE_KEY"] = " "
    wallet = load_wallet(environ=environ, **rest)
    assert (wallet.pubkey, wallet.source) == (str(THIRD.pubkey()), "environment SOLANA_PRIVATE_KEY")
    wallet = load_wallet(environ={}, **rest)
    assert (wallet.pubkey, wallet.source) == (str(FOURTH.pubkey()), "setting private_key")
    wallet = load_wallet(environ={}, keypair_path=str(configured))
    assert (wallet.pubkey, wallet.source) == (str(FIFTH.pubkey()), f"file {configured}")


def test_the_keypair_path_may_start_at_home(own_home: Path) -> None:
    """`~` is expanded."""
    keypair_file(own_home / "id.json", KEY)
    assert load_wallet(environ={}, keypair_path="~/id.json").pubkey == str(KEY.pubkey())


def test_without_a_key_the_user_is_told_how_to_give_one() -> None:
    """The message and its hint are what the documentation promises."""
    with pytest.raises(WalletError, match="No private key found") as caught:
        load_wallet(environ={}, keypair_path="~/.config/solana/id.json")
    assert "decloud-trainer config --set keypair_path=" in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_place_that_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    """It isn't taken for a missing file, whose owner would be sent to make a new wallet."""
    with pytest.raises(WalletError, match="File name too long"):
        load_wallet(environ={}, keypair_path=str(tmp_path / ("x" * 300)))
    with pytest.raises(WalletError, match="a user who isn't here"):
        load_wallet(environ={}, keypair_option=Path("~nobody-at-all/id.json"))


def test_a_signature_verifies_with_the_public_key() -> None:
    """The wallet signs for the key that it shows."""
    wallet = load_wallet(environ={}, private_key=as_base58(KEY))
    signature = Signature.from_bytes(wallet.sign(b"message"))
    assert signature.verify(Pubkey.from_string(wallet.pubkey), b"message")


def test_the_key_is_never_shown_nor_copied() -> None:
    """repr shows the public key alone; pickling and copying are refused."""
    wallet = load_wallet(environ={}, private_key=as_base58(KEY))
    assert repr(wallet) == f"Wallet({KEY.pubkey()}, from setting private_key)"
    assert repr([wallet]).count(str(KEY.pubkey())) == 1
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(wallet)


BROKEN = {
    "mixed halves": base58.b58encode(bytes(KEY)[:32] + bytes(OTHER)[32:]).decode(),
    "seed alone": base58.b58encode(bytes(KEY)[:32]).decode(),
    "cut JSON": as_json(KEY)[:-9],
    "63 numbers": json.dumps(list(bytes(KEY))[:63]),
    "a number too big": json.dumps([256, *list(bytes(KEY))[1:]]),
    "a float": json.dumps([1.0, *list(bytes(KEY))[1:]]),
    "a bool": json.dumps([True, *list(bytes(KEY))[1:]]),
    "an object in it": json.dumps([{}, *list(bytes(KEY))[1:]]),
    "nested": "[" * 3000,
    "not base58": as_base58(KEY)[:-1] + "0",
    "beyond ASCII": as_base58(KEY) + "é",
    "too long": as_base58(KEY) * 100,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_damaged_key_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    """The error names the source, and nowhere in its traceback is any part of the content."""
    path = tmp_path / "bad.json"
    path.write_text(text)
    for source, load in {
        "DECLOUD_PRIVATE_KEY": lambda: load_wallet(environ={"DECLOUD_PRIVATE_KEY": text}),
        "private_key": lambda: load_wallet(environ={}, private_key=text),
        "bad.json": lambda: load_wallet(environ={}, keypair_path=str(path)),
    }.items():
        with pytest.raises(WalletError) as caught:
            load()
        assert source in caught.value.message
        error = caught.value
        shown = "".join(str(e) for e in (error, error.hint, error.__cause__) if e is not None)
        shown += "".join(traceback.format_exception_only(error))
        assert text[:12] not in shown
        assert text[-12:] not in shown
        assert error.__suppress_context__ or error.__context__ is None


def test_a_wrong_first_source_is_not_passed_over() -> None:
    """A broken key in the environment never leads to signing with another wallet."""
    with pytest.raises(WalletError):
        load_wallet(environ={"DECLOUD_PRIVATE_KEY": "oops"}, private_key=as_base58(KEY))


def test_a_missing_option_file_is_an_error(tmp_path: Path) -> None:
    """A keypair file named on the command line must exist."""
    with pytest.raises(WalletError, match=r"gone\.json"):
        load_wallet(keypair_option=tmp_path / "gone.json", environ={}, private_key=as_base58(KEY))


def test_a_file_that_others_can_read_is_reported(tmp_path: Path) -> None:
    """The wallet works and carries a warning with the command that helps."""
    path = keypair_file(tmp_path / "open.json", KEY, mode=0o644)
    (warning,) = read_key_file(path).warnings
    assert f"chmod 600 {path}" in warning
    path.chmod(0o600)
    assert read_key_file(path).warnings == ()


def test_a_new_keypair_is_private_and_never_overwrites(tmp_path: Path) -> None:
    """Created with mode 0600 in the Solana CLI's form; an existing file stays as it is."""
    path = tmp_path / "new" / "id.json"
    wallet = create_keypair_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(json.loads(path.read_text())) == 64
    assert read_key_file(path).pubkey == wallet.pubkey
    before = path.read_bytes()
    with pytest.raises(WalletError, match="exists already"):
        create_keypair_file(path)
    assert path.read_bytes() == before
