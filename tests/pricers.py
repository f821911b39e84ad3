"""Small pricers, quick to train."""

from __future__ import annotations

from decloud_trainer.training.pricing.config import (
    BlackScholesConfig,
    GbmCVNNPricerConfig,
    SimulationParams,
    TrainingConfig,
)
from decloud_trainer.training.pricing.network import NetworkSpec, PricerNetwork
from decloud_trainer.training.pricing.pricer import GbmCVNNPricer

SIZE = 8
SHORT = TrainingConfig(num_batches=6, batch_size=4, learning_rate=0.01)


def network(seed: int = 1, **spec: object) -> PricerNetwork:
    wanted = NetworkSpec(**{"width": 8, "depth": 2, **spec})  # type: ignore[arg-type]
    return PricerNetwork(wanted, SIZE, 10.0, seed)


def config(seed: int = 1, **spec: object) -> GbmCVNNPricerConfig:
    params = SimulationParams(timesteps=2, network_size=SIZE, batches_per_mc_run=2)
    return GbmCVNNPricerConfig(BlackScholesConfig(params), {}, network(seed, **spec))


def pricer(seed: int = 1, **spec: object) -> GbmCVNNPricer:
    return GbmCVNNPricer(config(seed, **spec), device="cpu", threads=1)
