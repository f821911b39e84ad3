"""Checks of this machine: disk, file modes, the training device."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from decloud_trainer import data
from decloud_trainer.checks.model import Check, failed, passed, warned
from decloud_trainer.config import config_path
from decloud_trainer.files import cache_dir, home_dir, new_wallet_path
from decloud_trainer.jobs.alone import run_alone
from decloud_trainer.settings import Settings
from decloud_trainer.wiring import home_is_held, worker_of

LITTLE_DISK_BYTES, TOO_LITTLE_DISK_BYTES = 5_000_000_000, 500_000_000
SLOW_SAMPLES_PER_S = 100.0
EPOCH_SAMPLES = 60_000
DEVICE_TIMEOUT_S = 120.0
SHIPPED_MODEL = Path(data.__file__).parent / "models" / "simple_cnn.pt"


def disk_check(folders: Iterable[Path] | None = None) -> Check:
    """Is there room for data, models and logs? By the fullest of the file systems in use."""
    free, folder = min(
        (shutil.disk_usage(existing).free, existing)
        for existing in map(_existing, folders or (home_dir(), cache_dir()))
    )
    text = f"{free / 1e9:,.1f} GB free for {folder}"
    fix = "free some space, or move everything with DECLOUD_HOME"
    if free < TOO_LITTLE_DISK_BYTES:
        return failed("disk", text, fix, free_bytes=free)
    if free < LITTLE_DISK_BYTES:
        return warned("disk", text, fix, free_bytes=free)
    return passed("disk", text, free_bytes=free)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(part for part in (path, *path.parents) if part.exists())


def modes_check(settings: Settings, keypair: str | None) -> Check:
    """Can anyone else read keys? The home is to be 0700, what holds keys 0600."""
    home = home_dir()
    if not home.exists():
        return warned("file modes", f"{home} isn't there yet", "decloud-trainer setup")
    key_file = Path(keypair or settings.keypair_path).expanduser()
    keys = [config_path(), home / "config.json.backup", new_wallet_path(), key_file]
    if settings.passphrase_file:
        keys.append(Path(settings.passphrase_file).expanduser())
    open_keys = [path for path in dict.fromkeys(keys) if _is_open(path)]
    open_home = [home] if _is_open(home) else []
    if not open_keys and not open_home:
        return passed("file modes", f"{home} and the keys are yours alone")
    fixes = [f"chmod 700 {shlex.quote(str(path))}" for path in open_home]
    if open_keys:
        fixes.append(f"chmod 600 {shlex.join(map(str, open_keys))}")
    names = ", ".join(str(path) for path in [*open_home, *open_keys])
    say = failed if open_keys else warned
    return say("file modes", f"other users of this machine can read {names}", " && ".join(fixes))


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o077) and os.name == "posix"
    except OSError:
        return False


async def measure_device(settings: Settings) -> dict[str, Any]:
    """What training would use, and how fast it is: ``device``, ``threads``, ``precision``,
    ``samples_per_s``, ``torch`` and the shipped model's description. Done in a child, which takes
    some seconds: this process imports no torch.

    Raises:
        DecloudError: the device isn't there, or torch doesn't work.
    """
    spec = {
        "model": str(SHIPPED_MODEL),
        "max_bytes": SHIPPED_MODEL.stat().st_size,
        "device": settings.device,
        "threads": settings.threads,
    }
    worker = worker_of(settings)
    return dict(await run_alone("inspect", spec, timeout_s=DEVICE_TIMEOUT_S, worker=worker))


def epoch_seconds(samples_per_s: float) -> float:
    """How long a pass over 60,000 images, as MNIST has, takes at that speed."""
    return EPOCH_SAMPLES / max(samples_per_s, 1e-9)


async def device_check(settings: Settings) -> Check:
    """Does training work here, and how fast?"""
    busy = await asyncio.to_thread(home_is_held)
    found = await measure_device(settings)
    speed = found["samples_per_s"]
    numbers = {key: found[key] for key in ("device", "threads", "precision", "samples_per_s")}
    text = (
        f"{found['device']}, {found['threads']} threads, {found['precision']}: "
        f"{speed:,.0f} samples/s, {epoch_seconds(speed):,.0f} s for {EPOCH_SAMPLES:,} images"
    )
    if busy:
        text += " (measured beside a running daemon)"
    if speed < SLOW_SAMPLES_PER_S and not busy:
        fix = "is something else keeping this machine busy? `--set max_batches=N` trains less"
        return warned("device", text, fix, **numbers)
    return passed("device", text, **numbers)
