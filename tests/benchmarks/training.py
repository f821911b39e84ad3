"""The training loop against a plain one: what ``decloud-trainer bench`` measures."""

from __future__ import annotations

import tempfile
from pathlib import Path

from decloud_trainer.training.bench import compare


def measure() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), device="cpu")
    print(f"training, SimpleCNN, batch 32, {found.threads} threads (samples/s, medians)")
    print(f"  plain DataLoader loop (reference) {found.plain:8,.0f}  x1.00")
    print(f"  our loop                          {found.ours:8,.0f}  x{found.ratio:.2f}")
