"""How exact a pricer is: beside the closed formula, and beside a simulation with its error bars."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from decloud_trainer.training.pricing.options import INPUTS, call_from_put, put_price
from decloud_trainer.training.pricing.pricer import GbmCVNNPricer
from decloud_trainer.training.pricing.simulation import ContractSampler, path_generator
from decloud_trainer.training.values import Json, as_json

# Contracts that are simulated at a time.
CHUNK = 64


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Errors of put prices against the closed formula.

    Attributes:
        rmse, bias, largest: of the network: root mean square, mean, largest absolute error.
        paths: of the simulation, for each contract.
        monte_carlo_rmse: of the simulation.
        standard_error: root mean square of the simulation's own error bars.
        within: share of simulated prices within two of their standard errors.
    """

    contracts: int
    mean_put: float
    rmse: float
    bias: float
    largest: float
    paths: int
    monte_carlo_rmse: float
    standard_error: float
    within: float

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]


def evaluated(pricer: GbmCVNNPricer, count: int, seed: int) -> Evaluation:
    """Price `count` contracts that fill the pricer's bounds, drawn by a sequence of their own."""
    config = pricer.snapshot()
    contracts = ContractSampler(config.domain_bounds, _other(config.cfg.sim_params.mc_seed, seed))
    rows = contracts.draw(0, count)
    exact = put_price(rows)
    error = pricer.put_prices(rows) - exact
    simulation = config.cfg.monte_carlo()
    means, bars = [], []
    for start in range(0, count, CHUNK):
        generator = path_generator(seed, start, torch.device("cpu"))
        payoffs = simulation.payoffs(rows[start : start + CHUNK], generator).flatten(1)
        means.append(payoffs.mean(dim=1))
        bars.append(payoffs.std(dim=1) / math.sqrt(payoffs.shape[1]))
    mean, bar = torch.cat(means), torch.cat(bars)
    return Evaluation(
        contracts=count,
        mean_put=float(exact.mean()),
        rmse=float(error.square().mean().sqrt()),
        bias=float(error.mean()),
        largest=float(error.abs().max()),
        paths=simulation.batches * simulation.network_size,
        monte_carlo_rmse=float((mean - exact).square().mean().sqrt()),
        standard_error=float(bar.square().mean().sqrt()),
        within=float(((mean - exact).abs() <= 2 * bar).double().mean()),
    )


@dataclass(frozen=True, slots=True)
class Quote:
    """Prices of one contract: the network's and the closed formula's."""

    put: float
    call: float
    formula_put: float
    formula_call: float

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]


def quote(pricer: GbmCVNNPricer, inputs: Mapping[str, float]) -> Quote:
    """Price a contract, given input by input.

    Raises:
        SettingsError: it is outside of the bounds that the pricer was trained in.
    """
    pricer.check_within(inputs)
    contract = torch.tensor([[inputs[name] for name in INPUTS]], dtype=torch.float64)
    put, exact = pricer.put_prices(contract), put_price(contract)
    return Quote(
        put=float(put),
        call=float(call_from_put(contract, put)),
        formula_put=float(exact),
        formula_call=float(call_from_put(contract, exact)),
    )


def _other(trained: int, seed: int) -> int:
    """A seed of contracts that isn't the training's."""
    return seed if seed != trained else seed + 1
