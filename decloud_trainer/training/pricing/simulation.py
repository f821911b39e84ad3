"""Where the pricer's samples come from: contracts from a Sobol sequence, targets by Monte Carlo.

Everything that is drawn follows from a seed and a position, so a run that is resumed draws what
comes next, and never the same again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from decloud_trainer.training.pricing.options import INPUTS, discount, forward_price
from decloud_trainer.training.task import seed_for

# Beyond it the sequence would repeat itself.
MAX_POSITION = 2**30


class ContractSampler:
    """Contracts that fill the bounds evenly: a scrambled Sobol sequence in six dimensions.

    Args:
        bounds: lower and upper end of every input, as `checked_bounds` gives them.
    """

    def __init__(self, bounds: Mapping[str, tuple[float, float]], seed: int) -> None:
        self._seed = seed
        ends = torch.tensor([bounds[name] for name in INPUTS], dtype=torch.float64)
        self._low, self._span = ends[:, 0], ends[:, 1] - ends[:, 0]
        self._engine = SobolEngine(  # type: ignore[no-untyped-call]
            len(INPUTS), scramble=True, seed=seed
        )

    def draw(self, position: int, count: int) -> Tensor:
        """(count, 6) float64: the sequence's points from `position` on."""
        if self._engine.num_generated > position:
            self._engine.reset()  # type: ignore[no-untyped-call]
        if position > self._engine.num_generated:
            ahead = position - self._engine.num_generated
            self._engine.fast_forward(ahead)  # type: ignore[no-untyped-call]
        unit = self._engine.draw(count, dtype=torch.float64)
        return self._low + unit * self._span


@dataclass(frozen=True, slots=True)
class MonteCarlo:
    """How a contract's target is simulated.

    Attributes:
        timesteps: of each path.
        network_size: paths side by side, which the Fourier transform runs along.
        batches: rows of so many paths each; the target is their mean.
        log_return: step the logarithm (exact for this process) instead of the price (Euler).
        normalize_forwards: scale the prices at expiry so that their mean is the forward.
    """

    timesteps: int
    network_size: int
    batches: int
    log_return: bool
    normalize_forwards: bool

    def payoffs(self, contracts: Tensor, generator: torch.Generator) -> Tensor:
        """Discounted payoffs of puts: (C, 6) -> (C, batches, network_size), same dtype and device.

        Args:
            generator: of normal numbers, on the contracts' device; it alone decides the paths.
        """
        at_expiry = self.prices_at_expiry(contracts, generator)
        strike = contracts[:, INPUTS.index("strike")].view(-1, 1, 1)
        worth = (strike - at_expiry).clamp_min(0)
        return discount(contracts).view(-1, 1, 1) * worth

    def prices_at_expiry(self, contracts: Tensor, generator: torch.Generator) -> Tensor:
        """The last prices of the simulated paths: (C, 6) -> (C, batches, network_size)."""
        spot, _, maturity, rate, dividend, volatility = (
            column.view(-1, 1, 1) for column in contracts.unbind(-1)
        )
        step = maturity / self.timesteps
        deviation = volatility * step.sqrt()
        drift = (rate - dividend) * step
        shape = (len(contracts), self.batches, self.network_size)
        state = torch.zeros(shape, dtype=contracts.dtype, device=contracts.device)
        noise = torch.empty_like(state)
        if self.log_return:
            # state is the logarithm of the price over the spot.
            for _ in range(self.timesteps):
                state.addcmul_(deviation, noise.normal_(generator=generator))
            state.add_((drift - 0.5 * deviation.square()) * self.timesteps)
            prices = spot * state.exp_()
        else:
            prices = state.add_(spot)
            for _ in range(self.timesteps):
                growth = noise.normal_(generator=generator).mul_(deviation).add_(1 + drift)
                prices.mul_(growth).clamp_min_(0)  # a price that an Euler step takes below zero
        if self.normalize_forwards:
            forward = forward_price(contracts).view(-1, 1, 1)
            prices = prices * (forward / prices.mean(dim=(1, 2), keepdim=True))
        return prices

    def target(self, contracts: Tensor, generator: torch.Generator) -> Tensor:
        """What the network learns: (C, network_size) complex, the payoffs' Fourier transform along
        the network's axis, averaged over the batches."""
        payoffs = self.payoffs(contracts, generator)
        spectra: Tensor = torch.fft.fft(payoffs, dim=-1)
        return spectra.mean(dim=1)


def price_of(spectrum: Tensor) -> Tensor:
    """The price that a spectrum stands for: (C, network_size) complex -> (C,) real."""
    values: Tensor = torch.fft.ifft(spectrum, dim=-1)
    return values.mean(dim=-1).real


def path_generator(seed: int, batch: int, device: torch.device) -> torch.Generator:
    """The normal numbers of one batch of a run, whenever it is simulated."""
    return torch.Generator(device).manual_seed(seed_for(seed, batch, "paths"))
