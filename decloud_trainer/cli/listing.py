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
from decloud_trainer.errors import RoundError, SettingsError
from decloud_trainer.money import format_sol, lamports_from_sol
from decloud_trainer.names import dataset_key

if TYPE_CHECKING:
    from decloud_trainer.rounds.entry import Entry
    from decloud_trainer.rounds.model import Round
    from decloud_trainer.rounds.policy import Situation
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
    from decloud_trainer.plans import terms_of
    from decloud_trainer.rounds import policy
    from decloud_trainer.wiring import open_chain

    async with open_chain(settings, pubkey) as (chain, now):
        found = await chain.rounds_with(*statuses)
        mine = {s.round_id: submission_word(s) for s in await chain.submissions()} if pubkey else {}
        terms, situation = (
            terms_of(settings),
            await situation_now(chain, settings, pubkey, now, None),
        )
    rows = []
    for round in found:
        if round.id in mine or round.status.is_over:
            rows.append(Row(round, mine.get(round.id, ""), False, ""))
            continue
        decision = policy.decide(round, terms, situation)
        rows.append(Row(round, "", decision.take, "" if decision.take else decision.reason))
    return rows, now


@click.command(epilog="\b\nExample:\n  decloud-trainer explain 42")
@ROUND_ID
@JSON_OPTION
@click.pass_context
def explain(ctx: click.Context, round_id: int, as_json: bool) -> None:
    """Say why a round would be taken or not: every rule, in order, with its numbers."""
    from decloud_trainer.plans import terms_of
    from decloud_trainer.rounds import policy

    settings = settings_file.load().settings
    round, situation = asyncio.run(_one(settings, round_id, own_key(ctx)))
    terms = terms_of(settings)
    verdicts = policy.explain(round, terms, situation)
    decision = policy.decide(round, terms, situation)
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


async def _one(settings: Settings, round_id: int, pubkey: str | None) -> tuple[Round, Situation]:
    from decloud_trainer.wiring import open_chain

    async with open_chain(settings, pubkey) as (chain, now):
        round = await chain.round(round_id)
        if round is None:
            raise RoundError(
                f"round {round_id} is not on {settings.network}",
                hint="`decloud-trainer list` shows the rounds there are",
            )
        return round, await situation_now(chain, settings, pubkey, now, round_id)


async def situation_now(
    chain: Any, settings: Settings, pubkey: str | None, now: float, round_id: int | None
) -> Situation:
    """What a daemon would decide by at this moment, as far as another process can tell."""
    from decloud_trainer.plans import patience_of, plan_of
    from decloud_trainer.rounds.deciding import training_s, work_s
    from decloud_trainer.rounds.entry import takes_slot
    from decloud_trainer.rounds.gate import Gate
    from decloud_trainer.rounds.journal import PAUSED_UNTIL, Journal
    from decloud_trainer.rounds.policy import Situation
    from decloud_trainer.rounds.watchdog import back_offs, ended_of
    from decloud_trainer.wiring import journal_path

    in_work, seconds, work, gate = 0, None, None, Gate()
    past: list[Entry] = []
    if pubkey is not None and journal_path().exists():
        journal = Journal(journal_path())
        gate.paused = (journal.mark(PAUSED_UNTIL) or 0.0) > time.time()
        entries = [entry for entry in journal.entries() if entry.key.wallet == pubkey]
        journal.close()
        past = sorted(entries, key=lambda entry: -entry.updated_at)
        for entry in entries:
            if entry.key.round_id == round_id:
                plan = plan_of(settings)
                seconds = training_s(plan, entry.facts)
                work = work_s(plan, entry.facts, settings.expected_training_window)
            elif takes_slot(entry.state, entry.facts):
                in_work += 1
    ended = tuple(one for entry in past if (one := ended_of(entry)))
    return Situation(
        now=now,
        balance_lamports=await chain.balance() if pubkey else None,
        costs=await chain.costs(round_id if settings.max_priority_fee_lamports else None),
        rounds_in_work=in_work,
        training_s=seconds,
        work_s=work,
        past=ended,
        closed=gate.closed(-1 if round_id is None else round_id),
        back_offs=back_offs(ended, now, patience_of(settings)),
    )
