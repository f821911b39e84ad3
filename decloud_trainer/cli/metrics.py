"""``metrics``: see from here what Prometheus sees."""

from __future__ import annotations

import asyncio
from importlib import resources

import click

from decloud_trainer import config as settings_file
from decloud_trainer.errors import DecloudError, SettingsError

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
