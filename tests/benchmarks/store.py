"""What it costs a training to commit itself to the chain in its folder.

Alone: python -m tests.benchmarks.store
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

TURNS = 5
INTERVAL = 100


def measure() -> None:
    """Stretches of 100 batches of SimpleCNN on digits, with and without a commit, in turns.

    CPU time, which other programs don't add to: of the training's thread, which a commit blocks
    while the state is copied, and of the whole process, where it is hashed and written beside.
    """
    import torch

    from decloud_trainer.training.chains import ChainCheckpoints
    from decloud_trainer.training.choices import Choices
    from decloud_trainer.training.classifier_task import ClassifierTask
    from decloud_trainer.training.data.datasets import load
    from decloud_trainer.training.device import choose_device
    from decloud_trainer.training.hooks import Hooks
    from decloud_trainer.training.loop import train
    from decloud_trainer.training.networks import SimpleCNN
    from decloud_trainer.training.spec import DataSpec
    from decloud_trainer.training.state import Plan, Training
    from decloud_trainer.training.strategy import Strategy

    device = choose_device("cpu", 1)
    strategy = Strategy(averaging="ema")
    ratios: dict[str, list[float]] = {"thread": [], "process": []}
    pauses, shares = [], []
    with tempfile.TemporaryDirectory() as folder:
        data = load(DataSpec("digits", None, Path(folder, "data"))).split("train")
        task = ClassifierTask(SimpleCNN(10), data, 32, 0, device, strategy=strategy)
        choices = Choices(threads=1, total_steps=2 * (TURNS + 1) * INTERVAL)
        training = Training(task, Plan(0.001, 0, strategy), device, choices)
        checkpoints = ChainCheckpoints(Path(folder))
        torch.set_num_threads(1)

        def stretch(commits: bool) -> tuple[float, float]:
            thread, process = time.thread_time(), time.process_time()
            for _ in train(training, training.step + INTERVAL, Hooks(time.time)):
                pass
            if commits:
                began = time.thread_time()
                training.pause()
                state = training.snapshot()
                checkpoints.commit(state, "measured", {"step": float(training.step)})
                pauses.append(time.thread_time() - began)
            thread = time.thread_time() - thread
            while not checkpoints.is_idle:
                time.sleep(0.01)
            return thread, time.process_time() - process

        for turn in range(TURNS + 1):
            plain, committing = stretch(False), stretch(True)
            if turn:
                shares.append(pauses[-1] / plain[0])
                for name, before, after in zip(ratios, plain, committing, strict=True):
                    ratios[name].append(after / before)
        report = checkpoints.close()
    print(f"SimpleCNN on digits, a commit every {INTERVAL} batches ({report.committed} versions)")
    blocked_ms, share = 1e3 * statistics.median(pauses), statistics.median(shares)
    print(f"  copying the state: {blocked_ms:.1f} ms, {share:.1%} of the training's thread")
    for name, each in ratios.items():
        print(f"  {statistics.median(each) - 1:+.1%} CPU time of the {name} (median)")


if __name__ == "__main__":
    measure()
