"""Option prices: the closed formula, the sampled contracts, the simulated targets."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from decloud_trainer.errors import SettingsError
from decloud_trainer.training.pricing.options import (
    DEFAULT_BOUNDS,
    INPUTS,
    call_from_put,
    checked_bounds,
    discount,
    forward_price,
    put_price,
)
from decloud_trainer.training.pricing.simulation import (
    ContractSampler,
    MonteCarlo,
    path_generator,
    price_of,
)

CPU = torch.device("cpu")


def contracts(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


HULL = (42.0, 40.0, 0.5, 0.1, 0.0, 0.2)


def test_the_formula_gives_the_textbook_prices() -> None:
    """Hull, Options, Futures and Other Derivatives: call 4.76, put 0.81."""
    put = put_price(contracts(HULL))
    assert round(float(put), 2) == 0.81
    assert round(float(call_from_put(contracts(HULL), put)), 2) == 4.76


def test_parity_holds_with_dividends() -> None:
    """A call less a put is the discounted difference of forward and strike, for every contract."""
    some = ContractSampler(checked_bounds({}), 3).draw(0, 256)
    spot, strike, maturity, rate, dividend, _ = some.unbind(-1)
    put = put_price(some)
    difference = call_from_put(some, put) - put
    wanted = spot * torch.exp(-dividend * maturity) - strike * torch.exp(-rate * maturity)
    torch.testing.assert_close(difference, wanted)
    assert (put >= 0).all()
    assert (call_from_put(some, put) >= -1e-12).all()


def test_bounds_are_checked() -> None:
    """Unknown inputs and impossible ranges are named; the rest has defaults."""
    assert checked_bounds({"spot": [1, 2]})["spot"] == (1.0, 2.0)
    assert checked_bounds({})["rate"] == DEFAULT_BOUNDS["rate"]
    with pytest.raises(SettingsError, match="no input 'price'"):
        checked_bounds({"price": (1, 2)})
    for wrong in ((2, 1), (0, 1), (1,), "12", (1, math.inf), (1, True), None):
        with pytest.raises(SettingsError, match="the bounds of spot"):
            checked_bounds({"spot": wrong})


def test_contracts_fill_their_bounds_evenly() -> None:
    """Each sixteenth of each range has its share, as no independent draws would give it."""
    drawn = ContractSampler(checked_bounds({}), 0).draw(0, 1024)
    for number, name in enumerate(INPUTS):
        low, high = DEFAULT_BOUNDS[name]
        column = drawn[:, number]
        assert low <= float(column.min())
        assert float(column.max()) <= high
        counts = torch.histc(column, 16, low, high)
        assert float((counts - 64).abs().max()) <= 1


def test_a_position_names_the_same_contracts_for_ever() -> None:
    """A new sampler goes on where another one was, forwards and backwards."""
    bounds = checked_bounds({})
    first = ContractSampler(bounds, 7)
    parts = [first.draw(0, 100), first.draw(100, 50), first.draw(150, 50)]
    again = ContractSampler(bounds, 7)
    assert torch.equal(again.draw(150, 50), parts[2])
    assert torch.equal(again.draw(100, 50), parts[1])
    assert torch.equal(ContractSampler(bounds, 7).draw(0, 200), torch.cat(parts))
    assert not torch.equal(ContractSampler(bounds, 8).draw(0, 100), parts[0])


@pytest.mark.parametrize("log_return", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_simulated_prices_agree_with_the_formula(log_return: bool, normalize: bool) -> None:
    """Within four standard errors; Euler's steps are off by a little more."""
    some = contracts(HULL, (100.0, 110.0, 1.5, 0.02, 0.03, 0.4), (90.0, 80.0, 0.25, 0.0, 0.0, 0.3))
    simulation = MonteCarlo(32, 256, 64, log_return, normalize)
    payoffs = simulation.payoffs(some, path_generator(1, 0, CPU))
    assert payoffs.shape == (3, 64, 256)
    flat = payoffs.flatten(1)
    error = flat.std(dim=1) / math.sqrt(flat.shape[1])
    slack = torch.zeros(3) if log_return else 0.01 * put_price(some)
    assert ((flat.mean(dim=1) - put_price(some)).abs() < 4 * error + slack).all()


def test_normalised_paths_meet_the_forward_exactly() -> None:
    """Whatever the draw, the mean price at expiry is the forward: parity holds per sample."""
    some = contracts(HULL)
    prices = MonteCarlo(4, 16, 2, True, True).prices_at_expiry(some, path_generator(5, 0, CPU))
    torch.testing.assert_close(prices.mean(dim=(1, 2)), forward_price(some))
    strike = some[0, 1]
    put = (strike - prices).clamp_min(0).mean() * discount(some)
    call = (prices - strike).clamp_min(0).mean() * discount(some)
    torch.testing.assert_close(call_from_put(some, put), call)


def test_a_target_keeps_the_simulated_price() -> None:
    """The mean of the inverse transform is the mean of the payoffs, whatever the width."""
    some = ContractSampler(checked_bounds({}), 1).draw(0, 5)
    simulation = MonteCarlo(8, 32, 4, True, False)
    target = simulation.target(some, path_generator(2, 9, CPU))
    assert target.shape == (5, 32)
    assert target.is_complex()
    payoffs = simulation.payoffs(some, path_generator(2, 9, CPU))
    torch.testing.assert_close(price_of(target), payoffs.mean(dim=(1, 2)))


def test_paths_follow_from_seed_and_batch_alone() -> None:
    """The same batch is simulated the same again; another batch or seed is another draw."""
    some = contracts(HULL)
    simulation = MonteCarlo(4, 8, 2, True, False)
    targets = [
        simulation.target(some, path_generator(*where, CPU))
        for where in ((1, 1), (1, 1), (1, 2), (2, 1))
    ]
    assert torch.equal(targets[0], targets[1])
    assert not torch.equal(targets[0], targets[2])
    assert not torch.equal(targets[0], targets[3])
