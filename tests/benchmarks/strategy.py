"""What a training strategy is worth: previewed scores beside those of plain Adam.

Every figure is the accuracy in percent on the test split, of the artefact as it would be handed in,
from the program's own training run on SimpleCNN. Candidates take turns, seed by seed; medians are
compared. A budget is a number of epochs (equal samples) or of seconds of this process's CPU time on
one thread (equal time, whatever else the machine is doing; loading and scoring count).

    python -m tests.benchmarks.strategy --data fashionmnist=/usr/share/datasets/fashion-mnist \\
        --budgets 1,5,30s --bases random,trained --seeds 3 --candidates 'plain|default'
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from decloud_trainer.training.artifacts import apply, load_model
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.networks import SimpleCNN
from decloud_trainer.training.runs import train_model
from decloud_trainer.training.spec import DataSpec, ModelFile, TrainSpec
from decloud_trainer.training.strategy import Strategy

PLAIN = Strategy.plain()
DEFAULT = Strategy()
# Plain Adam's steps of 32 that make the trained base, by dataset: about half-way.
BASE_STEPS = {"digits": 40}
OTHER_BASE_STEPS = 300


@dataclass(frozen=True, slots=True)
class Candidate:
    strategy: Strategy
    learning_rate: float = 0.001
    batch_size: int = 32


def _default(learning_rate: float = 0.001, batch_size: int = 32, **changes: Any) -> Candidate:
    return Candidate(dataclasses.replace(DEFAULT, **changes), learning_rate, batch_size)


def _plain(learning_rate: float = 0.001, **changes: Any) -> Candidate:
    return Candidate(dataclasses.replace(PLAIN, **changes), learning_rate)


# One change to plain Adam each, and one change to the default each.
CANDIDATES = {
    "plain": Candidate(PLAIN),
    "plain, averaged": _plain(averaging="ema"),
    "plain, smoothed": _plain(label_smoothing=0.1),
    "plain, cosine": _plain(schedule="cosine"),
    "plain, triangular": _plain(schedule="triangular", warmup=0.1),
    "plain, trapezoidal": _plain(schedule="trapezoidal"),
    "plain, light augmentation": _plain(augment="light"),
    "plain, AdamW 0.05": _plain(optimizer="adamw", weight_decay=0.05),
    "Nesterov SGD 0.05, triangular": _plain(
        0.05, optimizer="sgd", schedule="triangular", warmup=0.1
    ),
    "default": Candidate(DEFAULT),
    "default, not averaged": _default(averaging="none"),
    "default, smoothed by 0.05": _default(label_smoothing=0.05),
    "default, smoothed by 0.2": _default(label_smoothing=0.2),
    "default, not smoothed": _default(label_smoothing=0.0),
    "default, constant": _default(schedule="constant"),
    "default, cosine": _default(schedule="cosine"),
    "default, triangular": _default(schedule="triangular"),
    "default, warm-up 0.1": _default(warmup=0.1),
    "default, light augmentation": _default(augment="light"),
    "default, peak 0.002": _default(0.002),
    "default, batches of 128, peak 0.002": _default(0.002, 128),
    "default, a twentieth held out": _default(validation=0.05),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One column of the table. `budget`: epochs, or seconds with an ``s`` behind."""

    data: DataSpec
    base: str
    budget: str

    def __str__(self) -> str:
        of = self.budget if self.budget.endswith("s") else f"{self.budget} ep."
        return f"{self.data.name} {self.base} {of}"

    def budgeted(self) -> dict[str, Any]:
        if self.budget.endswith("s"):
            deadline = time.process_time() + float(self.budget.removesuffix("s"))
            return {"epochs": "auto", "deadline": deadline}
        return {"epochs": int(self.budget)}


HOOKS = Hooks(clock=time.process_time)


def base_model(folder: Path, data: DataSpec, kind: str) -> ModelFile:
    """A random SimpleCNN, or that one after some steps of plain Adam: as rounds begin with."""
    torch.manual_seed(0)
    state = SimpleCNN(10).state_dict()
    model = _stored(state, folder / f"{data.name}-random.pt")
    # Decodes the data and finds the fastest way to train: no run that is measured pays for that.
    _train(model, data, Candidate(PLAIN), 99, folder, epochs=1, max_batches=1)
    if kind == "random":
        return model
    steps = BASE_STEPS.get(data.name, OTHER_BASE_STEPS)
    result = _train(model, data, Candidate(PLAIN), 99, folder, epochs=1, max_batches=steps)
    gradient = load_model(folder / result.artifact, 1 << 30).tensors
    return _stored(apply(state, gradient, -0.1), folder / f"{data.name}-trained.pt")


def _stored(state: dict[str, torch.Tensor], path: Path) -> ModelFile:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(buffer.getvalue())
    return ModelFile(path, hashlib.sha256(buffer.getvalue()).hexdigest())


def _train(
    model: ModelFile, data: DataSpec, candidate: Candidate, seed: int, folder: Path, **budget: Any
) -> Any:
    spec = TrainSpec(
        model=model,
        architecture="simple_cnn",
        classes=10,
        data=data,
        preview=data,
        batch_size=candidate.batch_size,
        learning_rate=candidate.learning_rate,
        seed=seed,
        device="cpu",
        threads=1,
        until_improved=False,
        strategy=candidate.strategy,
        precision="auto",
        checkpoint_every_s=0.0,
        **budget,
    )
    return train_model(spec, folder, HOOKS)


def runs(cells: list[Cell], names: list[str], seeds: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Every candidate once per cell and seed, in turns."""
    bases: dict[tuple[str, str], ModelFile] = {}
    for seed in range(seeds):
        for cell in cells:
            key = (cell.data.name, cell.base)
            if key not in bases:
                bases[key] = base_model(folder, cell.data, cell.base)
            for name in names:
                began = time.process_time()
                budget = cell.budgeted()
                result = _train(bases[key], cell.data, CANDIDATES[name], seed, folder, **budget)
                yield {
                    "cell": str(cell),
                    "candidate": name,
                    "seed": seed,
                    "before": result.preview.before,
                    "after": result.preview.after,
                    "samples": result.samples,
                    "cpu_s": round(time.process_time() - began, 2),
                }


def show(found: list[dict[str, Any]]) -> None:
    """Medians per cell, with what each candidate gains on the first one."""
    cells = list(dict.fromkeys(each["cell"] for each in found))
    names = list(dict.fromkeys(each["candidate"] for each in found))
    print("| Accuracy in percent, gain on the first | " + " | ".join(cells) + " |")
    print("|---" * (len(cells) + 1) + "|")
    for name in names:
        shown = []
        for cell in cells:
            after = [
                statistics.median(
                    each["after"]
                    for each in found
                    if each["cell"] == cell and each["candidate"] == which
                )
                for which in (names[0], name)
            ]
            shown.append(f"{after[1]:.2f} ({after[1] - after[0]:+.2f})")
        print(f"| {name} | " + " | ".join(shown) + " |")


def measure(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser("python -m tests.benchmarks.strategy", description=__doc__)
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("--data", action="append", help="NAME or NAME=FOLDER; default: digits")
    options.add_argument("--budgets", default="1,5", help="epochs, or CPU seconds with an s behind")
    options.add_argument("--bases", default="random,trained", help="what training begins with")
    options.add_argument("--seeds", type=int, default=3, help="runs of each candidate")
    options.add_argument(
        "--candidates", default="plain|default", help="names with | between, or all"
    )
    options.add_argument("--json", type=Path, help="write every run there, a line each")
    given = options.parse_args(arguments)
    names = given.candidates.split("|") if given.candidates != "all" else list(CANDIDATES)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        specs = []
        for each in given.data or ["digits"]:
            name, _, path = each.partition("=")
            specs.append(DataSpec(name, Path(path).resolve() if path else None, folder / "data"))
        cells = [
            Cell(data, base, budget)
            for data in specs
            for base in given.bases.split(",")
            for budget in given.budgets.split(",")
        ]
        found = []
        for run in runs(cells, names, given.seeds, folder):
            found.append(run)
            if given.json:
                with given.json.open("a") as lines:
                    lines.write(json.dumps(run) + "\n")
        show(found)


if __name__ == "__main__":
    measure()
