"""What inspections of models have found, by the structure of the model's file.

An inspection takes seconds, since it imports torch and measures the speed of this machine; a
round may be joinable for less. Rounds come with the same few networks again and again, so what
one inspection found holds for each later model with the same tensors: names, types and shapes.
Those are read here without torch and without running anything in the file, by the reader that
the training child uses. That child checks the whole file anew before it trains.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from decloud_trainer import __version__
from decloud_trainer.errors import DecloudError
from decloud_trainer.files import write_atomic
from decloud_trainer.training.torchfile import Archive

log = logging.getLogger(__name__)

MAX_BYTES: Final = 128 * 1024**2
"""Larger files aren't read into this process; they are inspected each time."""
MAX_ENTRIES: Final = 200
# The machine's speed is measured anew after so long.
MAX_AGE_S: Final = 7 * 24 * 3600.0


def recalled(path: Path, model: Path, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """The report that an inspection of this model would give; None if that isn't known.

    Args:
        path: where reports are kept.
        spec: of the inspection. Its device, threads and the like are part of what is remembered.
    """
    found = _structure(model, spec)
    if found is None:
        return None
    key, sha256 = found
    entry = _load(path).get(key)
    if not isinstance(entry, dict) or not isinstance(entry.get("report"), dict):
        return None
    if not 0 <= time.time() - _at(entry) < MAX_AGE_S:
        return None
    return {**entry["report"], "sha256": sha256}


def remember(path: Path, model: Path, spec: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Keep an inspection's report for the next model with the same tensors."""
    found = _structure(model, spec)
    if found is None or found[1] != report.get("sha256"):
        return
    kept = {**_load(path), found[0]: {"at": time.time(), "report": dict(report)}}
    newest = sorted(kept, key=lambda key: _at(kept[key]))[-MAX_ENTRIES:]
    try:
        write_atomic(path, json.dumps({key: kept[key] for key in newest}, indent=1).encode())
    except OSError as error:
        log.debug("what an inspection found can't be kept: %s", error.strerror)


def _structure(model: Path, spec: Mapping[str, Any]) -> tuple[str, str] | None:
    """A name for the file's tensors under this spec, and the file's SHA-256."""
    try:
        if model.stat().st_size > MAX_BYTES:
            return None
        data = model.read_bytes()
        tensors = sorted(
            (key, tensor.storage.kind, list(tensor.shape), tensor.offset, list(tensor.stride))
            for key, tensor in Archive(data).describe().items()
        )
    except (OSError, DecloudError):  # the inspection will say what is wrong with it
        return None
    how = {name: value for name, value in spec.items() if name not in ("model", "sha256")}
    text = json.dumps([__version__, tensors, how], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest(), hashlib.sha256(data).hexdigest()


def _load(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _at(entry: Any) -> float:
    at = entry.get("at") if isinstance(entry, dict) else None
    return float(at) if isinstance(at, int | float) else 0.0
