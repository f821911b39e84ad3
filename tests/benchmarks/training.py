"""The training loop against a plain one and the ceiling: what ``decloud-trainer bench`` measures.

With Debian's package ``dataset-fashion-mnist`` on Fashion-MNIST, otherwise on the shipped digits.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from decloud_trainer.training import limits

FASHION = Path("/usr/share/datasets/fashion-mnist")


def measure() -> None:
    limits.ready_for_torch()
    from decloud_trainer.cli.bench import show
    from decloud_trainer.training.bench import Wanted, compare

    data = ("fashionmnist", FASHION) if FASHION.is_dir() else None
    with tempfile.TemporaryDirectory() as folder:
        wanted = Wanted(Path(folder), data, "cpu", races=3)
        found = compare(wanted, lambda what: print(f"... {what}", file=sys.stderr))
    show(found.to_json())
