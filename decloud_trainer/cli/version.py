"""``version``: what is installed."""

from __future__ import annotations

import platform
import sys

import click

from decloud_trainer.cli.output import JSON_OPTION, print_json, print_pairs

EPILOG = "\b\nExamples:\n  decloud-trainer version\n  decloud-trainer version --json"


@click.command(epilog=EPILOG)
@JSON_OPTION
def version(as_json: bool) -> None:
    """Show the versions of this program, Python and the packages that matter.

    `decloud-trainer --version` prints this program's alone.
    """
    from decloud_trainer.checks.packages import versions

    facts = {**versions(), "system": platform.platform(), "interpreter": sys.executable}
    if as_json:
        print_json(facts)
    else:
        print_pairs(facts)
