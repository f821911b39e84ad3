"""``bench``: how fast training is here, beside a plain loop."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli.output import JSON_OPTION, print_json, print_table

EPILOG = """\b
Examples:
  decloud-trainer bench
  decloud-trainer bench --turns 10 --json

\b
Let nothing else run meanwhile. The ratio holds on a busy machine, too; the
samples per second don't.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--turns", type=click.IntRange(1, 100), default=5, show_default=True, help="Epochs of each."
)
@JSON_OPTION
def bench(turns: int, as_json: bool) -> None:
    """Measure training speed beside a plain PyTorch loop, in turns.

    Both train SimpleCNN on the shipped digits with batches of 32; the plain one transforms image
    by image and reads the loss back at every batch.
    """
    # As in a training child: threads that wait don't spin. It must be set before torch is here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from decloud_trainer.files import cache_dir
    from decloud_trainer.training.bench import compare

    settings = settings_file.load().settings
    found = compare(
        cache_dir() / "datasets", device=settings.device, threads=settings.threads, turns=turns
    )
    if as_json:
        print_json({**asdict(found), "ratio": found.ratio})
        return
    click.echo(f"SimpleCNN on {found.device}, {found.threads} threads; medians of {turns} turns")
    print_table(
        ["Loop", "Samples/s", "Ratio"],
        [
            ["plain", f"{found.plain:,.0f}", "1.00"],
            ["decloud-trainer", f"{found.ours:,.0f}", f"{found.ratio:.2f}"],
        ],
    )
