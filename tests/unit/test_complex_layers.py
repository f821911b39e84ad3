"""Layers of complex-valued networks: their values and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from decloud_trainer.training.pricing.complex_layers import (
    ComplexLinear,
    CovarianceComplexBatchNorm,
    ModReLU,
    NaiveComplexBatchNorm,
    Residual,
    ZReLU,
)


def numbers(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Complex numbers whose parts are skewed, shifted and correlated."""
    generator = torch.Generator().manual_seed(seed)
    real = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    other = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return torch.complex(3 * real + 1, real + 0.5 * other - 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ComplexLinear(4, 3),
        lambda: ZReLU(),
        lambda: ModReLU(4),
        lambda: NaiveComplexBatchNorm(4),
        lambda: CovarianceComplexBatchNorm(4),
        lambda: Residual(nn.Sequential(ComplexLinear(4, 4), ModReLU(4))),
    ],
)
def test_gradients_are_what_differences_say(make: Callable[[], nn.Module]) -> None:
    """For inputs and every parameter, in double precision."""
    torch.manual_seed(1)
    layer = make().double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    inputs = numbers(4, 4).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in layer.parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        # A buffer that changes would be another function at each call.
        buffers = {name: value.clone() for name, value in layer.named_buffers()}
        state = {**dict(zip(names, weights, strict=True)), **buffers}
        return torch.func.functional_call(layer, state, (x,))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(run, (inputs, *values))


def test_a_linear_layer_multiplies_complex_numbers() -> None:
    """As a matrix of complex weights does."""
    layer = ComplexLinear(3, 2).double()
    with torch.no_grad():
        layer.bias_imag.fill_(0.5)
    x = numbers(5, 3)
    weight = torch.complex(layer.weight_real, layer.weight_imag)
    torch.testing.assert_close(layer(x), x @ weight.T + 0.5j)


def test_zrelu_keeps_the_first_quadrant() -> None:
    """One negative part is enough to be stopped."""
    x = torch.tensor([1 + 1j, -1 + 1j, 1 - 1j, -1 - 1j, 2 + 0.5j])
    assert ZReLU()(x).tolist() == [1 + 1j, 0, 0, 0, 2 + 0.5j]


def test_modrelu_keeps_the_angle() -> None:
    """Lengths lose the bias; what is shorter than it vanishes; zero stays zero."""
    layer = ModReLU(4)
    with torch.no_grad():
        layer.bias.fill_(-1.0)
    x = torch.tensor([[3 + 4j, 0.1 + 0.1j, 0j, -2j]])
    torch.testing.assert_close(layer(x), torch.tensor([[2.4 + 3.2j, 0, 0, -1j]]))


def test_covariance_norm_whitens_both_parts() -> None:
    """Centred, of variance one half each, uncorrelated; the naive form leaves the correlation."""
    x = numbers(4000, 3)

    def moments(y: Tensor) -> Tensor:
        parts = torch.view_as_real(y.detach())
        centred = parts - parts.mean(dim=0)
        return torch.einsum("nfa,nfb->fab", centred, centred) / len(y)

    white = CovarianceComplexBatchNorm(3).double()(x).detach()
    half = 0.5 * torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
    torch.testing.assert_close(moments(white), half, atol=1e-4, rtol=0)
    assert float(white.mean(dim=0).abs().max()) < 1e-9
    naive = moments(NaiveComplexBatchNorm(3).double()(x))
    assert float(naive[:, 0, 1].min()) > 0.5


@pytest.mark.parametrize("kind", [NaiveComplexBatchNorm, CovarianceComplexBatchNorm])
def test_norms_use_what_they_have_seen_when_they_evaluate(kind: type[nn.Module]) -> None:
    """After enough batches, evaluation and training agree; evaluation changes nothing."""
    layer = kind(3).double()  # type: ignore[call-arg]
    x = numbers(500, 3)
    for _ in range(100):
        trained = layer(x)
    layer.eval()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    torch.testing.assert_close(layer(x), trained, atol=1e-2, rtol=0)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
