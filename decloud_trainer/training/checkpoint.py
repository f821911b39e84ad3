"""The one form of a training state on disk: tensors as safetensors, all else as canonical JSON.

A checkpoint is one safetensors file. Its metadata has the single key ``checkpoint``, a JSON text
with sorted keys and no spaces: the document, a format number, which tensors are complex (stored as
pairs of real numbers) and a SHA-256 of all tensors' hashes. Equal checkpoints are equal bytes.
Nothing in it is ever executed: it is no pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from decloud_trainer.errors import CorruptionError, SettingsError
from decloud_trainer.store.chain import Hashed
from decloud_trainer.training.commit_plan import CommitReport

FORMAT = 2
KEY = "checkpoint"
MAX_HEADER_BYTES = 100 * 1024**2  # safetensors' own limit
MAX_CHECKPOINT_BYTES = 64 * 1024**3
# The types of numbers and their names in the format, in the order that it lays tensors down in.
_TYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_PLACES = {kind: place for place, kind in enumerate(_TYPES)}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training state.

    Attributes:
        document: JSON values; what they mean is the loop's and the run's business.
        tensors: by name, on the CPU. Whoever makes a checkpoint gives copies.
    """

    document: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix/``, by the rest of their names."""
        start = f"{prefix}/"
        return {
            name.removeprefix(start): value
            for name, value in self.tensors.items()
            if name.startswith(start)
        }


class Checkpoints(Protocol):
    """Where a run's checkpoints go. They may be lost; the run then starts from an older one."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep it. May return before it is durable, and may leave one out while it is busy."""

    def commit(self, checkpoint: Checkpoint, message: str, metrics: Mapping[str, float]) -> None:
        """Keep it as one that was asked for: it is not left out for being busy.

        Args:
            metrics: at least one.
        """

    def latest(self) -> Checkpoint | None:
        """The newest one that is whole, if there is any."""

    def close(self) -> CommitReport:
        """Wait for what is being kept, and tell what became of it all. May be called again."""


def encode(checkpoint: Checkpoint) -> bytes:
    """The one byte string of this checkpoint. Raises as `pieces`."""
    return b"".join(piece.data for piece in pieces(checkpoint))


def pieces(checkpoint: Checkpoint, look: Callable[[], None] = lambda: None) -> list[Hashed]:
    """The same bytes as the file's header and each of its tensors, which aren't copied.

    It is done by hand, since it is done beside a training: what Python does there for each tensor,
    and what is copied, the training waits for.

    Args:
        look: called before each tensor that is hashed; what it raises is passed on.

    Raises:
        SettingsError: a tensor has numbers of a type that the format doesn't know.
    """
    stored = {name: value.detach().contiguous() for name, value in checkpoint.tensors.items()}
    pairs = sorted(name for name, value in stored.items() if value.is_complex())
    for name in pairs:
        stored[name] = torch.view_as_real(stored[name]).contiguous()
    hashed = {}
    for name, value in stored.items():
        look()
        hashed[name] = Hashed.of(_bytes(value))
    text = _canonical(
        {
            "format": FORMAT,
            "document": dict(checkpoint.document),
            "complex": pairs,
            "sha256": _digest(stored, hashed),
        }
    )
    header: dict[str, Any] = {"__metadata__": {KEY: text}}
    names, end = sorted(stored, key=lambda name: (_place(name, stored[name]), name)), 0
    for name in names:
        value = stored[name]
        begin, end = end, end + value.nbytes
        header[name] = {
            "dtype": _TYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [begin, end],
        }
    first = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    first += b" " * (-len(first) % 8)
    start = Hashed.of(len(first).to_bytes(8, "little") + first)
    return [start, *(hashed[name] for name in names)]


def decode(source: bytes | Path) -> Checkpoint:
    """The checkpoint in these bytes, or in this file.

    Raises:
        CorruptionError: it is torn, damaged, no checkpoint, or of another version.
    """
    where = f"the checkpoint {source}" if isinstance(source, Path) else "the checkpoint"
    try:
        data = source if isinstance(source, bytes) else _read(source)
        outer = _outer(data)
        tensors = safetensors.torch.load(data)
        hashed = {name: Hashed.of(_bytes(value)) for name, value in tensors.items()}
        if outer["sha256"] != _digest(tensors, hashed):
            raise ValueError("its tensors aren't those that it was made of")
        for name in outer["complex"]:
            tensors[name] = torch.view_as_complex(tensors[name])
        document = outer["document"]
        if not isinstance(document, dict):
            raise TypeError("its document is no JSON object")
    except OSError as error:
        raise CorruptionError(f"{where} can't be read: {error.strerror}") from error
    except (
        safetensors.SafetensorError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RuntimeError,
        RecursionError,
    ) as error:
        raise CorruptionError(
            f"{where} can't be used: {error}", hint="an older one, or a new run, takes its place"
        ) from error
    return Checkpoint(document, tensors)


def _canonical(value: object) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
    )


def _digest(tensors: Mapping[str, Tensor], hashed: Mapping[str, Hashed]) -> str:
    """Of all names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        told = f"{len(name)} {name} {value.dtype} {tuple(value.shape)} {hashed[name].sha256}\n"
        digest.update(told.encode())
    return digest.hexdigest()


def _bytes(value: Tensor) -> memoryview:
    """A contiguous tensor's own memory."""
    return value.reshape(-1).view(torch.uint8).numpy().data


def _place(name: str, value: Tensor) -> int:
    if value.dtype not in _PLACES:
        raise SettingsError(f"a checkpoint can't hold {name}: it is of the type {value.dtype}")
    return _PLACES[value.dtype]


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_CHECKPOINT_BYTES:
        raise ValueError(f"it has {size:,} bytes")
    return path.read_bytes()


def _outer(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError("its header doesn't fit into it")
    header = json.loads(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise TypeError("its header is no JSON object")
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or set(metadata) != {KEY}:
        raise ValueError("it is no checkpoint")
    outer = json.loads(metadata[KEY])
    if not isinstance(outer, dict) or outer.get("format") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}")
    if not isinstance(outer.get("complex"), list):
        raise TypeError("it doesn't say which tensors are complex")
    return outer
