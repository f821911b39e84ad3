"""``pause``, ``resume``, ``finish``, ``stop``: reach a running daemon from another terminal."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import click

from decloud_trainer.cli.amounts import span_s
from decloud_trainer.cli.output import span_text
from decloud_trainer.errors import DecloudError

if TYPE_CHECKING:
    from decloud_trainer.rounds.gate import Wish

STOP_PATIENCE_S = 60.0
FOR_EVER_S = 100 * 365 * 86_400.0


@click.command(
    epilog="\b\nExamples:\n  decloud-trainer pause\n  decloud-trainer pause 2h"
    "\n\nWithout a running daemon it holds for the next one."
)
@click.argument("span", required=False)
def pause(span: str | None) -> None:
    """Take no new rounds, for ever or for a span; rounds in work go on."""
    from decloud_trainer.rounds.marks import PAUSED_UNTIL

    seconds = span_s(span) if span else FOR_EVER_S
    _leave(PAUSED_UNTIL, time.time() + seconds)
    for_long = f" for {span_text(seconds)}" if span else ""
    click.echo(f"paused{for_long}: no new rounds are taken; `decloud-trainer resume` goes on")


@click.command(epilog="\b\nExample:\n  decloud-trainer resume")
def resume() -> None:
    """Take new rounds again."""
    from decloud_trainer.rounds.marks import PAUSED_UNTIL

    _leave(PAUSED_UNTIL, None)
    click.echo("new rounds are taken again")


@click.command(
    epilog="\b\nExample:\n  decloud-trainer finish\n\nExit code 1 when no daemon is running."
)
def finish() -> None:
    """Have the daemon complete what is in work, take nothing new, and end."""
    from decloud_trainer.rounds.gate import Wish

    _ask(Wish.FINISH)
    click.echo("the daemon takes nothing new and ends when its rounds are over")


@click.command(
    epilog="\b\nExample:\n  decloud-trainer stop\n\nExit code 1 when no daemon is running."
)
def stop() -> None:
    """End the daemon now; its rounds go on where they are at the next start."""
    from decloud_trainer.rounds.gate import Wish
    from decloud_trainer.wiring import home_is_held

    _ask(Wish.STOP)
    end = time.monotonic() + STOP_PATIENCE_S
    while home_is_held():
        if time.monotonic() > end:
            raise DecloudError(
                f"the daemon has not ended after {STOP_PATIENCE_S:.0f} s",
                hint="its log says what it does; SIGTERM and SIGKILL are safe as well",
            )
        time.sleep(0.2)
    click.echo("the daemon has ended")


def _ask(wish: Wish) -> None:
    from decloud_trainer.rounds.marks import WISH
    from decloud_trainer.wiring import home_is_held

    if not home_is_held():
        raise DecloudError("no daemon is running", hint="start one: decloud-trainer start")
    _leave(WISH, wish.value)


def _leave(mark: str, value: float | str | None) -> None:
    """Leave a mark in the journal, where a running daemon looks again and again."""
    from decloud_trainer.rounds.journal import Journal
    from decloud_trainer.rounds.marks import set_mark
    from decloud_trainer.wiring import journal_path

    with contextlib.closing(Journal(journal_path())) as journal:
        set_mark(journal, mark, value)
