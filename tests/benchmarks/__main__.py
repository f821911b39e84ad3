"""``make bench``: measured by hand, printed as ratios of runs that took turns.

Absolute figures say as much about the machine's mood as about the program, so each figure stands
beside a reference measured in the same minutes, run by run in turn; medians are compared.
"""

from __future__ import annotations

from decloud_trainer.training import limits
from tests.benchmarks import idle, parallel, startup, wallet

if __name__ == "__main__":
    # First, and before torch is in this process: a child's peak memory counts what it was
    # forked from.
    startup.measure()
    wallet.measure()
    idle.measure()
    parallel.measure()
    limits.ready_for_torch()
    from tests.benchmarks import network, pricer, store, strategy, training

    network.measure()
    training.measure()
    strategy.measure(["--budgets", "1"])
    pricer.measure()
    store.measure()
