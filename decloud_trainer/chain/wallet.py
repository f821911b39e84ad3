"""The trainer's key: where it comes from, and signing with it. It is never shown.

A key file is the Solana CLI's list of 64 numbers, or an encrypted wallet (`chain.keystore`). Of
the latter the address is known without its passphrase: what only looks needs none.

No message here repeats any part of what was read, and errors of the parsers are cut off
(`from None`), because a JSON or base58 error carries the text that it failed on.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

import base58
from solders.keypair import Keypair

from decloud_trainer.chain import keystore
from decloud_trainer.errors import WalletError
from decloud_trainer.files import sync_dir, write_atomic

ENVIRONMENT = ("DECLOUD_PRIVATE_KEY", "SOLANA_PRIVATE_KEY")
_MAX_KEY_FILE_BYTES = 4096
_FORMS = "give the 64-byte secret key: base58 text, or the 64-number JSON list of the Solana CLI"


class Wallet:
    """A key that signs.

    Attributes:
        source: where the key was found, e.g. ``environment DECLOUD_PRIVATE_KEY``.
        warnings: sentences for the user about how the key is kept.
    """

    __slots__ = ("_keypair", "source", "warnings")
    encrypted = False

    def __init__(self, keypair: Keypair, source: str, warnings: tuple[str, ...] = ()) -> None:
        self._keypair = keypair
        self.source = source
        self.warnings = warnings

    @property
    def pubkey(self) -> str:
        """The public key, base58."""
        return str(self._keypair.pubkey())

    def sign(self, message: bytes) -> bytes:
        """The 64-byte ed25519 signature of `message`."""
        return bytes(self._keypair.sign_message(message))

    def __repr__(self) -> str:
        return f"Wallet({self.pubkey}, from {self.source})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a wallet is neither pickled nor copied")


class LockedWallet:
    """An encrypted wallet whose passphrase wasn't needed yet.

    Attributes:
        pubkey: the address that the file states; `unlock` proves it.
        source, warnings: as of `Wallet`.
    """

    __slots__ = ("_sealed", "pubkey", "source", "warnings")
    encrypted = True

    def __init__(self, sealed: keystore.Sealed, source: str, warnings: tuple[str, ...]) -> None:
        self._sealed = sealed
        self.pubkey = sealed.pubkey
        self.source = source
        self.warnings = warnings

    def unlock(self, passphrase: str) -> Wallet:
        """Takes about a third of a second, and 128 MB meanwhile.

        Raises:
            WalletError: a wrong passphrase, or a changed file.
        """
        keypair = Keypair.from_seed(keystore.unseal(self._sealed, passphrase, self.source))
        if str(keypair.pubkey()) != self.pubkey:
            raise WalletError(f"{self.source} is damaged: its address isn't its key's")
        return Wallet(keypair, self.source, self.warnings)

    def __repr__(self) -> str:
        return f"LockedWallet({self.pubkey}, from {self.source})"


FoundWallet: TypeAlias = Wallet | LockedWallet


def find_wallet(
    *,
    keypair_option: Path | None = None,
    environ: Mapping[str, str],
    private_key: str = "",
    keypair_path: str = "",
) -> FoundWallet:
    """The wallet of the first source that is there, an encrypted one still locked.

    In this order: the key file of the command line, the environment's DECLOUD_PRIVATE_KEY and
    SOLANA_PRIVATE_KEY, the configured `private_key`, the file at the configured `keypair_path`.
    A source that is there but wrong is an error: the next one would be another wallet.

    Raises:
        WalletError: no key anywhere, or the first one can't be read.
    """
    if keypair_option is not None:
        return read_key_file(keypair_option, option=True)
    for name in ENVIRONMENT:
        if environ.get(name, "").strip():
            return Wallet(_parse_key(environ[name], name), f"environment {name}")
    if private_key.strip():
        return Wallet(_parse_key(private_key, "the setting private_key"), "setting private_key")
    if keypair_path and _is_there(Path(keypair_path).expanduser()):
        return read_key_file(Path(keypair_path))
    looked = f": {keypair_path} doesn't exist" if keypair_path else ""
    raise WalletError(
        f"No private key found{looked}",
        hint="set one up with `decloud-trainer setup`, name a Solana CLI keypair file with "
        "`decloud-trainer config --set keypair_path=~/my-wallet.json`, "
        "or set DECLOUD_PRIVATE_KEY",
    )


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass  # reading it says what is wrong
    return True


def load_wallet(
    *,
    keypair_option: Path | None = None,
    environ: Mapping[str, str],
    private_key: str = "",
    keypair_path: str = "",
    unlock: Callable[[LockedWallet], Wallet] | None = None,
) -> Wallet:
    """As `find_wallet`, ready to sign: an encrypted one goes through `unlock`.

    Raises:
        WalletError: as in `find_wallet`; an encrypted wallet with nothing to unlock it.
    """
    found = find_wallet(
        keypair_option=keypair_option,
        environ=environ,
        private_key=private_key,
        keypair_path=keypair_path,
    )
    if isinstance(found, Wallet):
        return found
    if unlock is None:
        raise WalletError(f"{found.source} is encrypted", hint="it needs its passphrase here")
    return unlock(found)


def read_key_file(path: Path, *, option: bool = False) -> FoundWallet:
    """The wallet of a Solana CLI keypair file, or of an encrypted one; ``~`` is expanded.

    Raises:
        WalletError: missing, unreadable, or neither.
    """
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise WalletError(f"{path} begins with the name of a user who isn't here") from error
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_KEY_FILE_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise WalletError(
            f"can't read the keypair file {path}: {error.strerror}",
            hint="check the path, or make a wallet with `decloud-trainer setup`",
        ) from error
    text = raw.decode("ascii", "replace")
    warnings: tuple[str, ...] = ()
    if mode & 0o077:
        warnings = (f"other users of this machine can read {path}: run `chmod 600 {path}`",)
    source = f"{'option' if option else 'file'} {path}"
    if keystore.is_sealed(text):
        return LockedWallet(keystore.parse(text, f"the wallet {path}"), source, warnings)
    return Wallet(_parse_key(text, f"the keypair file {path}"), source, warnings)


def create_keypair_file(path: Path, passphrase: str = "") -> Wallet:
    """A new random key, in a file of mode 0600: encrypted, or without a passphrase in the
    Solana CLI's form.

    Raises:
        WalletError: something is at `path` already (it is left alone), or it can't be written.
    """
    return _write_new(path, Keypair(), passphrase)


def import_keypair_file(path: Path, text: str, passphrase: str = "") -> Wallet:
    """The key that `text` is (base58, or the Solana CLI's list), written like a new one.

    A file that holds this very key already is left as it is.

    Raises:
        WalletError: it is no key, or as in `create_keypair_file`.
    """
    keypair = _parse_key(text, "the key that was given")
    with contextlib.suppress(WalletError):
        present = read_key_file(path)
        if present.pubkey == str(keypair.pubkey()):
            return Wallet(keypair, present.source, present.warnings)
    return _write_new(path, keypair, passphrase)


def rewrite_key_file(path: Path, wallet: Wallet, passphrase: str) -> None:
    """Replace the key file by the same key under that passphrase; without one, in the clear.

    The new bytes are read back as a key before they take the old ones' place, atomically. A
    symbolic link stays, and what it leads to is replaced.

    Raises:
        WalletError: it can't be written; the file is as it was.
    """
    path = path.expanduser().resolve()
    data = _file_bytes(wallet._keypair, passphrase)
    if passphrase:
        sealed = keystore.parse(data.decode(), str(path))
        proved = LockedWallet(sealed, str(path), ()).unlock(passphrase).pubkey
    else:
        proved = str(_parse_key(data.decode(), str(path)).pubkey())
    if proved != wallet.pubkey or read_key_file(path).pubkey != wallet.pubkey:
        raise WalletError(f"{path} holds another key by now; it is left as it is")
    try:
        write_atomic(path, data)
    except OSError as error:
        raise WalletError(f"can't write {path}: {error.strerror}") from error


def exported(wallet: Wallet, form: Literal["base58", "json"]) -> str:
    """The wallet's secret key as text. Whoever sees it can take everything."""
    raw = bytes(wallet._keypair)
    return json.dumps(list(raw)) if form == "json" else base58.b58encode(raw).decode("ascii")


def _file_bytes(keypair: Keypair, passphrase: str) -> bytes:
    if passphrase:
        seed = bytes(keypair)[: keystore.SEED_BYTES]
        return keystore.seal(seed, str(keypair.pubkey()), passphrase)
    return (json.dumps(list(bytes(keypair))) + "\n").encode()


def _write_new(path: Path, keypair: Keypair, passphrase: str) -> Wallet:
    path = path.expanduser()
    data = _file_bytes(keypair, passphrase)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise WalletError(
            f"{path} exists already and is not overwritten: it may hold a key with funds",
            hint="choose another path, or use that file",
        ) from error
    except OSError as error:
        raise WalletError(f"can't create {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_dir(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise WalletError(f"can't write {path}: {error.strerror}") from error
    return Wallet(keypair, f"file {path}")


def _parse_key(text: str, where: str) -> Keypair:
    """`where` names the source in messages; `text` never appears in one."""
    text = text.strip()
    if len(text) > _MAX_KEY_FILE_BYTES:
        raise WalletError(f"{where} is no private key: it is far too long", hint=_FORMS)
    raw = _from_json(text, where) if text.startswith("[") else _from_base58(text, where)
    if len(raw) != 64:
        what = "a public key or a bare seed" if len(raw) == 32 else "no Solana key"
        raise WalletError(f"{where} has {len(raw)} bytes: that is {what}", hint=_FORMS)
    keypair = Keypair.from_seed(raw[:32])
    if bytes(keypair.pubkey()) != raw[32:]:
        raise WalletError(
            f"{where} is damaged: its public half doesn't belong to its secret half",
            hint="restore it from your backup; nothing was signed with it",
        )
    return keypair


def _from_json(text: str, where: str) -> bytes:
    try:
        numbers = json.loads(text)
    except (ValueError, RecursionError):
        raise WalletError(f"{where} starts like a JSON list but isn't one", hint=_FORMS) from None
    if not all(type(number) is int and 0 <= number <= 255 for number in numbers):
        raise WalletError(f"{where} isn't a list of bytes from 0 to 255", hint=_FORMS)
    return bytes(numbers)


def _from_base58(text: str, where: str) -> bytes:
    try:
        return bytes(base58.b58decode(text))
    except ValueError:
        raise WalletError(
            f"{where} is neither base58 text nor a JSON list of numbers", hint=_FORMS
        ) from None
