"""European options under Black-Scholes: their six inputs, and the closed formula.

Prices of contracts are rows of a tensor (C, 6) in the order of `INPUTS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from decloud_trainer.errors import SettingsError

# Price of the asset now, strike, years to expiry, interest rate, dividend yield, volatility.
INPUTS = ("spot", "strike", "maturity", "rate", "dividend", "volatility")
POSITIVE = ("spot", "strike", "maturity", "volatility")
DEFAULT_BOUNDS: Mapping[str, tuple[float, float]] = {
    "spot": (80.0, 120.0),
    "strike": (80.0, 120.0),
    "maturity": (0.1, 2.0),
    "rate": (0.0, 0.1),
    "dividend": (0.0, 0.05),
    "volatility": (0.1, 0.5),
}


def checked_bounds(bounds: Mapping[str, object]) -> dict[str, tuple[float, float]]:
    """Lower and upper bound of every input, in their order; what isn't given has its default.

    Raises:
        SettingsError: an unknown input, or no two finite, rising (and, where it must be, positive)
            numbers.
    """
    if not isinstance(bounds, Mapping):
        raise SettingsError(f"domain_bounds must map inputs to ranges, not {bounds!r}")
    unknown = sorted(set(bounds) - set(INPUTS))
    if unknown:
        raise SettingsError(
            f"domain_bounds has no input {unknown[0]!r}", hint=f"use {', '.join(INPUTS)}"
        )
    return {name: _pair(name, bounds.get(name, DEFAULT_BOUNDS[name])) for name in INPUTS}


def _pair(name: str, value: object) -> tuple[float, float]:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        low, high = value
        numbers = all(type(end) in (int, float) and math.isfinite(end) for end in value)
        if numbers and low < high and (low > 0 or name not in POSITIVE):
            return float(low), float(high)
    above = " above 0" if name in POSITIVE else ""
    raise SettingsError(
        f"the bounds of {name} are {value!r}", hint=f"give two rising numbers{above}"
    )


def forward_price(contracts: Tensor) -> Tensor:
    """What the asset is expected to be worth at expiry: (C,)."""
    spot, _, maturity, rate, dividend, _ = contracts.unbind(-1)
    return spot * torch.exp((rate - dividend) * maturity)


def discount(contracts: Tensor) -> Tensor:
    """What one unit at expiry is worth now: (C,)."""
    _, _, maturity, rate, _, _ = contracts.unbind(-1)
    return torch.exp(-rate * maturity)


def put_price(contracts: Tensor) -> Tensor:
    """The closed formula's price of the puts: (C, 6) -> (C,), best in float64."""
    _, strike, maturity, _, _, volatility = contracts.unbind(-1)
    forward = forward_price(contracts)
    deviation = volatility * maturity.sqrt()
    upper = (torch.log(forward / strike) + 0.5 * deviation.square()) / deviation
    below: Tensor = torch.special.ndtr(deviation - upper)
    asset_below: Tensor = torch.special.ndtr(-upper)
    undiscounted = strike * below - forward * asset_below
    return discount(contracts) * undiscounted


def call_from_put(contracts: Tensor, put: Tensor) -> Tensor:
    """Put-call parity: a call less a put is worth the discounted forward less strike: (C,)."""
    strike = contracts[..., INPUTS.index("strike")]
    return put + discount(contracts) * (forward_price(contracts) - strike)
