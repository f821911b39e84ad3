"""What was found in a dataset's files, remembered while they stay as they are: a listing needn't
unpack archives and read all labels again."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from decloud_trainer import files
from decloud_trainer.errors import DecloudError
from decloud_trainer.training.data.samples import Found
from decloud_trainer.training.data.split import Split

# Part of what is compared: change it whenever other things are found in the same files.
VERSION = 1
# A file that changed so lately may change once more without a new time stamp.
SETTLED_S = 2.0


def found(note: Path, kind: str, splits: Mapping[str, Split], look: Callable[[], Found]) -> Found:
    """What `look` found when the files were as they are now, or finds.

    Args:
        note: the file that remembers; it may be lost at any time.
    """
    state, changed = _state(kind, splits)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        said = json.loads(note.read_bytes())
        if said["state"] == state:
            known = {**said["found"]}
            for name in ("columns", "labels"):
                known[name] = tuple(known[name])
            return Found(**known)
    seen = look()
    if time.time() - changed > SETTLED_S:
        with contextlib.suppress(OSError, DecloudError):
            files.make_private_dir(note.parent)
            said = {"state": state, "found": dataclasses.asdict(seen)}
            files.write_atomic(note, json.dumps(said).encode())
    return seen


def _state(kind: str, splits: Mapping[str, Split]) -> tuple[str, float]:
    """(a digest of names, sizes and times of all files; the latest of the times, unix seconds)"""
    total, changed = hashlib.sha256(f"{VERSION} {kind}".encode()), 0.0
    for which, split in sorted(splits.items()):
        total.update(repr((which, split.transform, split.identity)).encode())
        for file in split.files:
            if isinstance(file, Path):
                with contextlib.suppress(OSError):
                    seen = file.stat()
                    changed = max(changed, seen.st_mtime, seen.st_ctime)
                    stamp = (str(file), seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
                    total.update(repr(stamp).encode())
    return total.hexdigest(), changed
