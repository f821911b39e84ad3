"""Which preset fits this machine. Pure: the numbers come from `machine`."""

from __future__ import annotations

from typing import NamedTuple

from decloud_trainer.checks.machine import (
    EPOCH_SAMPLES,
    LITTLE_DISK_BYTES,
    SLOW_SAMPLES_PER_S,
    epoch_seconds,
)

# A pass over `EPOCH_SAMPLES` images in under half a minute: more rounds than one can be served.
FAST_SAMPLES_PER_S = 2_000.0


class Proposal(NamedTuple):
    """A preset's name, empty for none at all, and why."""

    preset: str
    reason: str


def proposed_preset(network: str, samples_per_s: float | None, free_bytes: int) -> Proposal:
    """What to offer whoever has chosen nothing yet.

    Args:
        samples_per_s: measured training speed; None if it wasn't measured.
        free_bytes: on the disk that data and models go to.
    """
    if network == "localnet":
        return Proposal("", "the local network's rounds are about data of its own")
    if free_bytes < LITTLE_DISK_BYTES:
        return Proposal("quick-test", f"only {free_bytes / 1e9:,.1f} GB of disk are free")
    if samples_per_s is None:
        return Proposal("image-small", "the speed isn't measured")
    takes = f"{EPOCH_SAMPLES:,} images take {epoch_seconds(samples_per_s):,.0f} s"
    if samples_per_s < SLOW_SAMPLES_PER_S:
        return Proposal("quick-test", f"{takes}: it trains on a part of the data")
    if samples_per_s < FAST_SAMPLES_PER_S:
        return Proposal("image-small", takes)
    return Proposal("image-all", takes)
