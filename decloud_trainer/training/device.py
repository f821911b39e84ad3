"""Where to compute and in which precision: decided once per run, and said."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from decloud_trainer.errors import SettingsError
from decloud_trainer.training.limits import usable_processors

# Within `Device`, the name torch means its property.
Layout: TypeAlias = torch.memory_format
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is there.

    Attributes:
        name: torch's name for it, e.g. ``cpu`` or ``cuda:0``.
        autocast: the lower precision that the forward pass may use; None = float32 throughout.
        threads: CPU threads that torch uses.
        memory_format: in which order images and convolutions lie in memory: ``channels_last`` or
            ``contiguous``. Results differ by rounding only.
    """

    name: str
    autocast: torch.dtype | None
    threads: int
    memory_format: str = "channels_last"

    @property
    def torch(self) -> torch.device:
        return torch.device(self.name)

    @property
    def precision_name(self) -> str:
        """``float32``, ``bfloat16`` or ``float16``."""
        return str(self.autocast or torch.float32).removeprefix("torch.")

    @property
    def layout(self) -> Layout:
        """`memory_format` as torch's value."""
        return FORMATS[self.memory_format]

    def using(self, precision: str, memory_format: str | None = None) -> Device:
        """The same device with a precision (and a memory format) that was chosen before.

        Raises:
            SettingsError: the device doesn't compute in it.
        """
        if precision not in precisions(self):
            raise SettingsError(
                f"{self.name} does not train in {precision} (it does in "
                f"{', '.join(precisions(self))})",
                hint="decloud-trainer config --set precision=auto",
            )
        return replace(
            self,
            autocast=PRECISIONS[precision],
            memory_format=memory_format or self.memory_format,
        )

    def precision(self) -> contextlib.AbstractContextManager[object]:
        """The context for a forward pass. Weights and the optimiser stay float32 in any case."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.torch.type, dtype=self.autocast)


def choose_device(wanted: str, threads: int) -> Device:
    """Probe and set up the device of a run. Sets torch's thread count for this process.

    `threads` 0 takes torch's own choice (one per physical core), but no more than the processors
    that this process may run on: a container often has fewer than its machine. The precision is
    float32 until something better is measured (`tuning.tune`) or named (`Device.using`).

    Raises:
        SettingsError: the device asked for isn't there.
    """
    torch.set_num_threads(threads or min(torch.get_num_threads(), usable_processors()))
    name = _present(wanted)
    if name.startswith("cuda"):
        # float32 products in TF32, as convolutions are by default, and the fastest kernel for the
        # one shape of batch that there is. Both may differ from run to run in the last bits, as
        # CUDA's own sums do anyway; scoring is done on the CPU.
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return Device(name, None, torch.get_num_threads())


def precisions(device: Device) -> tuple[str, ...]:
    """What a forward pass can be computed in there, float32 first.

    bfloat16 has float32's range; float16 has not, so that gradients have to be scaled: it is for
    GPUs that have nothing else. A CPU takes every one of them, slowly where it lacks the
    instructions. Apple's GPUs know bfloat16 from macOS 14 on.
    """
    kind = device.torch.type
    if kind == "cuda":
        major, _ = torch.cuda.get_device_capability(device.torch)
        return ("float32", "bfloat16", "float16") if major >= 8 else ("float32", "float16")
    if kind == "mps":
        return ("float32", "bfloat16") if _mps_has_bfloat16() else ("float32",)
    return ("float32", "bfloat16", "float16")


def random_state(device: Device) -> dict[str, Tensor]:
    """Of torch's generators that training on this device draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.torch.type == "cuda":
        state["gpu"] = torch.cuda.get_rng_state(device.torch)
    elif device.torch.type == "mps":
        state["gpu"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Tensor], device: Device) -> None:
    """Have them draw what they drew from there on."""
    torch.set_rng_state(state["cpu"])
    if device.torch.type == "cuda":
        torch.cuda.set_rng_state(state["gpu"], device.torch)
    elif device.torch.type == "mps":
        torch.mps.set_rng_state(state["gpu"])


def _mps_has_bfloat16() -> bool:
    try:
        torch.zeros(1, dtype=torch.bfloat16, device="mps")
        with torch.autocast("mps", dtype=torch.bfloat16):
            pass
    except (RuntimeError, TypeError):  # torch's refusals, old and new
        return False
    return True


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
            hint="decloud-trainer config --set device=auto, or install a torch build that has it",
        )
    return f"cuda:{number or 0}" if kind == "cuda" else kind
