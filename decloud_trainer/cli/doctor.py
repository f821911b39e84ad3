"""``doctor``: is everything as it should be, and if not, what to do."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli.output import JSON_OPTION, folded, print_json, styled
from decloud_trainer.errors import SettingsError

if TYPE_CHECKING:
    from decloud_trainer.checks.model import Check

# Longer names, those of gateways, push the text to the right.
NAME_COLUMNS, TEXT_COLUMN = 16, 23
COLORS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}

EPILOG = """\b
Examples:
  decloud-trainer doctor
  decloud-trainer doctor --upload
  decloud-trainer doctor --json

\b
PASS  as it should be
WARN  the trainer runs, but does less than it could
FAIL  the trainer can't do its work, or a key is in danger

\b
Exit codes: 0 without a FAIL, 1 with one. Nothing is sent or spent.
"""


@click.command(epilog=EPILOG)
@click.option("--upload", is_flag=True, help="Also pin a file of 12 bytes, as a real upload.")
@JSON_OPTION
@click.pass_context
def doctor(ctx: click.Context, upload: bool, as_json: bool) -> int:
    """Check this machine, the settings, the network and the keys; say how to fix what is wrong.

    Takes a few seconds: the training speed is measured, and every service is asked once.
    """
    if sys.stderr.isatty() and not as_json:
        click.echo("checking...", err=True)
    if not ctx.obj["verbose"]:
        # What the checks find is in their lines; the parts' own log would say it twice.
        logging.getLogger("decloud_trainer").addHandler(logging.NullHandler())
    checks = _masked(_all_checks(ctx.obj["keypair"], upload))
    counts = {word: sum(c.verdict.value == word for c in checks) for word in COLORS}
    if as_json:
        print_json({**counts, "checks": [check.to_json() for check in checks]})
    else:
        _print(checks, counts)
    return 1 if counts["FAIL"] else 0


def _all_checks(keypair: str | None, upload: bool) -> list[Check]:
    from decloud_trainer.checks.model import refused, warned
    from decloud_trainer.checks.run import machine_checks, run_checks

    try:
        loaded = settings_file.load()
    except SettingsError as error:
        rest = "wallet, network, pin service, gateways, datasets and device are not checked"
        return [
            *machine_checks(),
            refused("configuration", error),
            warned("the rest", rest, "mend the configuration first, then run this again"),
        ]
    return asyncio.run(run_checks(loaded, keypair, upload=upload))


def _masked(checks: list[Check]) -> list[Check]:
    """The adapters never tell secrets; this is the second lock on that door."""
    from dataclasses import replace

    from decloud_trainer.cli.crash import configured_secrets
    from decloud_trainer.masking import without

    secrets = configured_secrets(os.environ)
    return [replace(c, text=without(c.text, secrets), fix=without(c.fix, secrets)) for c in checks]


def _print(checks: list[Check], counts: dict[str, int]) -> None:
    for check in checks:
        word = check.verdict.value
        line = folded(f"{word}  {check.name:<{NAME_COLUMNS}} ", check.text, indent=TEXT_COLUMN)
        click.echo(styled(word, COLORS[word]) + line[len(word) :])
        if check.fix:
            # Not folded: it is often a command, to be copied in one piece.
            click.echo(f"      fix: {check.fix}")
    plural = "" if counts["WARN"] == 1 else "s"
    told = f"{counts['PASS']} passed, {counts['WARN']} warning{plural}, {counts['FAIL']} failed"
    click.echo(f"\n{told}")
