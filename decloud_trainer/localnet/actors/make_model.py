"""Make the partly trained SimpleCNN that the local network's creator posts.

    python -m decloud_trainer.localnet.actors.make_model [FILE]

Without FILE it replaces the one in the package. The same torch version and CPU capability give
the same bytes.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import torch

from decloud_trainer.files import write_atomic
from decloud_trainer.localnet.actors.datasets import DIGITS
from decloud_trainer.localnet.actors.images import IdxImages
from decloud_trainer.localnet.actors.learning import train
from decloud_trainer.localnet.actors.scoring import HeldOut, accuracy
from decloud_trainer.localnet.actors.shipped import MODEL
from decloud_trainer.localnet.actors.simple_cnn import SimpleCNN

SEED = 7
BATCHES = 15  # enough to have begun, few enough to leave work for trainers


def make_model() -> SimpleCNN:
    """A seeded network after a few steps on the training part of the shipped digits."""
    torch.set_num_threads(1)  # the sum's order, and so the bytes, depend on it
    torch.manual_seed(SEED)
    return train(SimpleCNN(), IdxImages(DIGITS, "train"), seed=SEED, batches=BATCHES)


def main(target: Path) -> None:
    model = make_model()
    buffer = io.BytesIO()  # in memory: torch writes a file's own name into it
    torch.save(model.state_dict(), buffer)
    write_atomic(target, buffer.getvalue(), mode=0o644)
    percent = accuracy(model, HeldOut(DIGITS))
    sys.stdout.write(f"{target}: {len(buffer.getvalue())} bytes, {percent:.2f} % on digits\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL)
