"""Model and gradient files: safe loading of strangers' ones, writing of our own.

Convention: the scoring side computes ``new = base + apply_scale * artefact`` for every tensor
that the artefact names, in torch's own arithmetic. Which it may name, `convention` says.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from decloud_trainer.errors import (
    ContentMismatch,
    Diverged,
    HostileFile,
    TooLarge,
    TrainingError,
)
from decloud_trainer.training.candidates import Shape, Shapes
from decloud_trainer.training.limits import bounded_memory
from decloud_trainer.training.torchfile import Archive, Described, hostile

# What a process with torch in it may hold; one has about 1 GiB after the import.
PROCESS_BYTES = 6 * 1024**3
MODEL_DTYPES = ("float32",)
GRADIENT_DTYPES = ("float16", "bfloat16", "float32", "float64")
_TORCH_DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
}
# Batch normalisation counts its batches in one integer per layer: the only one that a network has.
COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file's tensors, and the digest and size of the bytes they came from."""

    tensors: dict[str, Tensor]
    sha256: str
    bytes: int

    @property
    def shapes(self) -> dict[str, Shape]:
        return {key: tuple(value.shape) for key, value in self.tensors.items()}


def load_model(path: Path, max_bytes: int, sha256: str | None = None) -> Loaded:
    """A base model's float32 tensors and int64 counters.

    Read once: what was checked is what is used.

    Raises:
        TooLarge: over `max_bytes`.
        ContentMismatch: not the bytes that `sha256` names.
        HostileFile: it breaks a rule for model files.
        TrainingError: it can't be read.
    """
    with bounded_memory(PROCESS_BYTES + 8 * max_bytes):
        data = _read(path, max_bytes)
        digest = hashlib.sha256(data).hexdigest()
        if sha256 is not None and digest != sha256:
            raise ContentMismatch(
                f"{path} has the digest {digest[:16]}..., expected {sha256[:16]}...",
                hint="fetch the model again",
            )
        return Loaded(parse(data, MODEL_DTYPES, counters=True), digest, len(data))


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise TrainingError(
            f"can't read the model {path}: {error.strerror}", hint="fetch the model again"
        ) from error
    if len(data) > max_bytes:
        raise TooLarge(
            f"{path} is larger than the {max_bytes:,} bytes allowed for a model",
            hint="raise max_model_mb if you trust its creator",
        )
    return data


def parse(data: bytes, dtypes: Collection[str], *, counters: bool = False) -> dict[str, Tensor]:
    """The dict of tensors in a torch file's bytes; each tensor owns its memory.

    With `counters`, keys that end in ``num_batches_tracked`` are single int64 numbers from 0.

    Raises:
        HostileFile: anything but a zip file by torch.save with a flat dict of contiguous, finite
            tensors of the allowed `dtypes`, each with a storage of its own and of its size.
    """
    archive = Archive(data)
    described = archive.describe()
    if not described:
        hostile("the file holds no tensor")
    owner: dict[str, str] = {}
    for key, tensor in described.items():
        counter = counters and key.rpartition(".")[2] == COUNTER
        _check_tensor(key, tensor, archive, ("int64",) if counter else dtypes)
        if counter and tensor.shape != ():
            hostile(f"{key!a:.60} {tensor.shape} must be a single number")
        other = owner.setdefault(tensor.storage.entry, key)
        if other != key:
            hostile(f"{key!a:.60} shares its memory with {other!a:.60}")
    return {key: _build(key, tensor, archive) for key, tensor in described.items()}


def _check_tensor(key: str, tensor: Described, archive: Archive, dtypes: Collection[str]) -> None:
    name = ascii(key[:60])
    storage = tensor.storage
    if storage.kind not in dtypes:
        hostile(f"{name} has the type {storage.kind}, allowed: {', '.join(dtypes)}")
    itemsize = _TORCH_DTYPES[storage.kind].itemsize
    stored = archive.size(f"data/{storage.entry}")
    if stored != storage.elements * itemsize:
        hostile(f"{name} claims {storage.elements} elements, its storage has {stored} bytes")
    if not _is_contiguous(tensor.shape, tensor.stride):
        hostile(f"{name} {tensor.shape} is not contiguous: strides {tensor.stride}")
    elements = math.prod(tensor.shape)
    if tensor.offset + elements > storage.elements:
        hostile(f"{name} {tensor.shape} reaches beyond its storage of {storage.elements} elements")
    if elements == 0:
        hostile(f"{name} {tensor.shape} is empty")


def _is_contiguous(shape: Shape, stride: Shape) -> bool:
    """Row by row without gaps. The stride of a dimension of one is never used, so may be any."""
    if len(shape) != len(stride):
        return False
    step = 1
    for size, found in zip(reversed(shape), reversed(stride), strict=True):
        if size > 1 and found != step:
            return False
        step *= size
    return True


def _build(key: str, tensor: Described, archive: Archive) -> Tensor:
    dtype = _TORCH_DTYPES[tensor.storage.kind]
    entry = f"data/{tensor.storage.entry}"
    raw = bytearray(archive.read(entry, archive.size(entry)))
    count = math.prod(tensor.shape)
    flat = torch.frombuffer(raw, dtype=dtype, count=count, offset=tensor.offset * dtype.itemsize)
    if not bool(torch.isfinite(flat).all()):
        hostile(f"{key!a:.60} holds values that are not finite")
    if dtype is torch.int64 and int(flat[0]) < 0:
        hostile(f"{key!a:.60} counts {int(flat[0])} batches")
    return flat.clone().reshape(tensor.shape)


def difference(
    base: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    apply_scale: float,
    dtype: str,
    exact: Collection[str] = (),
) -> dict[str, Tensor]:
    """What brings `base` to `trained` when applied: (trained - base) / apply_scale.

    For the keys of `trained`. Computed in float64, then rounded once to `dtype`; those in `exact`
    stay float64. As float64 the scoring side reconstructs `trained` bit for bit.

    Raises:
        Diverged: a value isn't finite; in `dtype`, or at all.
    """
    gradient = {}
    for key, end in trained.items():
        step = (end.double() - base[key].double()) / apply_scale
        value = step.to(torch.float64 if key in exact else _TORCH_DTYPES[dtype]).contiguous()
        if not bool(torch.isfinite(step).all()):
            raise Diverged(f"{key} is no longer finite", hint="lower the learning rate")
        if not bool(torch.isfinite(value).all()):
            raise Diverged(
                f"{key} changed too much for {dtype}", hint="use artefacts in float32 or float64"
            )
        gradient[key] = value
    return gradient


def apply(
    base: Mapping[str, Tensor], gradient: Mapping[str, Tensor], apply_scale: float
) -> dict[str, Tensor]:
    """`base` with the artefact applied exactly as the scoring side does it.

    That is ``parameter -= 0.1 * gradient`` (or ``+=`` for a positive scale): the product in the
    gradient's type, the sum in the wider of both, rounded into the parameter's. Keys that the
    artefact lacks keep the base's values; keys that only it has are ignored.
    """
    applied = {key: value.clone() for key, value in base.items()}
    for key, parameter in applied.items():
        if key not in gradient:
            continue
        step = abs(apply_scale) * gradient[key]
        if apply_scale < 0:
            parameter -= step
        else:
            parameter += step
    return applied


def serialise(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of ``torch.save``. Equal tensors give equal bytes, hence an equal CID.

    Written to memory, because torch.save puts a file's own name into its content.
    """
    buffer = io.BytesIO()
    torch.save(dict(tensors), buffer)
    return buffer.getvalue()


def check_own(data: bytes, shapes: Shapes) -> dict[str, Tensor]:
    """A gradient file of ours, read back from its bytes as strictly as a stranger's.

    It may lack keys of `shapes`: what didn't change.

    Raises:
        HostileFile: it lost something on the way; it must not be submitted.
    """
    tensors = parse(data, GRADIENT_DTYPES)
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    if not found.items() <= dict(shapes).items():
        raise HostileFile(
            "the stored artefact doesn't have the model's keys and shapes",
            hint="check this machine's memory and disk, then train again",
        )
    return tensors
