"""What an attempt after a failed one is given: less work at a time, which takes less memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

# The smallest batch: batch normalisation needs two samples.
LEAST_BATCH = 2
# So often may the program die during a job before the job itself is taken for the reason.
DEATHS_AT_FULL = 3


def times_backed_off(attempts: int, deaths: int) -> int:
    """How often the settings were halved for the attempt of that number (from 1).

    A death of the whole program, a power cut for instance, says little about the job."""
    return max(attempts - 1, 0) + deaths // DEATHS_AT_FULL


def backed_off(spec: Mapping[str, Any], times: int) -> dict[str, Any]:
    """The worker's spec with batch and threads halved so often; as it is for 0.

    A training with other settings is another run: it begins anew and not at its checkpoint,
    which was made on the way to where it failed."""
    after = dict(spec)
    if times <= 0:
        return after
    if isinstance(batch := spec.get("batch_size"), int):
        after["batch_size"] = min(batch, max(LEAST_BATCH, batch >> times))
    if isinstance(threads := spec.get("threads"), int):
        after["threads"] = max(1, (threads or os.cpu_count() or 1) >> times)
    return after


def told(spec: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What is different, for the log; empty if nothing is."""
    names = [name for name in after if after[name] != spec.get(name)]
    return ", ".join(f"{name} {after[name]}" for name in sorted(names))
