"""``list``, ``status``, and a round by hand: ``join``, ``train``, ``claim``."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli.output import (
    JSON_OPTION,
    clock_time,
    folded,
    print_json,
    print_pairs,
    print_table,
    state_text,
    time_left,
)
from decloud_trainer.errors import DecloudError, RoundError, SettingsError, WalletError
from decloud_trainer.money import format_sol

if TYPE_CHECKING:
    from decloud_trainer.rounds.entry import Entry, RowKey
    from decloud_trainer.rounds.journal import Journal
    from decloud_trainer.rounds.model import Round, Submission

# A signature in a journal's line; `status` lists them in full below.
_LONG_WORD = re.compile(r"\b(\w{8})\w{64,}")

ROUND_ID = click.argument("round_id", type=click.IntRange(0, 2**64 - 1))


@click.command(
    "list", epilog="\b\nExamples:\n  decloud-trainer list\n  decloud-trainer list --status training"
)
@click.option("--status", help="Only rounds of this status, e.g. waitingTrainers or training.")
@JSON_OPTION
@click.pass_context
def list_rounds(ctx: click.Context, status: str | None, as_json: bool) -> None:
    """List the rounds on the network."""
    settings = settings_file.load().settings
    found, mine, now = asyncio.run(_rounds(settings, _status(status), _own_key(ctx)))
    if as_json:
        print_json([round_json(round) | {"mine": round.id in mine} for round in found])
        return
    if not found:
        click.echo(f"no rounds{f' with status {status}' if status else ''} on {settings.network}")
        return
    rows = [
        [
            str(round.id),
            round.status.value,
            str(round.dataset),
            format_sol(round.reward_lamports),
            str(round.trainers_count),
            time_left(_next_deadline(round), now),
            mine.get(round.id, ""),
        ]
        for round in found
    ]
    print_table(["Round", "Status", "Dataset", "Reward", "Trainers", "Time left", "Mine"], rows)


@click.command(epilog="\b\nExample:\n  decloud-trainer status 42")
@ROUND_ID
@JSON_OPTION
@click.pass_context
def status(ctx: click.Context, round_id: int, as_json: bool) -> None:
    """Show where a round stands, on chain and here, and why."""
    settings = settings_file.load().settings
    pubkey = _own_key(ctx)
    round, submission, now = asyncio.run(_one_round(settings, round_id, pubkey))
    known = _journal_view(round_id, pubkey)
    if as_json:
        print_json(round_json(round) | {"submission": _submission_json(submission), **known})
        return
    print_pairs(
        {
            "Round": str(round.id),
            "Status": round.status.value,
            "Dataset": str(round.dataset),
            "Reward": format_sol(round.reward_lamports),
            "Trainers": f"{round.trainers_count} joined, {round.submissions_count} submitted",
            "Time left": time_left(_next_deadline(round), now),
            "Creator": round.creator,
            "Validator": round.validator or "-",
            "Baseline": f"{round.baseline_score / 100:.2f} %" if round.baseline_score else "-",
            "Model": round.model_cid,
            "Gradients": submission.gradient_cid if submission and submission.submitted else "-",
            "Submission": _submission_text(submission),
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
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at"]))
        click.echo(folded(f"  {at} {event['state']:<10} ", text, indent=REASON_COLUMN))
    if known["transactions"]:
        click.echo("Transactions:")
    for line in known["transactions"]:
        click.echo(f"  {line['kind']}, {_change(line['change_lamports'])}:\n  {line['signature']}")


def _change(lamports: int) -> str:
    return f"{'+' if lamports > 0 else ''}{format_sol(lamports)}"


@click.command(
    epilog="\b\nExample:\n  decloud-trainer join 42\n\nExit code 1 if the round can't be joined."
)
@ROUND_ID
@JSON_OPTION
@click.pass_context
def join(ctx: click.Context, round_id: int, as_json: bool) -> None:
    """Join one round, whatever the filters say; its model is verified first."""
    _act(ctx, "join", round_id, {}, as_json)


@click.command(
    epilog="\b\nExamples:\n  decloud-trainer train 42 --epochs 3\n"
    "  decloud-trainer train 42 --max-batches 50\n\nExit code 1 if nothing was submitted."
)
@ROUND_ID
@click.option("--epochs", type=click.IntRange(1, 10_000), help="Epochs, instead of the setting.")
@click.option("--max-batches", type=click.IntRange(0), help="Most batches per epoch; 0: all.")
@JSON_OPTION
@click.pass_context
def train(
    ctx: click.Context,
    round_id: int,
    epochs: int | None,
    max_batches: int | None,
    as_json: bool,
) -> None:
    """Train and submit one joined round; waits for its training phase."""
    _act(ctx, "train", round_id, {"epochs": epochs, "max_batches": max_batches}, as_json)


@click.command(
    epilog="\b\nExample:\n  decloud-trainer claim 42\n\nExit code 1 if nothing was claimed."
)
@ROUND_ID
@JSON_OPTION
@click.pass_context
def claim(ctx: click.Context, round_id: int, as_json: bool) -> None:
    """Claim the reward of one completed round."""
    _act(ctx, "claim", round_id, {}, as_json)


NEXT = {"join": "train", "train": "claim"}


def _arrived(kind: str) -> Callable[[Entry], bool]:
    """Whether a row is where the command wanted it, or can't get there."""
    ends = {
        "join": {"joined", "trained", "pinned", "submitted", "claimable", "skipped"},
        "train": {"submitted", "claimable"},
        "claim": set[str](),
    }[kind]
    return lambda entry: entry.state.value in ends or entry.state.is_final


def _act(ctx: click.Context, kind: str, round_id: int, args: dict[str, Any], as_json: bool) -> None:
    from decloud_trainer.wiring import home_is_held

    settings = settings_file.load().settings
    if home_is_held():
        entry = _through_daemon(settings, ctx, kind, round_id, args, as_json)
    else:
        entry = asyncio.run(_by_ourselves(settings, ctx, kind, round_id, args, as_json))
    done = entry.state.value not in ("skipped", "failed", "lost") or (
        kind == "join" and entry.state.value != "skipped"
    )
    if not done:
        raise RoundError(f"round {round_id} is {entry.state.value}: {entry.reason}")
    if as_json:
        print_json({"round": round_id, "state": entry.state.value, "reason": entry.reason})
    elif kind in NEXT:
        click.echo(f"next: decloud-trainer {NEXT[kind]} {round_id}")


async def _by_ourselves(
    settings: settings_file.Settings,
    ctx: click.Context,
    kind: str,
    round_id: int,
    args: dict[str, Any],
    as_json: bool,
) -> Entry:
    """With no daemon running: hold the lock and run the same steps."""
    from decloud_trainer.cli.live import Teller
    from decloud_trainer.cli.logs import start_logging
    from decloud_trainer.rounds.daemon import run_until
    from decloud_trainer.rounds.entry import Request
    from decloud_trainer.rounds.intake import take_request
    from decloud_trainer.wiring import open_trainer

    start_logging("commands", verbose=ctx.obj["verbose"])
    teller = Teller(as_json=as_json)
    async with open_trainer(
        settings,
        ctx.obj["keypair"],
        on_event=teller.event,
        on_progress=lambda told: teller.progress(told, time.monotonic()),
    ) as trainer:
        request = Request(0, kind, trainer.scope.key(round_id), args)
        entry = await take_request(trainer.engine, trainer.scope, request)
        return await run_until(trainer.engine, entry, _arrived(kind))


def _through_daemon(
    settings: settings_file.Settings,
    ctx: click.Context,
    kind: str,
    round_id: int,
    args: dict[str, Any],
    as_json: bool,
) -> Entry:
    """With a daemon running: leave a request in the journal and follow the round there."""
    from decloud_trainer.rounds.journal import Journal
    from decloud_trainer.wiring import journal_path, scope_of

    scope = asyncio.run(scope_of(settings, ctx.obj["keypair"]))
    journal = Journal(journal_path())
    number = journal.ask(kind, scope.key(round_id), args)
    if not as_json:
        click.echo(f"a daemon is running: it was asked to {kind} round {round_id}", err=True)
    try:
        return _follow(journal, number, scope.key(round_id), kind, as_json)
    finally:
        journal.withdraw(number)  # nothing, unless nobody has taken it yet
        journal.close()


def _follow(journal: Journal, number: int, key: RowKey, kind: str, as_json: bool) -> Entry:
    """Show what the daemon does for a request, until the round is where it was wanted."""
    from decloud_trainer.cli.live import REASON_COLUMN
    from decloud_trainer.wiring import home_is_held

    round_id = key.round_id
    arrived, told = _arrived(kind), ""
    while True:
        state, answer = journal.answer_of(number)
        if state == "refused":
            raise RoundError(answer)
        entry = journal.entry(key)
        if state == "taken" and entry is not None:
            if not as_json and (line := state_text(entry.state.value, entry.reason)) != told:
                prefix = f"[{clock_time(time.time())}] round #{round_id} "
                click.echo(folded(prefix, line, indent=REASON_COLUMN))
                told = line
            if arrived(entry):
                return entry
        if not home_is_held():
            raise DecloudError(
                "the daemon has stopped before it was done",
                hint=f"run `decloud-trainer {kind} {round_id}` again",
            )
        time.sleep(0.3)


async def _rounds(
    settings: settings_file.Settings, statuses: tuple[Any, ...], pubkey: str | None
) -> tuple[list[Round], dict[int, str], float]:
    """The rounds, how far the wallet is with those that it is in, and the time on chain."""
    from decloud_trainer.wiring import open_chain

    async with open_chain(settings, pubkey) as (chain, now):
        found = await chain.rounds_with(*statuses)
        mine = await chain.submissions() if pubkey else []
    return found, {submission.round_id: _progress(submission) for submission in mine}, now


def _progress(submission: Submission) -> str:
    if submission.reward_claimed:
        return "claimed"
    return "submitted" if submission.submitted else "joined"


async def _one_round(
    settings: settings_file.Settings, round_id: int, pubkey: str | None
) -> tuple[Round, Submission | None, float]:
    """The round, the wallet's submission in it, and the time on chain."""
    from decloud_trainer.wiring import open_chain

    async with open_chain(settings, pubkey) as (chain, now):
        round = await chain.round(round_id)
        if round is None:
            raise RoundError(
                f"round {round_id} is not on {settings.network}",
                hint="`decloud-trainer list` shows the rounds there are",
            )
        return round, await chain.submission(round_id) if pubkey else None, now


def _own_key(ctx: click.Context) -> str | None:
    """The wallet's public key; None without a wallet, since looking needs none."""
    from decloud_trainer.wiring import wallet_of

    try:
        return wallet_of(settings_file.load().settings, ctx.obj["keypair"]).pubkey
    except WalletError:
        return None


def _status(name: str | None) -> tuple[Any, ...]:
    from decloud_trainer.rounds.model import RoundStatus

    if name is None:
        return ()
    wanted = name.replace("_", "").replace("-", "").lower()
    known = {s.value.lower(): s for s in RoundStatus if s is not RoundStatus.UNKNOWN}
    if wanted not in known:
        raise SettingsError(
            f"there is no status {name!r}",
            hint=f"statuses: {', '.join(status.value for status in known.values())}",
        )
    return (known[wanted],)


def _next_deadline(round: Round) -> int:
    """The deadline that the round's status makes the next one; 0 if there is none."""
    return {
        "WaitingValidator": round.validator_deadline,
        "WaitingTrainers": round.join_deadline,
        "Training": round.submit_deadline,
    }.get(round.status.value, 0)


def round_json(round: Round) -> dict[str, Any]:
    return {
        "round": round.id,
        "status": round.status.value,
        "dataset": str(round.dataset),
        "dataset_index": round.dataset.index,
        "reward_lamports": round.reward_lamports,
        "trainers": round.trainers_count,
        "submissions": round.submissions_count,
        "creator": round.creator,
        "validator": round.validator,
        "model_cid": round.model_cid,
        "baseline_score": round.baseline_score,
        "created_at": round.created_at,
        "validator_deadline": round.validator_deadline,
        "join_deadline": round.join_deadline,
        "submit_deadline": round.submit_deadline,
    }


def _submission_json(submission: Submission | None) -> dict[str, Any] | None:
    if submission is None:
        return None
    return {
        "submitted": submission.submitted,
        "gradient_cid": submission.gradient_cid,
        "contribution_bps": submission.contribution_bps,
        "reward_claimed": submission.reward_claimed,
    }


def _submission_text(submission: Submission | None) -> str:
    if submission is None:
        return "not joined"
    if not submission.submitted:
        return "joined, nothing submitted yet"
    claimed = "claimed" if submission.reward_claimed else "not claimed"
    return f"submitted, share {submission.contribution_bps / 100:.2f} %, {claimed}"


def _journal_view(round_id: int, pubkey: str | None) -> dict[str, Any]:
    """What the journal knows of the round with this wallet: state, events, transactions."""
    from decloud_trainer.rounds import ledger
    from decloud_trainer.rounds.journal import Journal
    from decloud_trainer.wiring import journal_path

    nothing: dict[str, Any] = {"here": None, "events": [], "transactions": []}
    if pubkey is None or not journal_path().exists():
        return nothing
    journal = Journal(journal_path())
    rows = [
        entry
        for entry in journal.entries()
        if entry.key.round_id == round_id and entry.key.wallet == pubkey
    ]
    if not rows:
        return nothing
    entry = max(rows, key=lambda row: row.updated_at)
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
            for event in journal.events(entry)
        ],
        "transactions": [
            {
                "kind": line.kind.value,
                "signature": line.signature,
                "fee_lamports": line.fee_lamports,
                "change_lamports": line.change_lamports,
            }
            for line in ledger.lines(journal.intents(entry))
        ],
    }
