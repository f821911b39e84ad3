"""The artefact's arithmetic: what the scoring side will reconstruct from it."""

from __future__ import annotations

import pytest
import torch

from decloud_trainer.errors import Diverged, HostileFile
from decloud_trainer.training.artifacts import apply, check_own, difference, serialise

SHAPES = {"w": (300, 100), "b": (7,)}


def weights(seed: int, scale: float = 0.05) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) * scale for key, shape in SHAPES.items()}


def moved(base: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    return {
        key: value + step
        for (key, value), step in zip(base.items(), weights(seed, 0.003).values(), strict=True)
    }


@pytest.mark.parametrize("scale", [-0.1, 1.0])
def test_float64_artefacts_reconstruct_the_trained_weights_bit_for_bit(scale: float) -> None:
    """In double precision the scoring side arrives at exactly the weights that were trained."""
    base, trained = weights(1), moved(weights(1), 2)
    stored = check_own(serialise(difference(base, trained, scale, "float64")), SHAPES)
    applied = apply(base, stored, scale)
    assert all(torch.equal(applied[key], trained[key]) for key in base)
    assert all(value.dtype == torch.float32 for value in applied.values())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-7), ("float16", 2e-5)])
def test_smaller_types_reconstruct_nearly(dtype: str, tolerance: float) -> None:
    """Single and half precision are off by rounding only."""
    base, trained = weights(1), moved(weights(1), 2)
    stored = check_own(serialise(difference(base, trained, -0.1, dtype)), SHAPES)
    applied = apply(base, stored, -0.1)
    assert all(torch.allclose(applied[k], trained[k], rtol=0, atol=tolerance) for k in base)


def test_descent_artefacts_are_ten_times_the_negative_update() -> None:
    """The scoring side subtracts a tenth: the file holds (base - trained) / 0.1."""
    base = {"w": torch.tensor([1.0, 2.0])}
    trained = {"w": torch.tensor([1.5, 1.75])}
    assert difference(base, trained, -0.1, "float64")["w"].tolist() == pytest.approx([-5.0, 2.5])
    assert difference(base, trained, 1.0, "float64")["w"].tolist() == [0.5, -0.25]


def test_applying_is_the_scoring_sides_own_statement() -> None:
    """`apply` equals ``param -= 0.1 * gradient`` to the bit for every artefact type."""
    base, gradient = weights(3), weights(4, 0.5)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        cast = {key: value.to(dtype) for key, value in gradient.items()}
        expected = torch.nn.Parameter(base["w"].clone())
        with torch.no_grad():
            expected -= 0.1 * cast["w"]
        assert torch.equal(apply(base, cast, -0.1)["w"], expected)


def test_applying_leaves_out_what_one_side_lacks() -> None:
    """A missing key keeps the base's value, a surplus one is ignored, the base is untouched."""
    base = weights(5)
    before = base["w"].clone()
    applied = apply(base, {"w": torch.ones(300, 100), "zzz": torch.ones(1)}, 1.0)
    assert torch.equal(applied["b"], base["b"])
    assert torch.equal(base["w"], before)
    assert set(applied) == set(base)


def test_equal_weights_give_equal_bytes() -> None:
    """The same artefact has the same bytes, so the same CID, whenever it is written."""
    assert serialise(weights(1)) == serialise(weights(1))
    assert serialise(weights(1)) != serialise(weights(2))


def test_weights_that_are_of_no_use_make_no_artefact() -> None:
    """NaN and values beyond the artefact's type are told apart and refused."""
    base = {"w": torch.zeros(2)}
    with pytest.raises(Diverged, match="no longer finite"):
        difference(base, {"w": torch.tensor([1.0, float("nan")])}, -0.1, "float32")
    with pytest.raises(Diverged, match="float16"):
        difference(base, {"w": torch.tensor([1.0, 1e5])}, -0.1, "float16")


def test_an_artefact_of_another_model_is_noticed() -> None:
    """Bytes read back must have the model's keys and shapes."""
    with pytest.raises(HostileFile, match="keys and shapes"):
        check_own(serialise({"w": torch.ones(3)}), SHAPES)
