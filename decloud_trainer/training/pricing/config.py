"""What a pricer is made with: frozen values, checked at birth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from decloud_trainer.errors import SettingsError
from decloud_trainer.training.pricing.options import checked_bounds
from decloud_trainer.training.pricing.simulation import MAX_POSITION, MonteCarlo
from decloud_trainer.training.values import Json, as_json, fields, one_of, require, whole, within

DTYPES = {"float32": torch.float32, "float64": torch.float64}
# Parameters of CUDA kernels written by hand. There are none here: torch chooses for itself.
MEANINGLESS = {
    "threads_per_block": "how many threads a block of a CUDA kernel has, which torch decides",
    "buffer_size": "how many numbers are kept ready for a CUDA kernel, which torch decides",
}


@dataclass(frozen=True, slots=True)
class SimulationParams:
    """How targets are simulated.

    Attributes:
        timesteps: of each path.
        network_size: paths side by side; the width of the network's output.
        batches_per_mc_run: rows of so many paths each for one contract.
        mc_seed: of contracts and paths.
        skip: where in the Sobol sequence a new pricer begins.
        dtype: ``float32`` or ``float64``, of simulation and network.
        threads_per_block, buffer_size: have no meaning here; giving one is an error.
    """

    timesteps: int = 100
    network_size: int = 256
    batches_per_mc_run: int = 8
    mc_seed: int = 42
    skip: int = 0
    dtype: str = "float32"
    threads_per_block: int | None = None
    buffer_size: int | None = None

    def __post_init__(self) -> None:
        for name, meaning in MEANINGLESS.items():
            if getattr(self, name) is not None:
                raise SettingsError(f"{name} can't be set: it is {meaning}", hint="leave it out")
        whole("timesteps", self.timesteps, 1, 100_000)
        whole("network_size", self.network_size, 1, 2**20)
        whole("batches_per_mc_run", self.batches_per_mc_run, 1, 2**20)
        whole("mc_seed", self.mc_seed, 0, 2**63 - 1)
        whole("skip", self.skip, 0, MAX_POSITION)
        one_of("dtype", self.dtype, tuple(DTYPES))

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class BlackScholesConfig:
    """The process.

    Attributes:
        simulate_log_return: step the logarithm, which is exact; else Euler steps of the price.
        normalize_forwards: scale the simulated prices so that their mean is the forward.
    """

    sim_params: SimulationParams = SimulationParams()
    simulate_log_return: bool = True
    normalize_forwards: bool = True

    def __post_init__(self) -> None:
        for name in ("simulate_log_return", "normalize_forwards"):
            require(isinstance(getattr(self, name), bool), f"{name} must be true or false")

    def monte_carlo(self) -> MonteCarlo:
        params = self.sim_params
        return MonteCarlo(
            timesteps=params.timesteps,
            network_size=params.network_size,
            batches=params.batches_per_mc_run,
            log_return=self.simulate_log_return,
            normalize_forwards=self.normalize_forwards,
        )

    @classmethod
    def from_json(cls, data: object) -> BlackScholesConfig:
        values = fields(cls, data)
        if "sim_params" in values:
            given = fields(SimulationParams, values["sim_params"])
            values["sim_params"] = SimulationParams(**given)
        return cls(**values)

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """One call of `train`: so many batches of so many contracts, with Adam at this rate."""

    num_batches: int = 1000
    batch_size: int = 32
    learning_rate: float = 0.001

    def __post_init__(self) -> None:
        whole("num_batches", self.num_batches, 1, 10**9)
        whole("batch_size", self.batch_size, 2, 65_536)
        rate = within("learning_rate", self.learning_rate, 0.0, 10.0)
        require(rate > 0, "learning_rate must be above 0")


@dataclass(frozen=True, slots=True, eq=False)
class GbmCVNNPricerConfig:
    """A pricer's whole state: what it is made with, and what `snapshot` gives.

    Attributes:
        domain_bounds: input -> (low, high); what isn't given has its default.
        cvnn: the network, (N, 6) complex -> (N, network_size) complex; see `make_network`.
        optimizer_state: Adam's tensors by the parameter's position; None = a new optimiser.
        global_step: batches trained so far.
        sobol_skip: contracts drawn so far.
        torch_cpu_rng_state, torch_cuda_rng_states: torch's generators; None or empty = as they are.
    """

    cfg: BlackScholesConfig
    domain_bounds: Mapping[str, Any]
    cvnn: nn.Module
    optimizer_state: Mapping[str, Tensor] | None = None
    global_step: int = 0
    sobol_skip: int = 0
    torch_cpu_rng_state: bytes | None = None
    torch_cuda_rng_states: Sequence[bytes] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        object.__setattr__(self, "domain_bounds", checked_bounds(self.domain_bounds))
        whole("global_step", self.global_step, 0, 10**12)
        whole("sobol_skip", self.sobol_skip, 0, MAX_POSITION)
