"""What it costs a training to keep its state in the chain in its folder.

Alone: python -m tests.benchmarks.store
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from decloud_trainer.training import limits
from tests.benchmarks.training import FASHION

if TYPE_CHECKING:
    from torch import Tensor

    from decloud_trainer.training.chains import ChainCheckpoints
    from decloud_trainer.training.state import Training

TURNS = 100
# A commit is over well within so many batches: what it costs doesn't drown in the machine's moods.
STRETCH = 20
INTERVAL = 100
CHECKPOINT_S = 30.0
SIZES = (32, 128)


@dataclass(frozen=True)
class Stretch:
    """Seconds of so many batches, which a commit may begin with; then its remaining wait.

    Attributes:
        thread, process: processor seconds, which other programs don't add to.
    """

    seconds: float
    thread: float
    process: float
    waited: float


def measure() -> None:
    """Stretches of 20 batches of SimpleCNN with and without a commit, in turns, tuned as a run is.

    A commit is begun before a stretch's first batch, so that all that it does beside the training
    falls into the stretch. A checkpoint does the same and writes an artefact, too. What they cost
    is then compared with the time of all the batches from one to the next.
    """
    limits.ready_for_torch()
    data = f"Fashion-MNIST in {FASHION}" if FASHION.is_dir() else "digits"
    print(f"SimpleCNN on {data}: a commit every {INTERVAL} batches, a checkpoint every 30 s")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            _measure(size, Path(folder))


def _measure(size: int, folder: Path) -> None:
    from decloud_trainer.files import write_atomic
    from decloud_trainer.training.bench import ARCHITECTURE
    from decloud_trainer.training.chains import ChainCheckpoints
    from decloud_trainer.training.choices import Choices
    from decloud_trainer.training.classifier_task import ClassifierTask
    from decloud_trainer.training.convention import carried
    from decloud_trainer.training.data.datasets import load
    from decloud_trainer.training.device import choose_device
    from decloud_trainer.training.networks import SimpleCNN
    from decloud_trainer.training.outcome import Maker
    from decloud_trainer.training.spec import ArtifactSpec, DataSpec
    from decloud_trainer.training.state import Plan, Training
    from decloud_trainer.training.strategy import Strategy
    from decloud_trainer.training.tuning import tune

    model, strategy = SimpleCNN(10), Strategy()
    base = {name: value.clone() for name, value in model.state_dict().items()}
    plain = choose_device("cpu", 0)
    device = tune(ARCHITECTURE, base, plain, size, folder).applied(plain)
    spec = DataSpec("fashionmnist", FASHION, folder) if FASHION.is_dir() else None
    samples = load(spec or DataSpec("digits", None, folder)).split("train")
    task = ClassifierTask(model, samples, size, 0, device, strategy=strategy)
    choices = Choices(threads=device.threads, total_steps=3 * (TURNS + 1) * STRETCH)
    training = Training(task, Plan(0.001, 0, strategy), device, choices)
    checkpoints = ChainCheckpoints(folder)
    maker = Maker(base, model, carried(ARCHITECTURE, -0.1), ArtifactSpec(), None, None)

    def keep() -> None:
        _commit(training, checkpoints)
        state: dict[str, Tensor] = {**model.state_dict(), **training.average.weights()}
        write_atomic(folder / "so-far.pt", maker.encode(state, "float32"))

    kinds: dict[str, Callable[[], None]] = {
        "plain": lambda: None,
        "commit": lambda: _commit(training, checkpoints),
        "checkpoint": keep,
    }
    found: dict[str, list[Stretch]] = {name: [] for name in kinds}
    for turn in range(TURNS + 1):
        for name in (*kinds,) if turn % 2 else (*reversed(kinds),):
            stretch = _stretch(training, checkpoints, kinds[name])
            if turn:
                found[name].append(stretch)
    alone = []
    for _ in range(TURNS):
        began = time.perf_counter()
        _commit(training, checkpoints)
        _settle(checkpoints)
        alone.append(time.perf_counter() - began)
    checkpoints.close()
    _tell(f"batches of {size}, {device.threads} threads, {device.precision_name}", found, alone)


def _commit(training: Training[tuple[Tensor, Tensor]], checkpoints: ChainCheckpoints) -> None:
    training.pause()
    state = training.snapshot()
    checkpoints.commit(state, f"step={training.step}", {"step": float(training.step)})


def _stretch(
    training: Training[tuple[Tensor, Tensor]],
    checkpoints: ChainCheckpoints,
    begin: Callable[[], None],
) -> Stretch:
    from decloud_trainer.training.hooks import Hooks
    from decloud_trainer.training.loop import train

    process, thread, began = time.process_time(), time.thread_time(), time.perf_counter()
    begin()
    for _ in train(training, training.step + STRETCH, Hooks(time.time)):
        pass
    seconds, thread = time.perf_counter() - began, time.thread_time() - thread
    _settle(checkpoints)
    process = time.process_time() - process
    return Stretch(seconds, thread, process, time.perf_counter() - began - seconds)


def _settle(checkpoints: ChainCheckpoints) -> None:
    while not checkpoints.is_idle:
        time.sleep(0.001)


def _tell(what: str, found: dict[str, list[Stretch]], alone: list[float]) -> None:
    plain = found["plain"]
    interval = statistics.median(each.seconds for each in plain) * INTERVAL / STRETCH
    print(f"  {what}: {interval:.2f} s for {INTERVAL} batches (medians of {TURNS} turns)")
    for name, period in (("commit", interval), ("checkpoint", CHECKPOINT_S)):
        pairs = list(zip(found[name], plain, strict=True))
        extra = sorted(one.seconds - other.seconds for one, other in pairs)
        low, high = (extra[round(TURNS / 2 + sign * TURNS**0.5)] for sign in (-1, 1))
        thread = statistics.median(one.thread - other.thread for one, other in pairs)
        process = statistics.median(one.process - other.process for one, other in pairs)
        middle = statistics.median(extra)
        print(
            f"    {name:<10} {1e3 * middle:+6.1f} ms in the loop ({1e3 * low:+.1f} to "
            f"{1e3 * high:+.1f} with 95 % confidence), {middle / period:+.2%}; processor: "
            f"{1e3 * thread:+.1f} ms of its thread, {1e3 * process:+.1f} ms of the process"
        )
    late = statistics.median(each.waited for each in found["commit"])
    print(
        f"    a commit with nothing beside it: {1e3 * statistics.median(alone):.0f} ms; "
        f"still under way after {STRETCH} batches: {1e3 * late:.0f} ms"
    )


if __name__ == "__main__":
    measure()
