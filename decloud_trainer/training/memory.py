"""How much memory a training takes and there is, told before it is begun."""

from __future__ import annotations

import functools
import os
import resource
import sys
from pathlib import Path

import torch
from torch import Tensor

from decloud_trainer.errors import TrainingError
from decloud_trainer.training.device import Device
from decloud_trainer.training.limits import machine_bytes
from decloud_trainer.training.networks import Architecture

# Python, torch and torchvision, and data sets of the usual size.
PROCESS_BYTES = 800 * 1024**2
# Float32 copies of every tensor at the peak, measured with resnet18 and resnet50: base, model,
# gradient, Adam's two, the running mean, the best state, the network that judges; a checkpoint's
# copy of all that and its bytes; and while an artefact is previewed, the artefact as tensors, as
# bytes and read back, and the network that is scored.
WEIGHT_COPIES = 22
COUNTED_SAMPLES = 2  # batch normalisation needs as many


def training_bytes(architecture: Architecture, batch_size: int) -> int:
    """An estimate of the peak of a training with artefacts in float32, in bytes."""
    fixed, each = _demand(architecture)
    return fixed + each * batch_size


@functools.cache
def _demand(architecture: Architecture) -> tuple[int, int]:
    """(bytes whatever the batch size, bytes for each sample).

    What the network keeps for the backward pass is counted on two samples; it grows with them.
    """
    # Without values: what they are doesn't matter. torch's meta device would need no memory, but
    # a second to load what it infers shapes with.
    model = architecture.empty().to_empty(device="cpu")
    state = list(model.state_dict().values())
    known = {value.untyped_storage().data_ptr() for value in state}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Keeping the tensor keeps its storage's address from being used for another one.
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(architecture.example(COUNTED_SAMPLES))
    activations: int = sum(
        tensor.untyped_storage().nbytes()
        for address, tensor in kept.items()
        if address not in known
    )
    weights = sum(value.numel() * value.element_size() for value in state)
    return PROCESS_BYTES + WEIGHT_COPIES * weights, activations // COUNTED_SAMPLES


def parts_that_fit(architecture: Architecture, batch_size: int, device: Device) -> int:
    """Into how many parts batches have to be split for the device's memory; 1 = they fit whole.

    Raises:
        TrainingError: not even parts of two samples fit; the message says what is needed for
            weights and optimiser, and what is there.
    """
    there = _memory_of(device)
    fixed, each = _demand(architecture)
    parts = 1
    while there is not None and fixed + each * -(-batch_size // parts) > there:
        if batch_size // parts <= COUNTED_SAMPLES:
            needed = fixed + each * min(batch_size, COUNTED_SAMPLES)
            raise TrainingError(
                f"{architecture.name} with {architecture.classes} classes needs about "
                f"{needed / 1e9:.1f} GB to train, however small the batches are: {WEIGHT_COPIES} "
                f"times its weights and {each / 1e6:.0f} MB for each sample; "
                f"{device.name} has {there / 1e9:.1f} GB",
                hint="give this machine more memory, or skip this round",
            )
        parts *= 2
    return parts


def check_fits(architecture: Architecture, batch_size: int, device: Device) -> int:
    """The estimate of `training_bytes`, with batches split as `parts_that_fit` says.

    Raises:
        TrainingError: it doesn't fit, whatever the batch size.
    """
    parts = parts_that_fit(architecture, batch_size, device)
    return training_bytes(architecture, -(-batch_size // parts))


def holds(device: Device, data_bytes: int) -> bool:
    """Whether so much data may lie in the device's memory for the whole run.

    Data that does needs no transfers while it trains, which no pinning and no stream of copies can
    better. A quarter of a GPU's free memory is given to it; the CPU's data lies there anyway.
    """
    if device.torch.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device.torch)
    return 4 * data_bytes <= free


def _memory_of(device: Device) -> int | None:
    if device.torch.type == "cuda":
        return int(torch.cuda.get_device_properties(device.torch).total_memory)
    return machine_bytes()


def used_bytes(device: Device) -> int | None:
    """What training holds now: torch's memory on a GPU, else all of this process; None where the
    system doesn't tell."""
    if device.torch.type == "cuda":
        return int(torch.cuda.memory_reserved(device.torch))
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(device: Device) -> int:
    """The most that it has held so far."""
    if device.torch.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device.torch))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # the one counts bytes, others KiB
