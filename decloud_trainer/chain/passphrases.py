"""Where the passphrase of an encrypted wallet comes from.

In this order: the file descriptor that DECLOUD_WALLET_PASSPHRASE_FD numbers (the option
``--passphrase-fd`` sets it), the file that the setting `passphrase_file` names, the variable
DECLOUD_WALLET_PASSPHRASE, systemd's credential ``decloud-wallet-passphrase``, the system's keyring
(where the package keyring is installed), and at last a question at the terminal. The first one
that is there counts: if it is wrong, that is an error, and none after it is tried.

Both variables are taken out of our environment when they are read, so that no child inherits
them; what the process was started with stays visible to its own user (/proc/PID/environ).
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from decloud_trainer.chain.keystore import MAX_PASSPHRASE_CHARS
from decloud_trainer.chain.wallet import LockedWallet, Wallet
from decloud_trainer.errors import WalletError

log = logging.getLogger(__name__)

VARIABLE: Final = "DECLOUD_WALLET_PASSPHRASE"
FD_VARIABLE: Final = "DECLOUD_WALLET_PASSPHRASE_FD"
CREDENTIAL: Final = "decloud-wallet-passphrase"
KEYRING_SERVICE: Final = "decloud-trainer"
_MAX_BYTES: Final = 4 * MAX_PASSPHRASE_CHARS + 2
_TRIES: Final = 3
_GIVE = (
    "run it at a terminal, or give the passphrase with `passphrase_file`, --passphrase-fd, "
    f"{VARIABLE} or the keyring"
)


@dataclass(frozen=True, slots=True)
class Passphrase:
    """Attributes:
    source: in words, e.g. ``file /etc/decloud/passphrase``.
    """

    text: str = field(repr=False)
    source: str


def unlock(locked: LockedWallet, environ: MutableMapping[str, str], file: str = "") -> Wallet:
    """The wallet that signs; `file` is the setting `passphrase_file`.

    Raises:
        WalletError: no passphrase anywhere, the first one is wrong, or three wrong ones at the
            terminal.
    """
    found = find_passphrase(environ, file, locked.pubkey)
    if found is not None:
        try:
            return locked.unlock(found.text)
        except WalletError as error:
            text = f"{error.message} (it came from the {found.source})"
            raise WalletError(text, hint=error.hint) from None
    if not is_attended():
        raise WalletError(f"{locked.source} is encrypted and there is no passphrase", hint=_GIVE)
    for left in reversed(range(_TRIES)):
        try:
            return locked.unlock(asked(f"Passphrase of the wallet {locked.pubkey}: "))
        except WalletError as error:
            if not left:
                raise
            print(error.message, file=sys.stderr)  # noqa: T201 - as getpass, to the same terminal
    raise AssertionError("the loop returns or raises")


def find_passphrase(
    environ: MutableMapping[str, str], file: str = "", pubkey: str = ""
) -> Passphrase | None:
    """The first one that is there, without asking anybody.

    Args:
        pubkey: under which the keyring has it; empty: the keyring isn't asked.

    Raises:
        WalletError: a source is there and can't be read, or others can read it, too.
    """
    if number := environ.pop(FD_VARIABLE, ""):
        return Passphrase(_from_descriptor(number), f"file descriptor {number}")
    if file:
        return Passphrase(_from_file(Path(file).expanduser()), f"file {file}")
    if text := environ.pop(VARIABLE, ""):
        return Passphrase(text, f"environment {VARIABLE}")
    if folder := environ.get("CREDENTIALS_DIRECTORY", ""):
        credential = Path(folder) / CREDENTIAL
        if credential.exists():
            return Passphrase(_from_file(credential), f"systemd credential {CREDENTIAL}")
    kept = _from_keyring(pubkey) if pubkey else None
    return None if kept is None else Passphrase(kept, "keyring")


def read_passphrase_file(path: Path) -> str:
    """The file's first line.

    Raises:
        WalletError: it can't be read, others can read it, too, or it holds none.
    """
    return _from_file(path.expanduser())


def is_attended() -> bool:
    """Whether somebody sits at a terminal of which we are in the foreground."""
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):  # no terminal after all, or a closed stdin
        return False


def asked(question: str) -> str:
    """What is typed, without showing it. Ctrl-C raises KeyboardInterrupt at once."""
    with _interruptible():
        try:
            return getpass.getpass(question)
        except EOFError as error:
            raise WalletError("no passphrase was given", hint=_GIVE) from error


def new_passphrase(environ: MutableMapping[str, str], file: str = "") -> str:
    """For a wallet that is being encrypted; empty when none is wanted.

    A source that is there is taken; else it is asked for at a terminal, until it was typed twice
    alike. With neither it is empty.

    Raises:
        WalletError: as in `find_passphrase`.
    """
    found = find_passphrase(environ, file)
    if found is not None:
        return found.text
    if not is_attended():
        return ""
    while True:
        first = asked("   Passphrase to encrypt the key (empty: none): ")
        if not first or asked("   The same again: ") == first:
            return first
        print("   they differ", file=sys.stderr)  # noqa: T201 - as in unlock


def _from_descriptor(number: str) -> str:
    """The first line of what is there to read."""
    read = b""
    try:
        handle = int(number)
        while b"\n" not in read and len(read) <= _MAX_BYTES:
            part = os.read(handle, _MAX_BYTES)
            if not part:
                break
            read += part
        if handle > 2:
            os.close(handle)
    except (OSError, ValueError, OverflowError) as error:
        raise WalletError(
            f"the passphrase can't be read from file descriptor {number[:20]}",
            hint="in a shell: decloud-trainer --passphrase-fd 3 start 3< FILE",
        ) from error
    return _line(read, f"file descriptor {number}")


def _from_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            read = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise WalletError(
            f"can't read the passphrase file {path}: {error.strerror}",
            hint="`decloud-trainer config --set passphrase_file=` does without one",
        ) from error
    if mode & 0o077:
        raise WalletError(
            f"other users of this machine can read the passphrase file {path}",
            hint=f"chmod 600 {path}",
        )
    return _line(read, str(path))


def _line(read: bytes, where: str) -> str:
    """The first line without its end; spaces belong to a passphrase."""
    try:
        text = read.split(b"\n", 1)[0].removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise WalletError(f"the passphrase in {where} isn't UTF-8 text") from None
    if not text or len(read) > _MAX_BYTES:
        size = "empty" if not text else "too long"
        raise WalletError(f"the passphrase in {where} is {size}")
    return text


def _from_keyring(pubkey: str) -> str | None:
    if importlib.util.find_spec("keyring") is None:
        return None
    import keyring
    from keyring.errors import KeyringError

    try:
        kept: str | None = keyring.get_password(KEYRING_SERVICE, pubkey)
    except (KeyringError, OSError) as error:  # locked, or no keyring in this session
        log.info("the keyring can't be asked: %s", type(error).__name__)
        return None
    return kept or None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Under an event loop a Ctrl-C would wait for the answer: here it ends the question."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.default_int_handler) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
