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
from typing import TYPE_CHECKING

from decloud_trainer.training import limits

if TYPE_CHECKING:
    from decloud_trainer.store.chain import Store
    from decloud_trainer.training.pricing.pricer import PricerReport

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
from decloud_trainer.training import limits
limits.ready_for_torch()
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
    limits.ready_for_torch()
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
class Size:
    """A pricer that is measured.

    Attributes:
        batches: of each training, so many that most of them have a commit beside them.
    """

    simulation: dict[str, int]
    batches: int
    turns: int


@dataclass(frozen=True)
class Trained:
    """What a training took; processor seconds, which other programs add little to, of its thread
    and of the whole process, the last commit's included."""

    report: PricerReport
    thread: float
    process: float


# A hundred batches take a third of a second, some seconds, some ten seconds.
SIZES = {
    "small": Size({"timesteps": 8, "network_size": 128}, 5 * INTERVAL, 9),
    "default": Size({}, 3 * INTERVAL, 5),
    "1024 wide": Size({"network_size": 1024}, 2 * INTERVAL, 3),
}


def _commits() -> None:
    """Training with and without a commit every hundred batches, in turns."""
    from decloud_trainer.store.opening import open_store

    for name, size in SIZES.items():
        pairs: list[tuple[Trained, Trained]] = []
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(str(Path(folder, "chain")))
            for turn in range(size.turns + 1):
                if turn % 2:
                    plain, committing = _trained(size, None), _trained(size, store)
                else:
                    committing, plain = _trained(size, store), _trained(size, None)
                if turn:
                    pairs.append((plain, committing))
        _tell(name, size, pairs)


def _tell(name: str, size: Size, pairs: list[tuple[Trained, Trained]]) -> None:
    hundreds = size.batches / INTERVAL
    alone = statistics.median(plain.report.seconds for plain, _ in pairs) / hundreds
    busy = statistics.median(plain.process for plain, _ in pairs) / hundreds
    extra = statistics.median(with_.report.seconds / plain.report.seconds for plain, with_ in pairs)
    thread, process = (
        statistics.median(getattr(with_, what) - getattr(plain, what) for plain, with_ in pairs)
        / hundreds
        for what in ("thread", "process")
    )
    waited = statistics.median(with_.report.waited_s for _, with_ in pairs)
    print(
        f"  {name}: {INTERVAL} batches take {alone:.2f} s, {busy:.2f} s of processors; a commit "
        f"after each {INTERVAL} adds {extra - 1:+.1%} until the last batch "
        f"(processors: {1e3 * thread:+.1f} ms in the training's thread, {1e3 * process:+.1f} ms in "
        f"all), then {1e3 * waited:.0f} ms of waiting for the last one"
    )


def _trained(size: Size, store: Store | None) -> Trained:
    from decloud_trainer.training.pricing.config import TrainingConfig
    from decloud_trainer.training.pricing.pricer import GbmCVNNPricer
    from decloud_trainer.training.pricing.saving import config_from_json

    pricer = GbmCVNNPricer(
        config_from_json({"simulation": size.simulation}), device="cpu", threads=1
    )
    wanted = TrainingConfig(size.batches, CONTRACTS, 0.001)
    thread, process = time.thread_time(), time.process_time()
    if store is None:
        report = pricer.train(wanted)
    else:
        report = pricer.train(
            wanted, blockchain_store=store, auto_commit=True, commit_interval=INTERVAL
        )
    return Trained(report, time.thread_time() - thread, time.process_time() - process)


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
