"""``metrics`` and ``notify``: see from here what Prometheus sees, and whether alarms arrive."""

from __future__ import annotations

import asyncio
import time
from importlib import resources
from typing import TYPE_CHECKING

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli.output import JSON_OPTION, folded, print_json
from decloud_trainer.errors import DecloudError, SettingsError

if TYPE_CHECKING:
    from decloud_trainer.watching.notices import Channel, Notice

ANSWER_S = 10.0
MAX_BYTES = 8 * 1024**2


@click.command(
    epilog="\b\nExamples:\n  decloud-trainer metrics\n  decloud-trainer metrics --health\n"
    "  decloud-trainer metrics --dashboard > grafana.json"
    "\n\nExit codes: 0 shown, 1 no daemon answers, or with --health it isn't healthy; 2 when\n"
    "metrics_port isn't set."
)
@click.option("--health", "is_health", is_flag=True, help="Whether the daemon is healthy, as JSON.")
@click.option("--dashboard", is_flag=True, help="Print the dashboard for Grafana.")
def metrics(is_health: bool, dashboard: bool) -> None:
    """Show the running daemon's figures as Prometheus reads them.

    They are served on loopback at the port that the setting metrics_port names.
    """
    if dashboard:
        click.echo(dashboard_text(), nl=False)
        return
    port = settings_file.load().settings.metrics_port
    if not port:
        raise SettingsError(
            "metrics_port isn't set, so nothing is served",
            hint="decloud-trainer config --set metrics_port=9464, then start the daemon again",
        )
    status, text = asyncio.run(_asked(port, "/health" if is_health else "/metrics"))
    click.echo(text.rstrip("\n"))
    if status != 200:
        raise click.exceptions.Exit(1)


def dashboard_text() -> str:
    """The Grafana dashboard that comes with the program."""
    place = resources.files("decloud_trainer.data") / "docs" / "grafana.json"
    return place.read_text("utf-8")


async def _sent(found: list[Channel], notice: Notice) -> list[tuple[str, str]]:
    """Name of each channel with what went wrong; empty for nothing."""
    results = []
    for channel in found:
        try:
            await channel.send(notice)
            results.append((channel.name, ""))
        except DecloudError as error:
            hint = f" ({error.hint})" if error.hint else ""
            results.append((channel.name, f"{error.message}{hint}"))
    return results


async def _asked(port: int, path: str) -> tuple[int, str]:
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session,
            session.get(f"http://127.0.0.1:{port}{path}") as answer,
        ):
            raw = await answer.content.read(MAX_BYTES)
            return answer.status, raw.decode(errors="replace")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise DecloudError(
            f"nothing answers at 127.0.0.1:{port} ({type(error).__name__})",
            hint="`decloud-trainer status` says whether a daemon runs; it reads metrics_port at "
            "its start",
        ) from error


@click.command(
    epilog="\b\nExample:\n  decloud-trainer notify"
    "\n\nExit codes: 0 all took it, 1 one of them didn't, 2 none is configured."
)
@JSON_OPTION
def notify(as_json: bool) -> None:
    """Send a test message to the webhook, the command and the desktop that are configured."""
    from decloud_trainer.cli.watched import channels
    from decloud_trainer.watching.notices import Notice

    settings = settings_file.load().settings
    found = channels(settings)
    if not found:
        raise SettingsError(
            "nobody is to be told of alarms",
            hint="set notify_webhook, notify_command or notify_desktop: "
            "decloud-trainer config --set notify_desktop=true",
        )
    text = "This is a test: alarms of your trainer come this way."
    notice = Notice("test", "", text, "", settings.network, time.time())
    results = asyncio.run(_sent(found, notice))
    if as_json:
        print_json([{"to": name, "error": error} for name, error in results])
    else:
        for name, error in results:
            click.echo(folded(f"{name}: ", error or "took it"))
    if any(error for _, error in results):
        raise click.exceptions.Exit(1)
