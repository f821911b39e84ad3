"""The models of rounds on this disk: the one place that fetches, checks, keeps and removes them.

A model that was kept for a later round is verified each time before it is used: a damaged one is
fetched again. What has not been used for the longest time goes first, and never what a round in
work needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from decloud_trainer.files import make_private_dir, sha256_file
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.parts import Parts

# What a killed process left of a download may be removed after so long.
_LEFTOVER_S = 86_400.0


def model_path(parts: Parts, cid: str) -> Path:
    """Where a model is kept: named by a hash, since a CID is a stranger's text."""
    return parts.models_dir / f"{hashlib.sha256(cid.encode()).hexdigest()}.pt"


async def verified_model(parts: Parts, cid: str, sha256: str = "") -> Path:
    """The file of the model, here or fetched now, right to the byte.

    Args:
        sha256: its digest, where it is known: checked with that, which takes the least time.
            Otherwise its CID is computed again.

    Raises:
        InvalidCid, TooLarge, ContentMismatch, GatewayError: as `Pins.fetch`.
    """
    model = model_path(parts, cid)
    if not sha256 or not await asyncio.to_thread(_is_file, model, sha256):
        make_private_dir(model.parent)
        await parts.pins.fetch(cid, model, max_bytes=parts.max_model_bytes)
    await asyncio.to_thread(_touch, model)
    await prune_models(parts)
    return model


async def prune_models(parts: Parts) -> None:
    """Remove what is over the limit and what nobody needs any more."""
    needed = {model_path(parts, cid).name for cid in await parts.journal(models_needed)}
    await asyncio.to_thread(prune, parts.models_dir, parts.max_cached_bytes, needed)


def models_needed(journal: Journal) -> set[str]:
    """CIDs of the models that rounds in work need, of whichever wallet and network."""
    rows = journal.rows(
        "SELECT DISTINCT json_extract(seen, '$.model_cid') AS cid FROM rounds"
        " WHERE is_open AND state IN ('watching', 'fetched', 'joined', 'trained')"
        " AND seen IS NOT NULL"
    )
    return {row["cid"] for row in rows if isinstance(row["cid"], str)}


def prune(folder: Path, max_bytes: int, needed: Collection[str] = ()) -> None:
    """Remove models, those first that were unused for the longest time, until they take at most
    `max_bytes` in all. Those whose names are `needed` stay, whatever they take."""
    with contextlib.suppress(OSError):  # a leftover costs only its space
        for part in folder.glob(".*.part"):
            if time.time() - part.stat().st_mtime > _LEFTOVER_S:
                shutil.rmtree(part, ignore_errors=True)
        found = [(path.stat(), path) for path in folder.glob("*.pt")]
        spare = sum(stat.st_size for stat, _ in found) - max_bytes
        for stat, path in sorted(found, key=lambda item: item[0].st_mtime):
            if spare <= 0:
                return
            if path.name not in needed:
                path.unlink(missing_ok=True)
                spare -= stat.st_size


def _is_file(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _touch(path: Path) -> None:
    """Note that it was used now."""
    with contextlib.suppress(OSError):
        os.utime(path)
