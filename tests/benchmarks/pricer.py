"""The pricer: simulation beside plain numpy, and what committing costs.

Alone: python -m tests.benchmarks.pricer
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TURNS = 5
INTERVAL = 100
# One batch of contracts and their paths.
CONTRACTS, TIMESTEPS, WIDTH, BATCHES = 32, 50, 256, 8

SIMULATIONS = {
    "numpy": f"""
import numpy as np
rng = np.random.default_rng(0)
rows = rng.uniform([80, 80, 0.1, 0, 0, 0.1], [120, 120, 2, 0.1, 0.05, 0.5], ({CONTRACTS}, 6))
def run():
    spot, strike, maturity, rate, dividend, vol = (c[:, None, None] for c in rows.T)
    step = maturity / {TIMESTEPS}
    price = np.broadcast_to(spot, ({CONTRACTS}, {BATCHES}, {WIDTH})).astype(np.float32)
    for _ in range({TIMESTEPS}):
        noise = rng.standard_normal(price.shape, dtype=np.float32)
        drift = (rate - dividend - 0.5 * vol**2) * step
        price = price * np.exp(drift + vol * np.sqrt(step) * noise)
    put = np.exp(-rate * maturity) * np.maximum(strike - price, 0)
    np.fft.fft(put, axis=-1).mean(axis=1)
""",
    "torch": f"""
import torch
torch.set_num_threads(1)
from decloud_trainer.training.pricing.options import checked_bounds
from decloud_trainer.training.pricing.simulation import ContractSampler, MonteCarlo, path_generator
rows = ContractSampler(checked_bounds({{}}), 0).draw(0, {CONTRACTS}).float()
simulation = MonteCarlo({TIMESTEPS}, {WIDTH}, {BATCHES}, True, True)
def run():
    simulation.target(rows, path_generator(0, 0, torch.device("cpu")))
""",
}
MEASURE = """
import json, resource, time
run()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
for _ in range(10):
    run()
seconds = (time.process_time() - began) / 10
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, after / 1024]))
"""


def measure() -> None:
    _simulations()
    _commits()
    _sharing()


def _simulations() -> None:
    paths = CONTRACTS * WIDTH * BATCHES
    taken: dict[str, list[list[float]]] = {name: [] for name in SIMULATIONS}
    for turn in range(TURNS + 1):
        for name, code in SIMULATIONS.items():
            done = subprocess.run(
                [sys.executable, "-c", code + MEASURE], capture_output=True, text=True, check=True
            )
            if turn:
                taken[name].append(json.loads(done.stdout))
    print(f"pricer, {paths:,} paths of {TIMESTEPS} steps, one thread (medians)")
    reference = statistics.median(seconds for seconds, _ in taken["numpy"])
    for name, runs in taken.items():
        seconds = statistics.median(each for each, _ in runs)
        memory = statistics.median(each for _, each in runs)
        speed = paths / seconds
        print(f"  {name:<6} {speed:12,.0f} paths/s  x{reference / seconds:.2f}  {memory:6.0f} MB")


@dataclass(frozen=True)
class Cost:
    plain: float
    committing: float


def _commits() -> None:
    """Training with and without a commit every hundred batches, in turns."""
    from decloud_trainer.store.opening import open_store
    from decloud_trainer.training.pricing.config import TrainingConfig
    from decloud_trainer.training.pricing.pricer import GbmCVNNPricer
    from decloud_trainer.training.pricing.saving import config_from_json

    wanted = TrainingConfig(3 * INTERVAL, 32, 0.001)
    small = {"simulation": {"timesteps": 8, "network_size": 128}}
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(str(Path(folder, "chain")))
        for turn in range(TURNS + 1):
            seconds = []
            for commits in (False, True):
                pricer = GbmCVNNPricer(config_from_json(small), device="cpu")
                began = time.perf_counter()
                pricer.train(
                    wanted,
                    blockchain_store=store if commits else None,
                    auto_commit=commits,
                    commit_interval=INTERVAL if commits else None,
                )
                seconds.append(time.perf_counter() - began)
            if turn:
                costs.append(Cost(*seconds))
    ratio = statistics.median(cost.committing / cost.plain for cost in costs)
    print(f"  a commit every {INTERVAL} batches: {ratio - 1:+.1%} of the training's time (median)")


def _sharing() -> None:
    """A run whose backbone stays: what twenty versions take."""
    import torch
    from torchvision.models import resnet18

    from decloud_trainer.store.opening import open_store
    from decloud_trainer.training.checkpoint import Checkpoint
    from decloud_trainer.training.snapshots import commit_checkpoint

    state = resnet18(num_classes=10).state_dict()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(str(Path(folder, "chain")))
        for n in range(20):
            tensors = {f"model/{name}": value for name, value in state.items()}
            tensors["model/fc.weight"] = torch.randn_like(state["fc.weight"])
            commit_checkpoint(store, Checkpoint({"step": n}, tensors), f"step {n}")
        content = sum(version.size for version in store.log())
        stored = sum(blob.size for blob in store.backend.list("blobs/"))
    print(
        f"  resnet18 with a frozen backbone, 20 versions: {content / 1e6:,.0f} MB in "
        f"{stored / 1e6:,.0f} MB (x{content / stored:.1f})"
    )


if __name__ == "__main__":
    measure()
