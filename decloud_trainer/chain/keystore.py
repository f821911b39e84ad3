"""The encrypted wallet file: a 32-byte seed under a passphrase.

The file is one JSON object:

    {"decloud_wallet": 1,
     "pubkey": "<base58>",
     "kdf": {"name": "scrypt", "n": 131072, "r": 8, "p": 1, "salt": "<32 hex digits>"},
     "cipher": {"name": "aes-256-gcm", "nonce": "<24 hex digits>"},
     "ciphertext": "<96 hex digits>"}

The key is scrypt(passphrase in Unicode form NFC as UTF-8, salt, n, r, p) of 32 bytes. The
ciphertext is AES-256-GCM of the seed, its tag behind it. Everything besides the ciphertext is
authenticated: the object without it, as JSON with sorted keys and without spaces, is the
associated data. So neither the public key nor a parameter can be changed unnoticed.

The parameters stand in the file, which may come from anywhere: those that would take gigabytes or
minutes are refused before anything is computed. No message repeats a passphrase or a key.
"""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import dataclass, field
from typing import Any, Final

from decloud_trainer.errors import WalletError

VERSION: Final = 1
MAX_FILE_BYTES: Final = 4096
MAX_PASSPHRASE_CHARS: Final = 1024
SEED_BYTES: Final = 32
# About 0.35 s and 128 MB on a common machine.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 17, 8, 1
# scrypt takes 128 * n * r bytes, and time in proportion to n * r * p.
_LEAST_N, _MOST_N = 1 << 10, 1 << 20
_MOST_MEMORY_BYTES: Final = 512 << 20
_MOST_WORK: Final = 8 * SCRYPT_N * SCRYPT_R * SCRYPT_P
_SALT_BYTES, _NONCE_BYTES, _TAG_BYTES = 16, 12, 16


@dataclass(frozen=True, slots=True)
class Sealed:
    """A wallet file whose form has been checked, and whose content nobody knows yet.

    Attributes:
        pubkey: as the file states it, base58; proved only by `unseal`.
    """

    pubkey: str
    n: int
    r: int
    p: int
    salt: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


def is_sealed(text: str) -> bool:
    """Whether a key file's text is meant to be of this form."""
    return text.lstrip().startswith("{")


def seal(seed: bytes, pubkey: str, passphrase: str) -> bytes:
    """The file's bytes for a seed of 32 bytes.

    Raises:
        WalletError: an empty or far too long passphrase; the package cryptography is missing.
    """
    assert len(seed) == SEED_BYTES
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    blank = Sealed(pubkey, SCRYPT_N, SCRYPT_R, SCRYPT_P, salt, nonce, b"")
    ciphertext = _cipher(blank, passphrase).encrypt(nonce, seed, _header(blank))
    content = {**_content(blank), "ciphertext": ciphertext.hex()}
    return json.dumps(content, indent=2).encode() + b"\n"


def parse(text: str, where: str) -> Sealed:
    """Check the form of an encrypted wallet file; `where` names it in messages.

    Raises:
        WalletError: it isn't one, is of a newer version, or has absurd parameters.
    """
    if len(text) > MAX_FILE_BYTES:
        raise WalletError(f"{where} is too long for an encrypted wallet")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise WalletError(
            f"{where} starts like an encrypted wallet but isn't valid JSON", hint=_RESTORE
        ) from None
    if not isinstance(content, dict) or "decloud_wallet" not in content:
        raise WalletError(f"{where} is no encrypted wallet of this program")
    if content["decloud_wallet"] != VERSION:
        raise WalletError(
            f"{where} has the wallet format {str(content['decloud_wallet'])[:20]!r}, "
            f"this version reads {VERSION}",
            hint="update decloud-trainer",
        )
    try:
        return _read(content)
    except (KeyError, TypeError, ValueError) as error:
        what = error.args[0] if isinstance(error, _Absurd) else "it is damaged"
        raise WalletError(f"{where} can't be used: {what}", hint=_RESTORE) from None


def unseal(sealed: Sealed, passphrase: str, where: str) -> bytes:
    """The seed, 32 bytes.

    Raises:
        WalletError: the passphrase is wrong, or a byte of the file was changed: the two can't be
            told apart.
    """
    from cryptography.exceptions import InvalidTag

    cipher = _cipher(sealed, passphrase)
    try:
        seed = bytes(cipher.decrypt(sealed.nonce, sealed.ciphertext, _header(sealed)))
    except InvalidTag:
        raise WalletError(
            f"wrong passphrase for {where}",
            hint="try again; if you are sure of it, the file is damaged: restore your backup",
        ) from None
    return seed


_RESTORE = "restore it from your backup"


class _Absurd(ValueError):
    """A parameter that no honest file has; the text may be shown."""


def _read(content: dict[str, Any]) -> Sealed:
    kdf, cipher = content["kdf"], content["cipher"]
    if set(content) != {"decloud_wallet", "pubkey", "kdf", "cipher", "ciphertext"}:
        raise _Absurd("it has other fields than an encrypted wallet")
    if kdf["name"] != "scrypt" or cipher["name"] != "aes-256-gcm":
        raise _Absurd("it names a method that this version doesn't know")
    n, r, p = (kdf[name] for name in ("n", "r", "p"))
    if not all(type(value) is int for value in (n, r, p)):
        raise _Absurd("its scrypt parameters are no numbers")
    _check_cost(n, r, p)
    pubkey = content["pubkey"]
    if not isinstance(pubkey, str) or not 32 <= len(pubkey) <= 44:
        raise _Absurd("its public key is none")
    return Sealed(
        pubkey,
        n,
        r,
        p,
        salt=_bytes(kdf["salt"], _SALT_BYTES),
        nonce=_bytes(cipher["nonce"], _NONCE_BYTES),
        ciphertext=_bytes(content["ciphertext"], SEED_BYTES + _TAG_BYTES),
    )


def _check_cost(n: int, r: int, p: int) -> None:
    if not _LEAST_N <= n <= _MOST_N or n & (n - 1) or r < 1 or p < 1:
        raise _Absurd(f"scrypt with n={n}, r={r}, p={p} is not allowed")
    if 128 * n * r > _MOST_MEMORY_BYTES or n * r * p > _MOST_WORK:
        raise _Absurd(f"scrypt with n={n}, r={r}, p={p} would take too much memory or time")


def _bytes(text: Any, size: int) -> bytes:
    if not isinstance(text, str) or len(text) != 2 * size:
        raise ValueError(size)
    return bytes.fromhex(text)


def _content(sealed: Sealed) -> dict[str, Any]:
    """The file's object without the ciphertext."""
    return {
        "decloud_wallet": VERSION,
        "pubkey": sealed.pubkey,
        "kdf": {
            "name": "scrypt",
            "n": sealed.n,
            "r": sealed.r,
            "p": sealed.p,
            "salt": sealed.salt.hex(),
        },
        "cipher": {"name": "aes-256-gcm", "nonce": sealed.nonce.hex()},
    }


def _header(sealed: Sealed) -> bytes:
    return json.dumps(_content(sealed), sort_keys=True, separators=(",", ":")).encode()


def _cipher(sealed: Sealed, passphrase: str) -> Any:
    """AESGCM under the key that the passphrase gives."""
    if not passphrase:
        raise WalletError("an empty passphrase protects nothing", hint="give one")
    if len(passphrase) > MAX_PASSPHRASE_CHARS:
        raise WalletError(f"a passphrase has at most {MAX_PASSPHRASE_CHARS} characters")
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    except ImportError as error:
        raise WalletError(
            "encrypted wallets need the package cryptography", hint="pip install cryptography"
        ) from error
    kdf = Scrypt(salt=sealed.salt, length=32, n=sealed.n, r=sealed.r, p=sealed.p)
    return AESGCM(kdf.derive(unicodedata.normalize("NFC", passphrase).encode("utf-8", "replace")))
