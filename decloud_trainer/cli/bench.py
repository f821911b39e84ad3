"""``bench``: how fast training is here, beside a plain loop and beside what is possible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli.output import JSON_OPTION, print_json, print_pairs, print_table
from decloud_trainer.training import limits

QUICK_STEPS = 10

EPILOG = """\b
Examples:
  decloud-trainer bench
  decloud-trainer bench --quick
  decloud-trainer bench --data ~/fashion-mnist --races 3
  decloud-trainer bench --turns 10 --batch-size 128 --json

\b
Let nothing else run meanwhile. The ratios hold on a busy machine, too; the
samples per second don't.

\b
Exit codes: 0 done, 1 the data isn't there or something failed,
2 there is no such device.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="PATH",
    help="A folder with images of up to ten classes, e.g. Fashion-MNIST; otherwise the shipped "
    "digits.",
)
@click.option(
    "--turns", type=click.IntRange(1, 100), default=5, show_default=True, help="Turns of each loop."
)
@click.option(
    "--races",
    type=click.IntRange(0, 20),
    default=1,
    show_default=True,
    help="How often the time to an accuracy is measured; 0: not at all.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 4096),
    default=32,
    show_default=True,
    help="Samples per step, in all loops.",
)
@click.option(
    "--quick", is_flag=True, help="One short turn, no race, no memory: a first impression."
)
@JSON_OPTION
def bench(
    data: Path | None, turns: int, races: int, batch_size: int, quick: bool, as_json: bool
) -> None:
    """Measure training speed beside a plain PyTorch loop and beside the most that torch can do.

    All train SimpleCNN from equal weights in turns. The plain loop transforms image by image in
    two workers and reads the loss back at every batch; the ceiling has its batches ready in memory.
    """
    limits.ready_for_torch()
    from decloud_trainer.files import cache_dir
    from decloud_trainer.training.bench import Wanted, compare

    settings = settings_file.load().settings
    wanted = Wanted(
        cache_dir(),
        ("own", data.expanduser().resolve()) if data else None,
        settings.device,
        settings.threads,
        settings.precision,
        batch_size,
    )
    if quick:
        wanted = replace(wanted, turns=1, steps=QUICK_STEPS, races=0, memory=False)
    else:
        wanted = replace(wanted, turns=turns, races=races)
    found = compare(wanted, lambda what: click.echo(f"... {what}", err=True)).to_json()
    if as_json:
        print_json(found)
    else:
        show(found)


def show(found: dict[str, Any]) -> None:
    """Print a `Report`."""
    click.echo(
        f"SimpleCNN on {found['dataset']}, {found['device']}, {found['threads']} threads, batches "
        f"of {found['batch_size']}; medians of {found['turns']} turns"
    )
    rates, peaks = found["rates"], found["peak_mb"]
    headings = ["Loop", "Samples/s", "Ratio", *(["Peak memory"] if peaks else [])]
    names = {"plain": "plain DataLoader loop", "ours": "decloud-trainer", "ceiling": "ceiling"}
    rows = [
        [label, f"{rates[name]:,.0f}", f"{rates[name] / rates['plain']:.2f}"]
        + ([f"{peaks[name]:,.0f} MB"] if peaks else [])
        for name, label in names.items()
    ]
    print_table(headings, rows)
    pairs = {
        "Against plain": f"{found['ratio_to_plain']:.2f} times, turn by turn",
        "Of the ceiling": f"{found['ratio_to_ceiling']:.1%}, with progress, checkpoints, averages",
        "Precision": f"{found['precision']}, {found['memory_format']}",
        "Checkpoint": f"{found['checkpoint_bytes'] / 1e6:.1f} MB, training pauses for "
        f"{found['checkpoint_pause_s'] * 1e3:.1f} ms",
        "Artefact": ", ".join(
            f"{size / 1e6:.2f} MB as {dtype}" for dtype, size in found["artifact_bytes"].items()
        ),
    }
    race = found["race"]
    if race:
        seconds, reached = race["seconds"], race["accuracy"]
        pairs[f"To {race['target']:.1f} %"] = (
            f"{seconds['ours']:.1f} s, the plain loop {seconds['plain']:.1f} s: "
            f"{seconds['plain'] / max(seconds['ours'], 1e-9):.2f} times sooner"
        )
        pairs[f"After {race['samples']:,} samples"] = ", ".join(
            f"{percent:.2f} % ({name})" for name, percent in reached.items()
        )
    print_pairs(pairs)
