"""What the commands about chains of versions have in common."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from decloud_trainer.store.chain import Store
    from decloud_trainer.store.version import Version

CHAIN = click.argument("chain", metavar="CHAIN")
VERSION = click.argument("version", metavar="VERSION")
CODES = "\n\nExit codes: 0 done, 1 refused or not there, 2 wrong usage, 4 corruption found."


def opened_chain(chain: str) -> Store:
    from decloud_trainer.store.opening import open_store

    return open_store(chain)


def version_json(opened: Store, version: Version, tags: dict[str, int]) -> dict[str, Any]:
    return {
        "version": version.name,
        "semantic_version": version.semantic_version,
        "hash": version.hash,
        **{key: value for key, value in _record(version).items() if key != "pieces"},
        "bytes": version.size,
        "tags": [name for name, counter in tags.items() if counter == version.counter],
        "collected": opened.is_collected(version),
    }


def _record(version: Version) -> dict[str, Any]:
    return dict(json.loads(version.to_bytes()))


def metrics_text(version: Version) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in sorted(version.metrics.items()))


def printable(text: str) -> str:
    """Somebody's words without what could steer a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)


def progress_line(word: str, quiet: bool) -> Callable[[int, int], None]:
    """Says how far it is, on one line of a terminal; nothing elsewhere."""

    def tell(done: int, total: int) -> None:
        if not quiet and sys.stderr.isatty():
            click.echo(f"\r{word} {done} of {total}", err=True, nl=done == total)

    return tell
