"""Complex-valued networks that map a contract to the spectrum of its payoffs."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
from decloud_trainer.training.pricing.options import INPUTS
from decloud_trainer.training.values import Json, as_json, fields, one_of, require, whole

ACTIVATIONS = ("modrelu", "zrelu")
NORMS = ("none", "naive", "covariance")


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network of equal hidden layers.

    Attributes:
        width, depth: features of each hidden layer, and how many there are.
        activation: ``zrelu`` or ``modrelu``.
        norm: complex batch normalisation, or ``none``.
        residual: hidden layers from the second on add to what they get.
    """

    width: int = 64
    depth: int = 3
    activation: str = "modrelu"
    norm: str = "none"
    residual: bool = True

    def __post_init__(self) -> None:
        whole("width", self.width, 1, 65_536)
        whole("depth", self.depth, 1, 1000)
        one_of("activation", self.activation, ACTIVATIONS)
        one_of("norm", self.norm, NORMS)
        require(isinstance(self.residual, bool), "residual must be true or false")

    @classmethod
    def from_json(cls, data: object) -> NetworkSpec:
        return cls(**fields(cls, data))

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]


class Spectrum(nn.Module):
    """Gives each frequency the size that it has: (N, network_size) complex, numbers around one in.

    The lowest is the sum over the network's axis, the others are what remains of its noise.

    Args:
        price: the size of a typical price.
    """

    scale: Tensor

    def __init__(self, network_size: int, price: float) -> None:
        super().__init__()
        scale = torch.full((network_size,), price * math.sqrt(network_size))
        scale[0] = price * network_size
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class PricerNetwork(nn.Module):
    """(N, 6) complex, contracts scaled to -1..1, -> (N, network_size) complex.

    Args:
        price: the size of a typical price.
        seed: of the first weights.
    """

    def __init__(self, spec: NetworkSpec, network_size: int, price: float, seed: int) -> None:
        super().__init__()
        self.spec = spec
        self.price = price
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = [_hidden(spec, len(INPUTS))]
            for _ in range(spec.depth - 1):
                layer = _hidden(spec, spec.width)
                layers.append(Residual(layer) if spec.residual else layer)
            layers += [ComplexLinear(spec.width, network_size), Spectrum(network_size, price)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def _hidden(spec: NetworkSpec, inputs: int) -> nn.Sequential:
    layers: list[nn.Module] = [ComplexLinear(inputs, spec.width)]
    if spec.norm == "naive":
        layers.append(NaiveComplexBatchNorm(spec.width))
    elif spec.norm == "covariance":
        layers.append(CovarianceComplexBatchNorm(spec.width))
    layers.append(ModReLU(spec.width) if spec.activation == "modrelu" else ZReLU())
    return nn.Sequential(*layers)
