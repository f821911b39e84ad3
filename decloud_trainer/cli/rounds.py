"""A round by hand: ``join``, ``train``, ``claim``."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli import completing
from decloud_trainer.cli.output import JSON_OPTION, clock_time, folded, print_json, state_text
from decloud_trainer.cli.showing import ROUND_ID
from decloud_trainer.errors import DecloudError, RoundError, SettingsError
from decloud_trainer.settings import Settings

if TYPE_CHECKING:
    from decloud_trainer.rounds.entry import Entry, RowKey
    from decloud_trainer.rounds.journal import Journal


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
    "  decloud-trainer train 42 --max-batches 50\n"
    "  decloud-trainer train 42 --store runs --auto-commit"
    "\n\nExit code 1 if nothing was submitted, 2 if the options don't go together."
)
@ROUND_ID
@click.option("--epochs", type=click.IntRange(1, 10_000), help="Epochs, instead of the setting.")
@click.option("--max-batches", type=click.IntRange(0), help="Most batches per epoch; 0: all.")
@click.option(
    "--store",
    metavar="URL",
    help="Chain of versions to commit to: a folder, a word, or s3://bucket/prefix.",
)
@click.option(
    "--auto-commit/--no-auto-commit",
    default=None,
    help="Commit the training's state at its end, or don't.",
)
@click.option(
    "--commit-interval",
    type=click.IntRange(1),
    metavar="N",
    help="Commit after every N batches, too.",
)
@click.option(
    "--commit-message",
    metavar="TEMPLATE",
    help="With {step}, {loss:.4f}, {batch}, {epoch}, {accuracy}.",
)
@JSON_OPTION
@click.pass_context
def train(
    ctx: click.Context,
    /,
    round_id: int,
    epochs: int | None,
    max_batches: int | None,
    as_json: bool,
    **commits: Any,
) -> None:
    """Train and submit one joined round; waits for its training phase.

    With --store and --auto-commit the training's state becomes a version of that chain; what isn't
    given is as in the settings. A commit that fails doesn't stop the training.
    """
    args = {"epochs": epochs, "max_batches": max_batches, "commits": _commits(commits)}
    _act(ctx, "train", round_id, args, as_json)


def _commits(options: dict[str, Any]) -> dict[str, Any] | None:
    """What the round commits, for options that were given: None if there is none, empty if
    nothing shall be committed.

    Raises:
        SettingsError: they don't go together.
    """
    from decloud_trainer.plans import commits_of

    given = {name: value for name, value in options.items() if value is not None}
    if not given:
        return None
    settings = settings_file.load().settings
    if given.get("auto_commit") is False:  # then the settings' interval doesn't count, either
        settings = dataclasses.replace(settings, commit_interval=0)
    settings = dataclasses.replace(settings, **given)
    found = commits_of(settings)
    if found is None and ("store" in given or "commit_message" in given):
        raise SettingsError(
            "--store and --commit-message have no meaning without --auto-commit",
            hint="add --auto-commit",
        )
    return found or {}


@click.command(
    epilog="\b\nExamples:\n  decloud-trainer claim 42\n  decloud-trainer claim --all"
    "\n\nExit code 1 if something could not be claimed."
)
@click.argument(
    "round_id",
    type=click.IntRange(0, 2**64 - 1),
    required=False,
    shell_complete=completing.round_ids,
)
@click.option("--all", "all_of_them", is_flag=True, help="Every reward that waits for the wallet.")
@JSON_OPTION
@click.pass_context
def claim(ctx: click.Context, round_id: int | None, all_of_them: bool, as_json: bool) -> None:
    """Claim the reward of one completed round, or all that wait.

    --all finds them from the chain alone: rewards of other machines and of years ago, too. One
    that can't be paid yet holds up none of the others.
    """
    if (round_id is None) is not all_of_them:
        raise click.UsageError("name a round, or --all")
    if round_id is not None:
        _act(ctx, "claim", round_id, {}, as_json)
        return
    waiting = asyncio.run(_claimable(ctx))
    if not waiting and not as_json:
        click.echo("no reward waits to be claimed")
    failed = []
    for number in waiting:
        try:
            _act(ctx, "claim", number, {}, as_json)
        except DecloudError as error:
            click.echo(f"round {number}: {error.message}", err=True)
            failed.append(str(number))
    if failed:
        raise RoundError(
            f"not claimed: rounds {', '.join(failed)}", hint="a running daemon keeps trying"
        )


async def _claimable(ctx: click.Context) -> list[int]:
    """Rounds in which the chain shows an unclaimed share of the wallet's."""
    from decloud_trainer.rounds.model import RoundStatus
    from decloud_trainer.services import known_wallet
    from decloud_trainer.wiring import open_chain

    settings = settings_file.load().settings
    wallet = known_wallet(settings, ctx.obj["keypair"])
    async with open_chain(settings, wallet.pubkey) as (chain, _):
        shares = [
            submission.round_id
            for submission in await chain.submissions()
            if submission.contribution_bps and not submission.reward_claimed
        ]
        found = await chain.rounds(shares)
    return [round.id for round in found if round.status is RoundStatus.COMPLETED]


NEXT = {"join": "train", "train": "claim"}


def _arrived(kind: str, before: Entry | None) -> Callable[[Entry], bool]:
    """Whether a row is where the command wanted it, or can't get there now.

    Args:
        before: the row as the command found it, whose refusals are none of its own.
    """
    from decloud_trainer.rounds.rewards import CLAIM_REFUSED

    ends = {
        "join": {"joined", "trained", "pinned", "submitted", "claimable", "skipped"},
        "train": {"submitted", "claimable"},
        "claim": set[str](),
    }[kind]
    return lambda entry: (
        entry.state.value in ends
        or entry.state.is_final
        or (
            kind == "claim"
            and entry.reason.startswith(CLAIM_REFUSED)
            and entry.updated_at != (before.updated_at if before else None)
        )
    )


def _act(ctx: click.Context, kind: str, round_id: int, args: dict[str, Any], as_json: bool) -> None:
    from decloud_trainer.wiring import home_is_held

    settings = settings_file.load().settings
    if home_is_held():
        entry = _through_daemon(settings, ctx, kind, round_id, args, as_json)
    else:
        entry = asyncio.run(_by_ourselves(settings, ctx, kind, round_id, args, as_json))
    if kind == "claim" and entry.state.value == "claimable":
        raise RoundError(
            f"the reward of round {round_id} isn't claimed: {entry.reason}",
            hint="a running daemon keeps trying; otherwise claim again later",
        )
    # A round that was joined is no failure of `join`, whatever came of it since.
    if entry.state.value in ({"skipped"} if kind == "join" else {"skipped", "failed", "lost"}):
        raise RoundError(f"round {round_id} is {entry.state.value}: {entry.reason}")
    if as_json:
        print_json({"round": round_id, "state": entry.state.value, "reason": entry.reason})
    elif kind in NEXT:
        click.echo(f"next: decloud-trainer {NEXT[kind]} {round_id}")


async def _by_ourselves(
    settings: Settings,
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
        return await run_until(trainer.engine, entry, _arrived(kind, entry))


def _through_daemon(
    settings: Settings,
    ctx: click.Context,
    kind: str,
    round_id: int,
    args: dict[str, Any],
    as_json: bool,
) -> Entry:
    """With a daemon running: leave a request in the journal and follow the round there."""
    from decloud_trainer.rounds.asking import ask, withdraw
    from decloud_trainer.rounds.journal import Journal
    from decloud_trainer.wiring import journal_path, scope_of

    key = asyncio.run(scope_of(settings, ctx.obj["keypair"])).key(round_id)
    with contextlib.closing(Journal(journal_path())) as journal:
        arrived = _arrived(kind, journal.entry(key))
        number = ask(journal, kind, key, args)
        if not as_json:
            click.echo(f"a daemon is running: it was asked to {kind} round {round_id}", err=True)
        try:
            return _follow(journal, number, key, kind, arrived, as_json)
        finally:
            withdraw(journal, number)  # nothing, unless nobody has taken it yet


def _follow(
    journal: Journal,
    number: int,
    key: RowKey,
    kind: str,
    arrived: Callable[[Entry], bool],
    as_json: bool,
) -> Entry:
    """Show what the daemon does for a request, until the round is where it was wanted."""
    from decloud_trainer.cli.live import REASON_COLUMN
    from decloud_trainer.rounds.asking import answer_of
    from decloud_trainer.wiring import home_is_held

    round_id = key.round_id
    told = ""
    while True:
        state, answer = answer_of(journal, number)
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
