"""Checkpoints: canonical bytes, every kind of tensor, and nothing damaged is ever taken."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from decloud_trainer.errors import CorruptionError, SettingsError
from decloud_trainer.training.checkpoint import (
    Checkpoint,
    decode,
    encode,
    pieces,
)


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "model/weight": torch.randn(4, 3, 2, 2, generator=generator),
        "model/half": torch.randn(5, generator=generator).to(torch.bfloat16),
        "model/wave": torch.randn(3, 2, generator=generator, dtype=torch.complex64),
        "model/double wave": torch.randn(2, generator=generator, dtype=torch.complex128),
        "optimizer/0/step": torch.tensor(7.0),
        "random/torch": torch.get_rng_state(),
        "counter": torch.tensor(3),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
    }


def checkpoint(step: int = 12) -> Checkpoint:
    return Checkpoint({"step": step, "loss": [0.1 + 0.2, None], "b": {"ä": True}}, tensors())


def same(first: Checkpoint, second: Checkpoint) -> bool:
    return (
        first.document == second.document
        and first.tensors.keys() == second.tensors.keys()
        and all(
            value.dtype == second.tensors[name].dtype and torch.equal(value, second.tensors[name])
            for name, value in first.tensors.items()
        )
    )


def metadata_of(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length])["__metadata__"])


def test_what_is_decoded_is_what_was_encoded(tmp_path: Path) -> None:
    """Half, double, complex, integer, boolean and empty tensors; numbers to the last digit."""
    assert same(decode(encode(checkpoint())), checkpoint())
    (tmp_path / "state").write_bytes(encode(checkpoint()))
    assert same(decode(tmp_path / "state"), checkpoint())
    assert checkpoint().part("optimizer/0").keys() == {"step"}


def test_equal_checkpoints_are_equal_bytes() -> None:
    """Whatever the order in which tensors and keys were put in, or how they lie in memory."""
    one = checkpoint()
    other = Checkpoint(
        dict(reversed(one.document.items())),
        {
            name: value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
            for name, value in reversed(one.tensors.items())
        },
    )
    assert encode(one) == encode(other)
    assert encode(one) != encode(checkpoint(13))


def test_the_pieces_are_the_file() -> None:
    """Header and tensors one by one, nothing between them; an equal tensor is an equal piece, and
    no copy of it."""
    own = checkpoint()
    hashed = pieces(own)
    assert all(hashlib.sha256(part.data).hexdigest() == part.sha256 for part in hashed)
    parts = [part.data for part in hashed]
    assert b"".join(parts) == encode(own)
    assert len(parts) == 1 + len(tensors())
    other = [part.data for part in pieces(checkpoint(13))]
    assert parts[0] != other[0]
    assert parts[1:] == other[1:]
    before = [bytes(part) for part in parts]
    own.tensors["model/weight"].add_(1)
    assert sum(part != held for part, held in zip(parts, before, strict=True)) == 1


def test_the_bytes_are_those_of_safetensors() -> None:
    """The library lays the same tensors and metadata down in the same bytes."""
    held = {**tensors(), 'ä/"\n': torch.ones(3, dtype=torch.int32)}
    data = encode(Checkpoint({"ä": 1}, held))
    stored = {
        name: torch.view_as_real(value) if value.is_complex() else value
        for name, value in held.items()
    }
    assert data == safetensors.torch.save(stored, metadata_of(data))


def test_numbers_of_an_unknown_type_are_refused() -> None:
    """With the tensor's name; nothing is stored that couldn't be read back."""
    with pytest.raises(SettingsError, match="can't hold model/odd"):
        encode(Checkpoint({}, {"model/odd": torch.zeros(2, dtype=torch.uint16)}))


def test_the_metadata_is_one_canonical_text() -> None:
    """Any reader of safetensors gets at the document."""
    metadata = metadata_of(encode(checkpoint()))
    assert list(metadata) == ["checkpoint"]
    outer = json.loads(metadata["checkpoint"])
    assert outer["document"] == checkpoint().document
    assert outer["complex"] == ["model/double wave", "model/wave"]


def test_damage_anywhere_is_noticed() -> None:
    """Torn off, lengthened, or one bit turned, in the header and in the tensors."""
    data = encode(checkpoint())
    length = int.from_bytes(data[:8], "little")
    wrong = [b"", data[:5], data[:-1], data[: len(data) // 2], data + b"\0", b"\xff" * 64]
    # The header's end is padding, which means nothing.
    used = len(data[8 : 8 + length].rstrip()) + 8
    for place in [*range(0, used, 97), *range(8 + length, len(data), 211)]:
        turned = bytearray(data)
        turned[place] ^= 0x04
        wrong.append(bytes(turned))
    for each in wrong:
        with pytest.raises(CorruptionError):
            decode(each)


def test_what_is_no_checkpoint_is_refused() -> None:
    """A safetensors file of someone else, another format, a document that isn't one."""
    import safetensors.torch

    good = encode(checkpoint())
    for data in (
        safetensors.torch.save({"a": torch.ones(1)}),
        safetensors.torch.save({"a": torch.ones(1)}, {"checkpoint": "{}", "more": ""}),
        safetensors.torch.save({"a": torch.ones(1)}, {"checkpoint": "[" * 100_000}),
        good.replace(b'\\"format\\":2', b'\\"format\\":1'),
    ):
        with pytest.raises(CorruptionError):
            decode(data)
    with pytest.raises(CorruptionError, match="can't be read"):
        decode(Path("/nowhere/checkpoint"))
