"""``start``: the daemon."""

from __future__ import annotations

import asyncio
import datetime
import time

import click

from decloud_trainer import config as settings_file
from decloud_trainer import presets
from decloud_trainer.cli import completing
from decloud_trainer.cli.amounts import span_s
from decloud_trainer.cli.output import JSON_OPTION
from decloud_trainer.cli.session import Session, dry_run, run_session
from decloud_trainer.errors import SettingsError

EPILOG = """\b
Examples:
  decloud-trainer start
  decloud-trainer start --dataset cifar10,mnist --min-reward 0.01
  decloud-trainer start --preset image-small --max-parallel 2
  decloud-trainer start --for 2h --max-rounds 5
  decloud-trainer start --dry-run --once
  nohup decloud-trainer start > trainer.log 2>&1 &

\b
Exit codes: 0 after Ctrl-C or SIGTERM; 1 when another one is running, the
network can't be reached at the start or Pinata refuses the key; 2 for wrong
settings.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--preset",
    metavar="NAME",
    shell_complete=completing.preset_names,
    help="Use a preset for this session.",
)
@click.option(
    "--dataset",
    metavar="LIST",
    shell_complete=completing.dataset_lists,
    help="Comma-separated datasets to accept.",
)
@click.option("--min-reward", metavar="SOL", help="Least reward to accept.")
@click.option("--max-reward", metavar="SOL", help="Greatest reward to accept; 0: unlimited.")
@click.option("--min-profit", metavar="SOL", help="Least profit to expect after all costs.")
@click.option("--epochs", metavar="N", help="Training epochs per round.")
@click.option("--max-parallel", metavar="N", help="Rounds worked on at once.")
@click.option("--no-auto-train", is_flag=True, help="Only join; don't train.")
@click.option("--no-auto-claim", is_flag=True, help="Don't claim rewards.")
@click.option(
    "--network",
    metavar="NAME",
    shell_complete=completing.networks,
    help="localnet, devnet, testnet or mainnet-beta.",
)
@click.option("--once", is_flag=True, help="Advance what can be advanced now, then end.")
@click.option("--until", "until_time", metavar="HH:MM", help="Take nothing new from then on.")
@click.option("--for", "for_span", metavar="SPAN", help="The same after 90s, 10m, 1.5h or 2d.")
@click.option("--max-rounds", type=click.IntRange(1), help="Take so many rounds, then end.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Decide and explain; send nothing.")
@click.option("--plain", is_flag=True, help="Lines instead of the live view.")
@JSON_OPTION
@click.pass_context
def start(
    ctx: click.Context,
    preset: str | None,
    dataset: str | None,
    min_reward: str | None,
    max_reward: str | None,
    min_profit: str | None,
    epochs: str | None,
    max_parallel: str | None,
    no_auto_train: bool,
    no_auto_claim: bool,
    network: str | None,
    once: bool,
    until_time: str | None,
    for_span: str | None,
    max_rounds: int | None,
    is_dry_run: bool,
    plain: bool,
    as_json: bool,
) -> None:
    """Run the daemon: find rounds, join, train, submit and claim, until Ctrl-C.

    Options hold for this session and win over --preset, which wins over the configuration.
    With --until, --for and --max-rounds, rounds in work are completed before it ends.
    """
    if once and (until_time or for_span):
        raise click.UsageError("--once ends by itself: leave out --until and --for")
    if is_dry_run and max_rounds:
        raise click.UsageError("--dry-run takes no rounds: leave out --max-rounds")
    options = {
        "datasets": dataset,
        "min_reward": min_reward,
        "max_reward": max_reward,
        "min_profit": min_profit,
        "epochs": epochs,
        "max_concurrent_rounds": max_parallel,
        "auto_train": False if no_auto_train else None,
        "auto_claim": False if no_auto_claim else None,
        "network": network,
    }
    chosen = presets.load(preset) if preset else None
    loaded = settings_file.load(
        preset=(chosen.name, chosen.values) if chosen else None, options=options
    )
    session = Session(
        settings=loaded.settings,
        keypair=ctx.obj["keypair"],
        verbose=ctx.obj["verbose"],
        as_json=as_json,
        plain=plain,
        once=once,
        finish_at=_finish_at(until_time, for_span),
        max_rounds=max_rounds,
    )
    asyncio.run(dry_run(session) if is_dry_run else run_session(session))


def _finish_at(until_time: str | None, for_span: str | None) -> float | None:
    """Unix seconds from which nothing new is taken; None: never."""
    if until_time is not None and for_span is not None:
        raise click.UsageError("--until and --for exclude each other")
    if for_span is not None:
        return time.time() + span_s(for_span)
    if until_time is None:
        return None
    try:
        wanted = time.strptime(until_time, "%H:%M")
    except ValueError as error:
        raise SettingsError(
            f"--until {until_time!r} is no time of day", hint="write it as 07:00"
        ) from error
    now = datetime.datetime.now().astimezone()
    end = now.replace(hour=wanted.tm_hour, minute=wanted.tm_min, second=0, microsecond=0)
    return (end if end > now else end + datetime.timedelta(days=1)).timestamp()
