"""``demo``: the whole thing, shown."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer.cli.output import (
    JSON_OPTION,
    accuracy_text,
    console,
    folded,
    print_json,
    print_pairs,
    shows_signs,
    sign,
    state_text,
)
from decloud_trainer.errors import DecloudError
from decloud_trainer.money import format_sol, lamports_from_sol

if TYPE_CHECKING:
    from decloud_trainer.cli.demo_round import Summary

# An equal share of four is then still more than a trainer's rent and fees.
LEAST_REWARD_LAMPORTS = 10_000_000

EPILOG = """\b
Examples:
  decloud-trainer demo
  decloud-trainer demo --competitors good,lazy,hostile
  decloud-trainer demo --json

\b
Exit code 0 only if the reward arrived on chain and the trainer's preview of
its own score equals the validator's number to 0.01 points.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--competitors", default="good", show_default=True, help="Some of good, lazy, hostile."
)
@click.option("--reward", default="0.1", show_default=True, metavar="SOL", help="Of the round.")
@click.option("--slot-ms", default=200, show_default=True, help="Length of the ledger's slots.")
@JSON_OPTION
def demo(competitors: str, reward: str, slot_ms: int, as_json: bool) -> None:
    """Watch a whole round earn its reward on a local network.

    Everything is real but small: a Solana ledger with the on-chain program, IPFS content, a
    creator, a validator, a competitor, and the daemon that you would run. No real money, no
    network access, nothing left behind.
    """
    import asyncio

    from decloud_trainer.cli.demo_round import run_demo

    names = tuple(name.strip() for name in competitors.split(",") if name.strip())
    if not names:
        raise click.UsageError("a demo needs at least one competitor")
    try:
        lamports = lamports_from_sol(reward)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--reward") from error
    if lamports < LEAST_REWARD_LAMPORTS:
        least = format_sol(LEAST_REWARD_LAMPORTS)
        raise click.BadParameter(f"taking part pays only from {least} on", param_hint="--reward")
    show = _Quiet() if as_json else _Timeline()
    with show:
        summary = asyncio.run(run_demo(names, lamports, slot_ms, show.hear))
    if as_json:
        print_json(summary.to_json())
    else:
        _print(summary)
    if summary.problems:
        raise DecloudError(f"the demo failed: {'; '.join(summary.problems)}")


class _Quiet:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def hear(self, who: str, event: Mapping[str, Any]) -> None:
        pass


class _Timeline:
    """Events as they come, with the seconds since the start; a status line that moves."""

    def __init__(self) -> None:
        self._console = console()
        self._status = self._console.status(
            "starting a local network ...", spinner="dots" if shows_signs() else "line"
        )
        self._began = time.monotonic()

    def __enter__(self) -> None:
        self._status.start()

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def hear(self, who: str, event: Mapping[str, Any]) -> None:
        from rich.markup import escape
        from rich.text import Text

        if event["event"] == "progress":
            from decloud_trainer.cli.live import progress_text

            self._status.update(escape(f"training: {progress_text(event)}"))
            return
        text = _told(who, event)
        if text is None:
            return
        seconds = f"{time.monotonic() - self._began:5.1f} s  "
        style = "bold" if who == "trainer" else "dim"
        line = folded(f"{seconds}{who:<10} ", text)
        self._console.print(Text(line, style=style), soft_wrap=True)
        if who == "trainer":
            self._status.update(escape(text[:60]))


def _told(who: str, event: Mapping[str, Any]) -> str | None:
    """An event in words; None for those that tell a newcomer nothing."""
    name = event["event"]
    if who == "trainer":
        if name == "started":
            return f"daemon started with wallet {event['wallet'][:8]}..., {event['generation']}"
        if name == "round" and event["moved"]:
            return f"round #{event['round']} {state_text(event['state'], event['reason'])}"
        return None
    if who == "network":
        if name == "funded":
            return f"a new wallet has {format_sol(event['lamports'])} of play money"
        return f"ledger at {event['rpc_url']}, IPFS at {event['gateway']}"
    about = f"round #{event['round_id']} " if "round_id" in event else ""
    named = f" ({event['competitor']})" if "competitor" in event else ""
    if name == "scored":
        scores = "; ".join(
            f"{score['trainer'][:8]}... {accuracy_text(score['after'])}, "
            f"gets {score['bps'] / 100:.2f} % of the pool"
            for score in event["scores"]
        )
        before = accuracy_text(event["baseline"])
        return f"{about}scored on held-out data: {before} before; {scores}"
    return f"{about}{name}{named}"


def _print(summary: Summary) -> None:
    click.echo()
    click.echo(
        f"{sign('💰')}The reward is in the wallet." if summary.reward_claimed else "No reward."
    )
    print_pairs(
        {
            "Round": f"#{summary.round_id}, {summary.dataset}, {summary.trainers} trainers",
            "Accuracy": (
                f"{summary.accuracy_before:.2f} % -> {summary.accuracy_after:.2f} % "
                "(the validator's numbers)"
            ),
            "Previewed": f"{summary.preview_accuracy:.2f} %",
            "Share": f"{summary.contribution_bps / 100:.2f} % of the trainers' pool",
            "Gradients": summary.gradient_cid,
            "Joined by": summary.join_signature,
            "Submitted by": summary.submit_signature,
            "Claimed by": summary.claim_signature,
            "Reward": format_sol(summary.reward_lamports),
            "Costs": (
                f"{format_sol(summary.fees_lamports)} fees, "
                f"{format_sol(summary.rent_lamports)} rent"
            ),
            "Net": format_sol(summary.net_lamports),
            "Time": f"{summary.seconds} s",
        }
    )
