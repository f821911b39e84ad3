"""The scripted worker's artefact, against torch itself."""

from __future__ import annotations

import io

import torch

from decloud_trainer.jobs.scripted import gradient_file, simple_cnn_shapes


def test_the_scripted_gradient_is_a_torch_file() -> None:
    """torch reads it under weights_only: every key and shape, small finite float32 values."""
    loaded = torch.load(io.BytesIO(gradient_file(7)), weights_only=True)
    assert {name: tuple(t.shape) for name, t in loaded.items()} == simple_cnn_shapes(10)
    assert sum(tensor.numel() for tensor in loaded.values()) == 586_250
    for tensor in loaded.values():
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert 0 < float(tensor.abs().max()) < 0.01


def test_the_scripted_gradient_depends_on_the_seed_alone() -> None:
    """Equal seeds give equal bytes, hence equal CIDs; other seeds other ones."""
    assert gradient_file(7) == gradient_file(7)
    assert gradient_file(7) != gradient_file(8)
