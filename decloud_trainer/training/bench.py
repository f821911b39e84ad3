"""How fast training is on this machine: beside a plain loop, and beside what torch allows at most.

The loops take turns on the same samples from equal weights, and medians are compared: single
figures say as much about the machine's mood as about the program.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from decloud_trainer import files
from decloud_trainer.errors import JobFailed
from decloud_trainer.training import tuning
from decloud_trainer.training.artifacts import difference, serialise
from decloud_trainer.training.checkpoint import encode
from decloud_trainer.training.contestants import Ceiling, Ours, Plain, accuracy, plan_of
from decloud_trainer.training.data.datasets import load
from decloud_trainer.training.data.samples import Dataset
from decloud_trainer.training.device import Device, choose_device
from decloud_trainer.training.limits import usable_processors
from decloud_trainer.training.memory import peak_bytes
from decloud_trainer.training.networks import Architecture, SimpleCNN
from decloud_trainer.training.spec import AUTO, DataSpec
from decloud_trainer.training.strategy import Strategy
from decloud_trainer.training.values import Json, as_json

ARCHITECTURE = Architecture("simple_cnn", 10)
# Batches that a loop has in a row: the machine's mood changes within seconds.
PART = 100
MEMORY_STEPS = 60
# The race to an accuracy: so many looks at it, at so many test samples.
LOOKS = 20
LOOK_SAMPLES = 2_000
RACE_STEPS, RACE_EPOCHS = 2_000, 20
MEMORY_TIMEOUT_S = 300.0


class Loop(Protocol):
    def run(self, steps: int) -> int:
        """Train on so many batches; how many samples they had."""

    def state(self) -> dict[str, Tensor]:
        """What it would hand in."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Race:
    """From equal weights over equally many samples.

    Attributes:
        samples: that each loop trained on.
        target: percent; the plain loop's last accuracy less one point.
        seconds: of training until a loop had reached the target and stayed there.
        accuracy: percent of the whole test split at the end. ``ours`` is the default strategy,
            ``ours, plain strategy`` the plain loop's Adam in our loop and precision.
    """

    samples: int
    target: float
    seconds: dict[str, float]
    accuracy: dict[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured; rates are samples per second, medians over the turns.

    Attributes:
        ratio_to_plain, ratio_to_ceiling: medians of the ratios within a turn.
        peak_mb: of a process that does nothing but one loop, its workers not counted; may be empty.
        checkpoint_pause_s: for how long training stands still; the rest is done beside it.
        artifact_bytes: by number format.
    """

    device: str
    threads: int
    precision: str
    memory_format: str
    torch: str
    dataset: str
    batch_size: int
    turns: int
    rates: dict[str, float]
    ratio_to_plain: float
    ratio_to_ceiling: float
    peak_mb: dict[str, float]
    race: Race | None
    artifact_bytes: dict[str, int]
    checkpoint_bytes: int
    checkpoint_pause_s: float
    checkpoint_encode_s: float

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure.

    Attributes:
        data: the dataset's name and the folder that it is in; None = the shipped digits.
        precision: of our loop and of the ceiling; ``auto`` = the fastest here.
        turns: of each loop; `steps` batches each, a part at a time, and a checkpoint of ours. A run
            keeps one in half a minute, so they are rarer there.
        races: how many times the way to an accuracy is measured; 0 = not at all.
        memory: measure it, too; every loop takes a process of its own for that.
    """

    cache: Path
    data: tuple[str, Path] | None = None
    device: str = "auto"
    threads: int = 0
    precision: str = AUTO
    batch_size: int = 32
    turns: int = 5
    steps: int = 600
    races: int = 1
    memory: bool = True

    @property
    def spec(self) -> DataSpec:
        name, path = self.data or ("digits", None)
        return DataSpec(name, path, self.cache / "datasets")


def compare(wanted: Wanted, told: Callable[[str], None] = lambda _: None) -> Report:
    """Train SimpleCNN with the three loops in turns. `told` hears what is being done.

    The first part isn't counted: it warms caches and torch up. All have the same device; the plain
    loop uses as many threads as there are, ours what was measured to be fastest.

    Raises:
        DecloudError: the data or the device isn't there.
    """
    dataset = load(wanted.spec)
    device = _device(wanted)
    torch.manual_seed(0)
    base = _base()
    with tempfile.TemporaryDirectory() as folder:
        loops = _loops(wanted, dataset, device, Path(folder))
        rates, to_plain, to_ceiling = _turns(loops, wanted, device, told)
        ours = loops["ours"]
        assert isinstance(ours, Ours)
        pause_s, encode_s, checkpoint_bytes = _checkpoint_cost(ours)
        artifact_bytes = {
            dtype: len(serialise(difference(base, _cpu(ours.state()), -0.1, dtype)))
            for dtype in ("float16", "float32")
        }
        for loop in loops.values():
            loop.close()
    peak_mb = {}
    if wanted.memory:
        told("peak memory")
        peak_mb = {name: _peak_mb(wanted, name) for name in loops}
    return Report(
        device=device.name,
        threads=device.threads,
        precision=device.precision_name,
        memory_format=device.memory_format,
        torch=torch.__version__,
        dataset=dataset.name,
        batch_size=wanted.batch_size,
        turns=wanted.turns,
        rates={name: round(statistics.median(each), 1) for name, each in rates.items()},
        ratio_to_plain=round(to_plain, 3),
        ratio_to_ceiling=round(to_ceiling, 3),
        peak_mb=peak_mb,
        race=_race(wanted, dataset, device, told) if wanted.races else None,
        artifact_bytes=artifact_bytes,
        checkpoint_bytes=checkpoint_bytes,
        checkpoint_pause_s=round(pause_s, 4),
        checkpoint_encode_s=round(encode_s, 4),
    )


def _device(wanted: Wanted) -> Device:
    """As a run settles it, and from the same measurements."""
    device = choose_device(wanted.device, wanted.threads)
    if wanted.precision != AUTO:
        return device.using(wanted.precision)
    folder = wanted.cache / files.TUNING
    found = tuning.tune(
        ARCHITECTURE, _base(), device, wanted.batch_size, folder, threads=wanted.threads
    )
    return found.applied(device)


def _whole(wanted: Wanted, device: Device) -> Device:
    """For the plain loop: as it is, with all threads."""
    return replace(device, threads=wanted.threads or usable_processors(), autocast=None)


def _base() -> dict[str, Tensor]:
    """The same fresh weights whenever it is asked."""
    torch.manual_seed(0)
    return {key: value.detach() for key, value in SimpleCNN(10).state_dict().items()}


def _cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu() for key, value in state.items()}


def _loops(wanted: Wanted, dataset: Dataset, device: Device, folder: Path) -> dict[str, Loop]:
    samples, base = dataset.split("train"), _base()
    size = wanted.batch_size
    steps = PART + wanted.steps * wanted.turns
    return {
        "plain": Plain(ARCHITECTURE.with_weights(base), samples, size, _whole(wanted, device)),
        "ours": Ours(
            ARCHITECTURE.with_weights(base),
            samples,
            size,
            device,
            plan_of(Strategy(), 0),
            steps,
            folder,
        ),
        "ceiling": Ceiling(ARCHITECTURE.with_weights(base), samples, size, device),
    }


def _turns(
    loops: dict[str, Loop], wanted: Wanted, device: Device, told: Callable[[str], None]
) -> tuple[dict[str, list[float]], float, float]:
    rates: dict[str, list[float]] = {name: [] for name in loops}
    told("warming up")
    for loop in loops.values():
        loop.run(min(PART, wanted.steps))
    for turn in range(wanted.turns):
        told(f"turn {turn + 1} of {wanted.turns}")
        samples, seconds = dict.fromkeys(loops, 0), dict.fromkeys(loops, 0.0)
        for done in range(0, wanted.steps, PART):
            for name, loop in loops.items():
                began = time.perf_counter()
                if isinstance(loop, Ours) and not done:
                    loop.keep()  # written while it trains on, not while the next loop does
                samples[name] += loop.run(min(PART, wanted.steps - done))
                _wait(device)
                seconds[name] += time.perf_counter() - began
        for name, each in rates.items():
            each.append(samples[name] / seconds[name])

    def ratio(other: str) -> float:
        pairs = zip(rates["ours"], rates[other], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

    return rates, ratio("plain"), ratio("ceiling")


def _wait(device: Device) -> None:
    if device.torch.type == "cuda":
        torch.cuda.synchronize(device.torch)
    elif device.torch.type == "mps":
        torch.mps.synchronize()


def _checkpoint_cost(ours: Ours) -> tuple[float, float, int]:
    """Seconds of pause, seconds of encoding, bytes; medians of five."""
    pauses, encodings, size = [], [], 0
    for _ in range(5):
        began = time.perf_counter()
        ours.training.pause()
        kept = ours.training.snapshot()
        pauses.append(time.perf_counter() - began)
        began = time.perf_counter()
        size = len(encode(kept))
        encodings.append(time.perf_counter() - began)
    return statistics.median(pauses), statistics.median(encodings), size


def _race(wanted: Wanted, dataset: Dataset, device: Device, told: Callable[[str], None]) -> Race:
    """Accuracy over the time spent on training, looking at it not counted."""
    per_epoch = -(-len(dataset.split("train")) // wanted.batch_size)
    steps = min(RACE_STEPS, RACE_EPOCHS * per_epoch) // LOOKS * LOOKS
    strategies = {"plain": None, "ours": Strategy(), "ours, plain strategy": Strategy.plain()}
    curves: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in strategies}
    ends: dict[str, list[float]] = {name: [] for name in strategies}
    for seed in range(wanted.races):
        for name, strategy in strategies.items():
            told(f"race {seed + 1} of {wanted.races}: {name}")
            curve, end = _run(wanted, dataset, device, strategy, steps, seed)
            curves[name].append(curve)
            ends[name].append(end)
    target = statistics.median(end for end in ends["plain"]) - 1.0
    return Race(
        samples=steps * wanted.batch_size,
        target=round(target, 2),
        seconds={
            name: round(statistics.median(_reached(curve, target) for curve in each), 2)
            for name, each in curves.items()
        },
        accuracy={name: round(statistics.median(each), 2) for name, each in ends.items()},
    )


def _run(
    wanted: Wanted,
    dataset: Dataset,
    device: Device,
    strategy: Strategy | None,
    steps: int,
    seed: int,
) -> tuple[list[tuple[float, float]], float]:
    """(seconds, percent) after each part of a run, and percent of the whole test split."""
    train, test = dataset.split("train"), dataset.split("test")
    model = ARCHITECTURE.with_weights(_base())
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        loop: Plain | Ours
        if strategy is None:
            loop = Plain(model, train, wanted.batch_size, _whole(wanted, device))
        else:
            plan = plan_of(strategy, seed)
            loop = Ours(model, train, wanted.batch_size, device, plan, steps, Path(folder))
        curve, seconds = [], 0.0
        for _ in range(LOOKS):
            began = time.perf_counter()
            loop.run(steps // LOOKS)
            _wait(device)
            seconds += time.perf_counter() - began
            curve.append((seconds, accuracy(ARCHITECTURE, loop.state(), test, LOOK_SAMPLES)))
        loop.close()
    return curve, accuracy(ARCHITECTURE, loop.state(), test, len(test))


def _reached(curve: list[tuple[float, float]], target: float) -> float:
    """When the target was reached for good; the whole time if it never was."""
    when = curve[-1][0]
    for seconds, reached in reversed(curve):
        if reached < target:
            break
        when = seconds
    return when


def _peak_mb(wanted: Wanted, name: str) -> float:
    """Of a process of its own: the peak belongs to a process and never goes down.

    Raises:
        JobFailed: the process ended without an answer.
    """
    name_path = [wanted.data[0], str(wanted.data[1])] if wanted.data else []
    asked = [
        *(str(wanted.cache), wanted.device, str(wanted.threads)),
        *(wanted.precision, str(wanted.batch_size), name),
    ]
    done = subprocess.run(
        [sys.executable, "-m", __name__, *asked, *name_path],
        capture_output=True,
        text=True,
        timeout=MEMORY_TIMEOUT_S,
        check=False,
    )
    try:
        return float(json.loads(done.stdout))
    except ValueError as error:
        raise JobFailed(f"measuring memory failed: {done.stderr[-500:]}") from error


def _main(arguments: list[str]) -> None:
    """Train one loop for a moment and print this process's peak memory in MB, as JSON."""
    cache, device_name, threads, precision, batch_size, name, *data = arguments
    wanted = Wanted(
        Path(cache),
        (data[0], Path(data[1])) if data else None,
        device_name,
        int(threads),
        precision,
        int(batch_size),
        turns=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        device = _device(wanted)
        loop = _loops(wanted, load(wanted.spec), device, Path(folder))[name]
        loop.run(MEMORY_STEPS)
        if isinstance(loop, Ours):
            loop.keep()
        loop.close()
    sys.stdout.write(json.dumps(round(_own_peak_bytes(device) / 1e6, 1)))


def _own_peak_bytes(device: Device) -> int:
    """On Linux without what this process was forked from, which getrusage counts."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        return peak_bytes(device)


if __name__ == "__main__":
    _main(sys.argv[1:])
