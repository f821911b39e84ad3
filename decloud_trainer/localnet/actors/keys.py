"""The actors' own keys: made where they are used, kept in the network's private state folder."""

from __future__ import annotations

import json
from pathlib import Path

from solders.keypair import Keypair

from decloud_trainer.errors import CorruptionError
from decloud_trainer.files import make_private_dir, write_atomic


def actor_key(folder: Path, name: str) -> Keypair:
    """The key of that name in the folder, in the Solana CLI's format; a new one if none is there.

    Raises:
        CorruptionError: the file is no keypair.
    """
    path = make_private_dir(folder) / f"{name}.json"
    if not path.exists():
        key = Keypair()
        write_atomic(path, json.dumps(list(bytes(key))).encode())
        return key
    try:
        return Keypair.from_bytes(bytes(json.loads(path.read_bytes())))
    except (ValueError, TypeError) as error:
        raise CorruptionError(
            f"{path} holds no keypair", hint="delete the file: the actor makes a new key"
        ) from error
