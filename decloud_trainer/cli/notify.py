"""``notify``: see whether alarms arrive."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli.output import JSON_OPTION, folded, print_json
from decloud_trainer.errors import DecloudError, SettingsError

if TYPE_CHECKING:
    from decloud_trainer.watching.notices import Channel, Notice


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
