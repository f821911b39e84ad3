"""``service``: the daemon as a background service of the system."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli.output import JSON_OPTION, folded, print_json, print_pairs
from decloud_trainer.errors import AlreadyRunning, DecloudError, SettingsError
from decloud_trainer.files import (
    cache_dir,
    home_dir,
    log_dir,
    make_private_dir,
    wallet_locks_dir,
)
from decloud_trainer.settings import TABLE

if TYPE_CHECKING:
    from decloud_trainer.cli.managers import Manager
    from decloud_trainer.cli.units import Daemon

# They move folders, and hold no secrets.
PASSED_ON = ("DECLOUD_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")


@click.group()
def service() -> None:
    """Run the daemon in the background: after a crash, a restart and a log-out, too.

    On Linux it is a user service of systemd, on macOS an agent of launchd. Neither needs root.
    """


class _Memory(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """An amount of memory as systemd reads it: ``4G``, ``800M``, ``50%``."""

    name = "SIZE"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        if not re.fullmatch(r"[1-9]\d{0,14}[KMGT%]?", value):
            self.fail(f"{value!r} is no amount of memory; write 4G, 800M or 50%", param, ctx)
        return str(value)


INSTALL_EPILOG = """\b
Examples:
  decloud-trainer service install
  decloud-trainer service install --memory-max 6G --nice 15
  decloud-trainer service install --print

\b
The service takes its keys from the configuration; none is written into it,
and it doesn't see the environment of this session.

\b
Exit codes: 0 done, 1 no service manager or a daemon is running already,
2 the configuration isn't ready for it.
"""


@service.command(epilog=INSTALL_EPILOG)
@click.option(
    "--print", "--dry-run", "only_print", is_flag=True, help="Print the file; do nothing."
)
@click.option("--nice", type=click.IntRange(0, 19), default=10, show_default=True, help="Priority.")
@click.option("--memory-max", type=_Memory(), help="Most memory, with the training.")
@click.option("--no-sandbox", is_flag=True, help="For systems without user namespaces (Linux).")
@click.option(
    "--passphrase-credential",
    type=click.Path(),
    help="The file that systemd hands over as the wallet's passphrase (Linux).",
)
@click.option("--no-start", is_flag=True, help="Only write the file.")
def install(
    only_print: bool,
    nice: int,
    memory_max: str | None,
    no_sandbox: bool,
    passphrase_credential: str | None,
    no_start: bool,
) -> None:
    """Install the service and start it.

    From now on it starts by itself with the machine, or with your session.
    """
    from decloud_trainer.wiring import home_is_held

    manager = _manager()
    credential = None
    if passphrase_credential is not None:
        if sys.platform != "linux":
            raise SettingsError("only systemd has credentials", hint="set passphrase_file instead")
        credential = Path(passphrase_credential).expanduser().absolute()
    daemon = _daemon(nice, memory_max or "", credential, sandbox=not no_sandbox)
    if only_print:
        click.echo(manager.text(daemon), nl=False)
        return
    _check_keys(credential)
    manager.check()
    if not no_start and home_is_held() and not _is_running(manager):
        raise AlreadyRunning(
            "a decloud-trainer with this home is running already, outside of the service",
            hint="stop it first (Ctrl-C where it runs)",
        )
    for folder in daemon.folders:
        make_private_dir(folder)
    notes = manager.install(daemon, start=not no_start)
    click.echo(f"installed: {manager.file}")
    for note in notes:
        click.echo(folded("note: ", note))
    if not no_start:
        click.echo("next: decloud-trainer service status")


UNINSTALL_EPILOG = "\b\nExample:\n  decloud-trainer service uninstall"


@service.command(epilog=UNINSTALL_EPILOG)
def uninstall() -> None:
    """Stop the service and remove it.

    Settings, keys and the journal stay. Rounds that are under way go on at the next start, however
    that is done.
    """
    manager = _installed()
    manager.uninstall()
    click.echo(f"removed: {manager.file}")


STATUS_EPILOG = """\b
Examples:
  decloud-trainer service status
  decloud-trainer service status --json

\b
Exit codes: 0 it is running, 1 it is not.
"""


@service.command(epilog=STATUS_EPILOG)
@JSON_OPTION
def status(as_json: bool) -> int:
    """Show whether the service is running, and since when."""
    manager = _installed()
    state = manager.state()
    if as_json:
        print_json({"file": str(manager.file), **state})
    else:
        shown = {name.replace("_", " ").capitalize(): value for name, value in state.items()}
        print_pairs({**shown, "File": str(manager.file), "Log": str(log_dir() / "daemon.log")})
    return 0 if state.get("state") == "running" else 1


LOGS_EPILOG = """\b
Examples:
  decloud-trainer service logs
  decloud-trainer service logs --lines 500
  decloud-trainer service logs --follow
"""


@service.command(epilog=LOGS_EPILOG)
@click.option("-n", "--lines", type=click.IntRange(1), default=50, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
def logs(lines: int, follow: bool) -> int:
    """Show what the service has printed."""
    return _installed().logs(lines, follow=follow)


def _manager() -> Manager:
    from decloud_trainer.cli.managers import manager_of

    return manager_of(sys.platform, log_dir() / "service.log")


def _installed() -> Manager:
    manager = _manager()
    if not manager.file.exists():
        raise DecloudError(
            f"no service is installed ({manager.file} isn't there)",
            hint="decloud-trainer service install",
        )
    return manager


def _is_running(manager: Manager) -> bool:
    return manager.file.exists() and manager.state().get("state") == "running"


def _daemon(nice: int, memory_max: str, credential: Path | None, *, sandbox: bool) -> Daemon:
    from decloud_trainer.chain import passphrases
    from decloud_trainer.cli.units import Daemon

    folders = (home_dir(), cache_dir(), log_dir(), wallet_locks_dir())
    rows = TABLE.values()
    return Daemon(
        # -P: no module is taken from the folder that the service manager starts it in.
        command=(sys.executable, "-P", "-m", "decloud_trainer", "start"),
        folders=tuple(dict.fromkeys(folders)),
        log=log_dir() / "service.log",
        environment={
            name: os.path.abspath(os.environ[name]) for name in PASSED_ON if os.environ.get(name)
        },
        unset=(
            *(name for row in rows if row.setting.secret for name in row.setting.env),
            passphrases.VARIABLE,
        ),
        credentials={} if credential is None else {passphrases.CREDENTIAL: credential},
        nice=nice,
        memory_max=memory_max,
        sandbox=sandbox,
    )


def _check_keys(credential: Path | None) -> None:
    """The service must find every key in the configuration, and a passphrase without asking.

    Raises:
        SettingsError: a key or passphrase is missing or wrong, or a key stands in this session's
            environment alone.
    """
    from decloud_trainer.chain.passphrases import find_passphrase, read_passphrase_file
    from decloud_trainer.chain.wallet import LockedWallet
    from decloud_trainer.services import known_wallet

    loaded = settings_file.load()
    wallet = known_wallet(loaded.settings, None)
    if isinstance(wallet, LockedWallet):
        if credential is not None and not loaded.settings.passphrase_file:
            text = read_passphrase_file(credential)
        else:
            found = find_passphrase({}, loaded.settings.passphrase_file, wallet.pubkey)
            if found is None:
                raise SettingsError(
                    f"{wallet.source} is encrypted, and the service can't ask for its passphrase",
                    hint="add --passphrase-credential FILE, or set passphrase_file",
                )
            text = found.text
        wallet.unlock(text)
    for key, source in loaded.sources.items():
        if TABLE[key].setting.secret and source.startswith("environment"):
            raise SettingsError(
                f"{key} comes from the {source}, which the service doesn't see",
                hint=f"store it, readable by you alone: decloud-trainer config --set {key}=-",
            )
