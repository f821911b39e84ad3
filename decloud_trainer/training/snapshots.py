"""Training states as versions of a chain: the checkpoint's very bytes, shared piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from decloud_trainer.errors import CorruptionError, DecloudError
from decloud_trainer.store.chain import Hashed, Store
from decloud_trainer.store.version import Version
from decloud_trainer.training.artifacts import serialise
from decloud_trainer.training.checkpoint import KEY, Checkpoint, decode, pieces


def commit_checkpoint(
    store: Store,
    checkpoint: Checkpoint,
    message: str,
    *,
    metrics: Mapping[str, float] | None = None,
    onto: Version | Literal["head"] | None = "head",
    look: Callable[[], None] = lambda: None,
) -> Version:
    """Append a training state. Raises as `Store.commit`.

    Args:
        look: called before each tensor that is worked on; what it raises ends the commit, of which
            nothing is seen then.
    """
    looked = _looked(pieces(checkpoint, look), look)
    return store.commit(looked, message, metrics=metrics, onto=onto)


def _looked(found: list[Hashed], look: Callable[[], None]) -> Iterator[Hashed]:
    for piece in found:
        look()
        yield piece


def load_checkpoint(store: Store, version: Version) -> Checkpoint:
    """A version's training state, verified.

    Raises:
        CorruptionError: it is damaged, or no training state.
        DecloudError: a garbage collection gave it up.
    """
    return decode(store.read(version))


def weights_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The model's state_dict."""
    return checkpoint.part("model")


def change_norms(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Parameter -> Euclidean norm of its change; None where shapes differ or one lacks it."""
    norms: dict[str, float | None] = {}
    for name in dict.fromkeys([*old, *new]):
        one, other = old.get(name), new.get(name)
        if one is None or other is None or one.shape != other.shape:
            norms[name] = None
        else:
            wide = torch.complex128 if one.is_complex() or other.is_complex() else torch.float64
            norms[name] = float((other.to(wide) - one.to(wide)).abs().square().sum().sqrt())
    return norms


def weights_file(weights: Mapping[str, Tensor], form: str) -> bytes:
    """A state_dict as a file's bytes, ``safetensors`` or ``torch`` (loads with weights only)."""
    if form == "torch":
        return serialise(weights)
    return safetensors.torch.save(dict(weights))


def checkpoint_file(path: Path) -> Checkpoint:
    """The training state in a file; bare tensors in safetensors become one of a model alone.

    Raises:
        CorruptionError: it is neither.
        DecloudError: it can't be read.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as opened:
            is_state = KEY in (opened.metadata() or {})
            if is_state:
                return decode(path)
            model = {f"model/{name}": opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except OSError as error:
        raise DecloudError(f"can't read {path}: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise CorruptionError(f"{path} is no safetensors file: {error}") from error
    return Checkpoint({}, model)
