"""``list`` and ``explain``: the rounds there are, and whether we would take them."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli import completing
from decloud_trainer.cli.outlook import outlook_now
from decloud_trainer.cli.output import (
    JSON_OPTION,
    fitting,
    folded,
    print_json,
    print_table,
    sign,
    terminal_width,
    time_left,
)
from decloud_trainer.cli.showing import (
    MOST_TRAINERS,
    ROUND_ID,
    next_deadline,
    own_key,
    round_json,
    statuses_named,
    submission_word,
)
from decloud_trainer.errors import SettingsError
from decloud_trainer.money import format_sol, lamports_from_sol
from decloud_trainer.names import dataset_key

if TYPE_CHECKING:
    from decloud_trainer.rounds.model import Round
    from decloud_trainer.rounds.policy import Decision, Verdict
    from decloud_trainer.settings import Settings

SORTS = ("id", "reward", "deadline", "trainers")
WATCH_S = 5.0
# Room for a verdict beside the other columns; with less it stands below them.
VERDICT_COLUMNS = 24

LIST_EPILOG = """\b
Examples:
  decloud-trainer list
  decloud-trainer list --status training
  decloud-trainer list --joinable --sort reward
  decloud-trainer list --dataset cifar10,mnist --min-reward 0.01 --watch
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A listed round: `mine` is how far the wallet is with it, `verdict` whether we'd take it."""

    round: Round
    mine: str
    joinable: bool
    verdict: str


@click.command("list", epilog=LIST_EPILOG)
@click.option(
    "--status",
    shell_complete=completing.statuses,
    help="Only this status, e.g. waitingTrainers or training.",
)
@click.option(
    "--dataset",
    metavar="LIST",
    shell_complete=completing.dataset_lists,
    help="Only these datasets.",
)
@click.option("--mine", is_flag=True, help="Only rounds that the wallet is in.")
@click.option("--joinable", is_flag=True, help="Only rounds that the daemon would take now.")
@click.option("--min-reward", metavar="SOL", help="Only rewards from this on.")
@click.option("--sort", type=click.Choice(SORTS), default="id", show_default=True)
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@click.option("--watch", is_flag=True, help="List again every five seconds, until Ctrl-C.")
@JSON_OPTION
@click.pass_context
def list_rounds(ctx: click.Context, /, watch: bool, as_json: bool, **wanted: Any) -> None:
    """List the rounds on the network, and whether they would be taken."""
    settings = settings_file.load().settings
    pubkey = own_key(ctx)
    keep = _filter(**wanted)
    statuses = statuses_named(wanted["status"])
    while True:
        rows, now = asyncio.run(_rows(settings, statuses, pubkey))
        rows = keep(rows)
        if watch and not as_json:
            click.clear()
        show_rows(rows, now, settings.network, as_json)
        if not watch:
            return
        time.sleep(WATCH_S)


def _filter(
    *,
    status: str | None,
    dataset: str | None,
    mine: bool,
    joinable: bool,
    min_reward: str | None,
    sort: str,
    limit: int | None,
) -> Any:
    """A function that keeps, orders and cuts the rows as asked for."""
    names = {dataset_key(name) for name in (dataset or "").split(",") if name.strip()}
    try:
        least = lamports_from_sol(min_reward) if min_reward is not None else 0
    except ValueError as error:
        raise SettingsError(f"--min-reward: {error}") from error

    def order(row: Row) -> Any:
        round = row.round
        return {
            "id": round.id,
            "reward": (-round.reward_lamports, round.id),
            "deadline": (next_deadline(round) or 2**62, round.id),
            "trainers": (round.trainers_count, round.id),
        }[sort]

    def keep(rows: list[Row]) -> list[Row]:
        kept = [
            row
            for row in rows
            if (not names or row.round.dataset.key in names)
            and (row.mine or not mine)
            and (row.joinable or not joinable)
            and row.round.reward_lamports >= least
        ]
        return sorted(kept, key=order)[:limit]

    return keep


def show_rows(rows: list[Row], now: float, network: str, as_json: bool) -> None:
    """Print the rounds, for people or for scripts; where there is little room, what would become of
    them stands below the table."""
    if as_json:
        print_json(
            [
                round_json(row.round)
                | {
                    "mine": bool(row.mine),
                    "progress": row.mine or None,
                    "joinable": row.joinable,
                    "verdict": row.verdict,
                }
                for row in rows
            ]
        )
        return
    if not rows:
        click.echo(f"no such rounds on {network}")
        return
    columns = {
        "Round": [str(row.round.id) for row in rows],
        "Status": [row.round.status.value for row in rows],
        "Dataset": [str(row.round.dataset) for row in rows],
        "Reward": [format_sol(row.round.reward_lamports) for row in rows],
        "Trainers": [f"{row.round.trainers_count}/{MOST_TRAINERS}" for row in rows],
        "Time left": [time_left(next_deadline(row.round), now) for row in rows],
        "Mine": [row.mine for row in rows],
    }
    verdicts = [_verdict_text(row) for row in rows]
    width = terminal_width() if sys.stdout.isatty() else None
    roomy = {**columns, "Take it?": [" " * VERDICT_COLUMNS]}
    if width is None or fitting(roomy, ("Take it?",), width) == list(roomy):
        columns["Take it?"] = verdicts
        print_table(list(columns), list(zip(*columns.values(), strict=True)))
        return
    names = fitting(columns, ("Mine", "Trainers"), width)
    print_table(names, list(zip(*(columns[name] for name in names), strict=True)))
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict or row.mine:
            click.echo(folded(f"round {row.round.id}: ", verdict or row.mine, indent=4))


def _verdict_text(row: Row) -> str:
    """Whether it would be taken, and if not, why."""
    return "yes" if row.joinable else f"no: {row.verdict}" if row.verdict else ""


async def _rows(
    settings: Settings, statuses: tuple[Any, ...], pubkey: str | None
) -> tuple[list[Row], float]:
    from decloud_trainer.wiring import open_chain, open_journal

    rows = []
    with open_journal() as journal:
        async with open_chain(settings, pubkey) as (chain, now):
            found = await chain.rounds_with(*statuses)
            submissions = await chain.submissions() if pubkey else []
            outlook = await outlook_now(chain, settings, pubkey, now, journal=journal)
        mine = {one.round_id: submission_word(one) for one in submissions}
        for round in found:
            if round.id in mine or round.status.is_over:
                rows.append(Row(round, mine.get(round.id, ""), False, ""))
                continue
            decision = outlook.decide(round)
            rows.append(Row(round, "", decision.take, "" if decision.take else decision.reason))
    return rows, now


@click.command(epilog="\b\nExample:\n  decloud-trainer explain 42")
@ROUND_ID
@JSON_OPTION
@click.pass_context
def explain(ctx: click.Context, round_id: int, as_json: bool) -> None:
    """Say why a round would be taken or not: every rule, in order, with its numbers."""
    settings = settings_file.load().settings
    decision, verdicts = asyncio.run(_one(settings, round_id, own_key(ctx)))
    if as_json:
        rules = [dataclasses.asdict(verdict) for verdict in verdicts]
        print_json(
            {"round": round_id, "take": decision.take, "reason": decision.reason, "rules": rules}
        )
        return
    click.echo(f"Round {round_id} would {'' if decision.take else 'not '}be taken.")
    for verdict in verdicts:
        mark = sign("✓", "ok   ") if verdict.passed else sign("✗", "NO   ")
        click.echo(folded(f"  {mark}{verdict.rule:<15} ", verdict.text))


async def _one(
    settings: Settings, round_id: int, pubkey: str | None
) -> tuple[Decision, list[Verdict]]:
    from decloud_trainer.rounds.model import existing
    from decloud_trainer.wiring import open_chain, open_journal

    with open_journal() as journal:
        async with open_chain(settings, pubkey) as (chain, now):
            round = existing(await chain.round(round_id), round_id, settings.network)
            outlook = await outlook_now(
                chain, settings, pubkey, now, journal=journal, round_id=round_id
            )
        return outlook.decide(round), outlook.explain(round)
