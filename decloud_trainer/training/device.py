"""Where to compute and in which precision: decided once per run, and said."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

import torch

from decloud_trainer.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is there.

    Attributes:
        name: torch's name for it, e.g. ``cpu`` or ``cuda:0``.
        autocast: the lower precision that the forward pass may use; None = float32 throughout.
        threads: CPU threads that torch uses.
    """

    name: str
    autocast: torch.dtype | None
    threads: int

    @property
    def torch(self) -> torch.device:
        return torch.device(self.name)

    @property
    def precision_name(self) -> str:
        """``float32`` or ``bfloat16``, for display."""
        return str(self.autocast or torch.float32).removeprefix("torch.")

    def precision(self) -> contextlib.AbstractContextManager[object]:
        """The context for a forward pass. Weights and the optimiser stay float32 in any case."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.torch.type, dtype=self.autocast)


def choose_device(wanted: str, threads: int) -> Device:
    """Probe and set up the device of a run. Sets torch's thread count for this process.

    `threads` 0 takes torch's own choice (one per physical core), but no more than the processors
    that this process may run on: a container often has fewer than its machine.

    Raises:
        SettingsError: the device asked for isn't there.
    """
    torch.set_num_threads(threads or min(torch.get_num_threads(), usable_processors()))
    name = _present(wanted)
    return Device(name, _lower_precision(name), torch.get_num_threads())


def usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _present(wanted: str) -> str:
    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda:0"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    found = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }.get(kind, 0)
    if int(number or 0) >= found:
        raise SettingsError(
            f"device {wanted} is not on this machine ({kind} devices found: {found})",
            hint="use --set device=auto, or install a torch build with support for it",
        )
    return f"cuda:{number or 0}" if kind == "cuda" else kind


def _lower_precision(name: str) -> torch.dtype | None:
    """bfloat16 where a GPU computes it natively.

    It has float32's range, so it needs no gradient scaling; float16 does, and the CPU's gain
    depends on its instructions: both stay float32.
    """
    if name.startswith("cuda"):
        major, _ = torch.cuda.get_device_capability(name)
        return torch.bfloat16 if major >= 8 else None
    return None
