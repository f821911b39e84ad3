"""``status``: a round, on chain and here; or the daemon and all that it has in work."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli import completing
from decloud_trainer.cli.exporting import export_round
from decloud_trainer.cli.output import (
    JSON_OPTION,
    folded,
    local_time,
    print_json,
    print_pairs,
    print_table,
    state_text,
    time_left,
)
from decloud_trainer.cli.showing import (
    change,
    next_deadline,
    own_key,
    round_json,
    submission_json,
    submission_text,
)
from decloud_trainer.errors import plain
from decloud_trainer.money import format_sol
from decloud_trainer.settings import Settings

if TYPE_CHECKING:
    from decloud_trainer.rounds.entry import Entry
    from decloud_trainer.rounds.journal import Journal
    from decloud_trainer.rounds.model import Round, Submission

# A signature in a journal's line; it is listed in full below.
_LONG_WORD = re.compile(r"\b(\w{8})\w{64,}")
SHOWN_PROBLEMS = 5


@click.command(
    epilog="\b\nExamples:\n  decloud-trainer status\n  decloud-trainer status --refresh\n"
    "  decloud-trainer status 42\n  decloud-trainer status 42 --export round-42.json"
)
@click.argument(
    "round_id",
    type=click.IntRange(0, 2**64 - 1),
    required=False,
    shell_complete=completing.round_ids,
)
@click.option("--refresh", is_flag=True, help="Ask the chain for the balance now.")
@click.option(
    "--export",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write all that happened with the round, without secrets; -: to standard output.",
)
@JSON_OPTION
@click.pass_context
def status(
    ctx: click.Context, round_id: int | None, refresh: bool, export: str | None, as_json: bool
) -> None:
    """Show where a round stands, on chain and here, and why.

    Without a round: the daemon, the wallet, the rounds in work and what is wrong. That works
    offline, and so does --export.
    """
    if export is not None:
        if round_id is None:
            raise click.UsageError("--export needs the ID of a round")
        export_round(round_id, own_key(ctx), export, as_json=as_json)
        return
    if round_id is None:
        view = _overview(ctx, refresh)
        if as_json:
            print_json(view)
        else:
            _print_overview(view)
        return
    settings = settings_file.load().settings
    pubkey = own_key(ctx)
    round, submission, now = asyncio.run(_one_round(settings, round_id, pubkey))
    known = _journal_view(round_id, pubkey)
    if as_json:
        print_json(round_json(round) | {"submission": submission_json(submission), **known})
        return
    print_pairs(
        {
            "Round": str(round.id),
            "Status": round.status.value,
            "Dataset": str(round.dataset),
            "Reward": format_sol(round.reward_lamports),
            "Trainers": f"{round.trainers_count} joined, {round.submissions_count} submitted",
            "Time left": time_left(next_deadline(round), now),
            "Creator": round.creator,
            "Validator": round.validator or "-",
            "Baseline": f"{round.baseline_score / 100:.2f} %" if round.baseline_score else "-",
            "Model": plain(round.model_cid),
            "Gradients": submission.gradient_cid if submission and submission.submitted else "-",
            "Submission": submission_text(submission),
        }
    )
    _print_known(known)


def _print_known(known: dict[str, Any]) -> None:
    from decloud_trainer.cli.live import REASON_COLUMN

    here = known["here"]
    if here is None:
        click.echo("\nHere: nothing was done for this round")
        return
    click.echo(folded("\nHere: ", state_text(here["state"], here["reason"])))
    if here["train_on"]:
        click.echo(f"Data: {here['train_on']}")
    for event in known["events"]:
        text = (
            _LONG_WORD.sub(r"\1...", event["text"]) if event["kind"] == "intent" else event["text"]
        )
        at = local_time(event["at"], seconds=True)
        click.echo(folded(f"  {at} {event['state']:<10} ", text, indent=REASON_COLUMN))
    if known["transactions"]:
        click.echo("Transactions:")
    for line in known["transactions"]:
        click.echo(f"  {line['kind']}, {change(line['change_lamports'])}:\n  {line['signature']}")


async def _one_round(
    settings: Settings, round_id: int, pubkey: str | None
) -> tuple[Round, Submission | None, float]:
    """The round, the wallet's submission in it, and the time on chain."""
    from decloud_trainer.rounds.model import existing
    from decloud_trainer.wiring import open_chain

    async with open_chain(settings, pubkey) as (chain, now):
        round = existing(await chain.round(round_id), round_id, settings.network)
        return round, await chain.submission(round_id) if pubkey else None, now


def _journal_view(round_id: int, pubkey: str | None) -> dict[str, Any]:
    """What the journal knows of the round with this wallet: state, events, transactions."""
    from decloud_trainer.rounds import intents, ledger
    from decloud_trainer.rounds.figures import newest
    from decloud_trainer.wiring import open_journal

    with open_journal() as journal:
        entry = newest(journal, pubkey, round_id) if journal and pubkey else None
        if journal is None or entry is None:
            return {"here": None, "events": [], "transactions": []}
        events = journal.events(entry)
        lines = ledger.lines(intents.sent(journal, entry))
    facts = entry.facts
    return {
        "here": {
            "state": entry.state.value,
            "reason": entry.reason,
            "train_on": facts.train_on,
            "architecture": facts.architecture,
            "preview_before": facts.preview_before,
            "preview_after": facts.preview_after,
            "gradient_cid": facts.gradient_cid,
            "contribution_bps": facts.contribution_bps,
        },
        "events": [
            {"at": event.at, "state": event.to_state, "kind": event.kind, "text": event.text}
            for event in events
        ],
        "transactions": [
            {
                "kind": line.kind.value,
                "signature": line.signature,
                "fee_lamports": line.fee_lamports,
                "change_lamports": line.change_lamports,
            }
            for line in lines
        ],
    }


# Without a round


def _overview(ctx: click.Context, refresh: bool) -> dict[str, Any]:
    """All that this home knows, without asking the network unless told to."""
    from decloud_trainer.wiring import home_is_held, open_journal

    view: dict[str, Any] = {
        "running": home_is_held(),
        "session": None,
        "paused_until": None,
        "wallet": own_key(ctx),
        "balance_lamports": None,
        "balance_at": None,
        "rounds": [],
        "alarms": [],
        "problems": [],
    }
    with open_journal() as journal:
        if journal is not None:
            _look_into(journal, view)
    if refresh and view["wallet"]:
        settings = settings_file.load().settings
        view["balance_lamports"] = asyncio.run(_balance(settings, view["wallet"]))
        view["balance_at"] = time.time()
    return view


def _look_into(journal: Journal, view: dict[str, Any]) -> None:
    """What the journal tells of the overview, put into it."""
    from decloud_trainer.rounds.figures import in_work, problems
    from decloud_trainer.rounds.marks import SESSION, mark, paused_until
    from decloud_trainer.watching.watchman import WATCHDOG

    until = paused_until(journal)
    view["paused_until"] = until if until > time.time() else None
    if view["running"] and (said := mark(journal, WATCHDOG)):
        view["alarms"] = [one for one in said["alarms"] if one["is_on"]]
    view["problems"] = [
        {"at": event.at, "round": event.round_id, "text": event.text}
        for event in problems(journal, SHOWN_PROBLEMS)
    ]
    if view["wallet"] is None:
        return
    view["rounds"] = [_active_json(entry) for entry in in_work(journal, view["wallet"])]
    session = mark(journal, SESSION)
    if session is not None and session.get("wallet") == view["wallet"]:
        view["session"] = session if view["running"] else None
        view["balance_lamports"] = session["balance"]
        view["balance_at"] = session["balance_at"]


async def _balance(settings: Settings, pubkey: str) -> int:
    from decloud_trainer.wiring import open_chain

    async with open_chain(settings, pubkey) as (chain, _):
        return await chain.balance()


def _active_json(entry: Entry) -> dict[str, Any]:
    from decloud_trainer.wiring import stored_progress

    deadline = next_deadline(entry.round) if entry.round else 0
    return {
        "round": entry.key.round_id,
        "state": entry.state.value,
        "reason": entry.reason,
        "dataset": str(entry.round.dataset) if entry.round else "",
        "reward_lamports": entry.round.reward_lamports if entry.round else None,
        "deadline": deadline or None,
        "progress": stored_progress(entry.key),
    }


def _print_overview(view: dict[str, Any]) -> None:
    from decloud_trainer.cli.live import progress_text

    now = time.time()
    session = view["session"]
    if session:
        since = local_time(session["started_at"])
        daemon = f"running since {since} (pid {session['pid']}) on {session['network']}"
    else:
        daemon = "a command is at work" if view["running"] else "not running"
    if view["paused_until"]:
        daemon += f", paused for {time_left(int(view['paused_until']), now)}"
    balance = "not known (--refresh asks the chain)"
    if view["balance_lamports"] is not None:
        age = int(now - view["balance_at"])
        balance = f"{format_sol(view['balance_lamports'])}, {_age(age)}"
    print_pairs(
        {"Daemon": daemon, "Wallet": view["wallet"] or "No private key found", "Balance": balance}
    )
    for alarm in view["alarms"]:
        prefix = f"ALARM {alarm['alarm']} since {local_time(alarm['since'])}: "
        click.echo(click.style(folded(prefix, alarm["text"], indent=6), fg="red", bold=True))
    if view["rounds"]:
        click.echo()
        rows = [
            [
                str(row["round"]),
                row["dataset"],
                row["state"],
                time_left(row["deadline"] or 0, now),
                progress_text(row["progress"]) if row["progress"] else row["reason"],
            ]
            for row in view["rounds"]
        ]
        print_table(["Round", "Dataset", "State", "Time left", "What happens"], rows)
    else:
        click.echo("No rounds in work.")
    for problem in view["problems"]:
        at = local_time(problem["at"], seconds=True)
        click.echo(folded(f"problem {at} round {problem['round']}: ", problem["text"], indent=10))


def _age(seconds: int) -> str:
    if seconds < 2:
        return "as of now"
    return f"{seconds} s ago" if seconds < 120 else f"{seconds // 60} min ago"
