"""Layers for complex-valued networks.

Parameters are pairs of real tensors, so that every optimiser, average and file format takes them;
what is computed is complex.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-5


class ComplexLinear(nn.Module):
    """(…, inputs) -> (…, outputs), complex; the usual affine map."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # Both parts together have the variance 1 / inputs, whatever the angle.
        bound = math.sqrt(3.0 / (2 * inputs))
        self.weight_real = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.weight_imag = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias_real = nn.Parameter(torch.zeros(outputs))
        self.bias_imag = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.complex(self.weight_real, self.weight_imag)
        return functional.linear(x, weight, torch.complex(self.bias_real, self.bias_imag))


class ZReLU(nn.Module):
    """Lets a number pass if both its parts are positive: its angle is in the first quadrant."""

    def forward(self, x: Tensor) -> Tensor:
        return x * ((x.real > 0) & (x.imag > 0))


class ModReLU(nn.Module):
    """Shortens each number's length by a learned amount per feature, and keeps its angle.

    Args:
        features: the size of the last axis.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        # Smooth at zero, where the angle and its gradient aren't defined.
        length = (x.real.square() + x.imag.square() + EPS**2).sqrt()
        return x * (functional.relu(length + self.bias) / length)


class NaiveComplexBatchNorm(nn.Module):
    """Normalises real and imaginary parts on their own: (N, features) complex."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.real = nn.BatchNorm1d(features, eps=EPS)
        self.imag = nn.BatchNorm1d(features, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(self.real(x.real), self.imag(x.imag))


class CovarianceComplexBatchNorm(nn.Module):
    """Normalises both parts together: (N, features) complex.

    Each feature is centred and multiplied by the inverse square root of the 2x2 covariance of its
    parts, so that these are uncorrelated and of equal size; then a learned symmetric 2x2 matrix and
    a shift are applied (Trabelsi et al., Deep Complex Networks).
    """

    running_mean: Tensor
    running_covariance: Tensor

    def __init__(self, features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        half = 1 / math.sqrt(2)
        # The three different numbers of each symmetric matrix: rr, ii, ri.
        self.gamma = nn.Parameter(torch.tensor([half, half, 0.0]).repeat(features, 1))
        self.beta = nn.Parameter(torch.zeros(features, 2))
        self.register_buffer("running_mean", torch.zeros(features, 2))
        self.register_buffer(
            "running_covariance", torch.tensor([half**2, half**2, 0.0]).repeat(features, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.view_as_real(x)  # (N, features, 2)
        if self.training:
            mean = parts.mean(dim=0)
            covariance = _covariance(parts - mean)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_covariance.lerp_(covariance, self.momentum)
        else:
            mean, covariance = self.running_mean, self.running_covariance
        white = _apply(_inverse_square_root(covariance), parts - mean)
        return torch.view_as_complex((_apply(self.gamma, white) + self.beta).contiguous())


def _covariance(centred: Tensor) -> Tensor:
    """(N, features, 2) -> (features, 3): rr, ii, ri."""
    real, imag = centred.unbind(-1)
    return torch.stack(
        [real.square().mean(0), imag.square().mean(0), (real * imag).mean(0)], dim=-1
    )


def _inverse_square_root(covariance: Tensor) -> Tensor:
    """Of symmetric positive 2x2 matrices (features, 3), in closed form."""
    rr, ii, ri = covariance.unbind(-1)
    rr, ii = rr + EPS, ii + EPS
    root = (rr * ii - ri.square()).clamp_min(EPS**2).sqrt()
    trace = (rr + ii + 2 * root).sqrt()
    scale = 1 / (root * trace)
    return torch.stack([(ii + root) * scale, (rr + root) * scale, -ri * scale], dim=-1)


def _apply(matrices: Tensor, parts: Tensor) -> Tensor:
    """Symmetric matrices (features, 3) times vectors (N, features, 2)."""
    rr, ii, ri = matrices.unbind(-1)
    real, imag = parts.unbind(-1)
    return torch.stack([rr * real + ri * imag, ri * real + ii * imag], dim=-1)


class Residual(nn.Module):
    """What a part of the network adds to its input; both have the same shape."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)  # type: ignore[no-any-return]
