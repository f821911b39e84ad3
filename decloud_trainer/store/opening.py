"""A chain by its name: a folder's path, ``s3://bucket/prefix``, or a plain word."""

from __future__ import annotations

import re
from pathlib import Path

from decloud_trainer.errors import SettingsError
from decloud_trainer.files import home_dir
from decloud_trainer.store.backend import Folder
from decloud_trainer.store.chain import Store

DEFAULT = "default"
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def stores_dir() -> Path:
    """Where chains with a plain word as their name lie."""
    return home_dir() / "stores"


def open_store(name: str) -> Store:
    """The chain, which needn't exist yet; nothing is read or written.

    A word without a slash is a chain in the data folder: ``experiments``.

    Raises:
        SettingsError: the name can't be one, or its kind needs an extra that isn't installed.
    """
    if name.startswith("s3://"):
        from decloud_trainer.store.s3 import Bucket

        return Store(Bucket(name), name)
    if "://" in name or not name.strip():
        raise SettingsError(
            f"{name!r} names no chain of versions",
            hint="give a folder's path or s3://bucket/prefix",
        )
    path = stores_dir() / name if _WORD.fullmatch(name) else Path(name).expanduser().absolute()
    return Store(Folder(path), str(path))
