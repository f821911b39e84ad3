"""``device``: what training would use."""

from __future__ import annotations

import asyncio

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli.output import JSON_OPTION, print_json, print_pairs

EPILOG = """\b
Examples:
  decloud-trainer device
  decloud-trainer device --device cpu --threads 1
  decloud-trainer device --json

\b
Exit codes: 0 done, 1 torch doesn't work here, 2 there is no such device.
"""


@click.command(epilog=EPILOG)
@click.option("--device", "name", metavar="NAME", help="Instead of the setting: auto, cpu, cuda..")
@click.option("--threads", metavar="N", help="Instead of the setting; 0: chosen.")
@JSON_OPTION
def device(name: str | None, threads: str | None, as_json: bool) -> None:
    """Show the device, threads and precision that training would use, and measure their speed.

    A child trains the model that ships with this program on made-up images for a second.
    """
    from decloud_trainer.checks.machine import EPOCH_SAMPLES, epoch_seconds, measure_device

    loaded = settings_file.load(options={"device": name, "threads": threads})
    found = asyncio.run(measure_device(loaded.settings))
    keys = ("device", "threads", "precision", "torch", "architecture", "parameters")
    speed = found["samples_per_s"]
    facts = {key: found[key] for key in keys}
    if as_json:
        settings = {"device": loaded.settings.device, "threads": loaded.settings.threads}
        print_json({**facts, "samples_per_s": speed, "settings": settings})
        return
    print_pairs(
        {
            "Device": f"{found['device']} (setting: {loaded.settings.device})",
            "Threads": str(found["threads"]),
            "Precision": found["precision"],
            "Torch": found["torch"],
            "Model": f"{found['architecture']}, {found['parameters']:,} parameters",
            "Speed": f"{speed:,.0f} samples/s: {EPOCH_SAMPLES:,} images, as in MNIST, take "
            f"about {epoch_seconds(speed):,.0f} s",
        }
    )
