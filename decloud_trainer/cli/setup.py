"""``setup``: the wizard. Every question is also an option."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer import presets
from decloud_trainer.cli import completing
from decloud_trainer.cli.output import folded
from decloud_trainer.cli.setup_questions import (
    AUTO,
    NONE,
    WALLETS,
    Answers,
    ask_all,
    fitting_preset,
)
from decloud_trainer.cli.setup_report import report
from decloud_trainer.errors import SettingsError, WalletError
from decloud_trainer.files import absolute, home_dir, make_private_dir, new_wallet_path
from decloud_trainer.settings import NETWORKS, Settings

EPILOG = """\b
Examples:
  decloud-trainer setup
  decloud-trainer setup --non-interactive --network localnet --wallet create
  decloud-trainer setup --non-interactive --dataset mnist --min-reward 0.01 \\
      --keypair-path ~/.config/solana/id.json
  decloud-trainer setup --preset auto

\b
With --secrets-stdin, keys are read from standard input as one JSON object,
never from the command line: {"private_key": "...", "pinata_jwt": "..."}.
"""

SECRETS = (
    "private_key",
    "pinata_jwt",
    "pinata_api_key",
    "pinata_secret_key",
    "kubo_token",
    "pinning_api_token",
)


@click.command(epilog=EPILOG)
@click.option("--network", type=click.Choice(NETWORKS), help="Solana cluster.")
@click.option(
    "--wallet",
    type=click.Choice(WALLETS),
    help="cli: a Solana CLI keypair file; create: a new one; key: import; keep: as it is.",
)
@click.option("--keypair-path", type=click.Path(), help="The keypair file for --wallet cli.")
@click.option(
    "--preset",
    metavar="NAME",
    shell_complete=completing.preset_names,
    help="A preset; auto: by the measured speed and the free disk; none.",
)
@click.option(
    "--dataset",
    metavar="LIST",
    shell_complete=completing.dataset_lists,
    help="Datasets to accept; empty: any trainable.",
)
@click.option("--min-reward", metavar="SOL", help="Least reward.")
@click.option("--max-reward", metavar="SOL", help="Greatest reward; 0: unlimited.")
@click.option("--epochs", metavar="N", help="Training epochs per round.")
@click.option("--max-parallel", metavar="N", help="Rounds worked on at once.")
@click.option("--secrets-stdin", is_flag=True, help="Read keys as JSON from standard input.")
@click.option("--non-interactive", is_flag=True, help="Ask nothing: options and present values.")
@click.pass_context
def setup(
    ctx: click.Context,
    /,
    network: str | None,
    wallet: str | None,
    keypair_path: str | None,
    preset: str | None,
    dataset: str | None,
    min_reward: str | None,
    max_reward: str | None,
    epochs: str | None,
    max_parallel: str | None,
    secrets_stdin: bool,
    non_interactive: bool,
) -> None:
    """Answer a few questions; everything is then ready for `start`.

    Present values are the defaults. Nothing is written before the last answer, so Ctrl-C leaves
    everything as it was.
    """
    keypair_path = keypair_path or ctx.obj["keypair"]  # of all commands, this one stores it
    given = {
        "network": network,
        "keypair_path": keypair_path if keypair_path is None else absolute(keypair_path),
        "datasets": dataset,
        "min_reward": min_reward,
        "max_reward": max_reward,
        "epochs": epochs,
        "max_concurrent_rounds": max_parallel,
    }
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    for key, value in values.items():
        settings_file.parse(key, value, f"--{key.replace('_', '-')}")
    if keypair_path is not None and wallet not in (None, "cli"):
        raise click.UsageError(f"--keypair-path is for --wallet cli, not --wallet {wallet}")
    if preset not in (None, AUTO, NONE):
        presets.load(preset)
    answers = Answers(values, "cli" if keypair_path is not None else wallet, preset)
    if secrets_stdin:
        values |= _secrets_from_stdin()
        non_interactive = True
    before = settings_file.load()
    if not non_interactive:
        ask_all(answers, before.settings)
    elif preset == AUTO:
        answers.preset = fitting_preset(answers, before.settings, is_measured=True)
    changes = _changes(answers, before.settings)
    _write(answers, changes, before.settings)
    report(before)


def _secrets_from_stdin() -> dict[str, str]:
    try:
        values = json.loads(sys.stdin.read(65_536))
    except (ValueError, RecursionError):
        values = None  # the parser's message could repeat a key
    if not isinstance(values, dict) or not set(values) <= set(SECRETS):
        raise SettingsError(
            "standard input must be a JSON object with the keys to set",
            hint=f"keys: {', '.join(SECRETS)}",
        )
    if not all(isinstance(value, str) for value in values.values()):
        raise SettingsError(
            "each key on standard input must be text in quotes",
            hint='a list of numbers, too: {"private_key": "[1,2,...]"}',
        )
    return values


def _changes(answers: Answers, now: Settings) -> dict[str, Any]:
    """Key -> value of all that is to be written besides the wallet; checked as a whole.

    Raises:
        SettingsError: the values don't fit each other, or there is no such wallet.
    """
    from decloud_trainer.chain.wallet import load_wallet, read_key_file

    changes: dict[str, Any] = {}
    if answers.preset == NONE:
        changes["preset"] = ""
    elif answers.preset is not None:
        changes |= {**presets.load(answers.preset).values, "preset": answers.preset}
    changes |= answers.settings
    if changes.get("private_key"):
        # Checked before it is stored; the message never repeats it.
        load_wallet(environ={}, private_key=changes["private_key"])
    elif answers.wallet == "key" and not answers.key:
        raise SettingsError(
            "--wallet key needs the key", hint="give it on standard input with --secrets-stdin"
        )
    if answers.wallet == "cli":
        read_key_file(Path(changes.get("keypair_path", now.keypair_path)))
        changes["private_key"] = ""  # it would win over the file
    if changes.get("network", now.network) == "localnet" and "custom" not in now.dataset_mappings:
        # The local network's own rounds are about the digits that ship with this program.
        mappings = changes.get("dataset_mappings") or {}
        changes["dataset_mappings"] = {"custom": "digits", **mappings}
    settings_file.load(options=changes)
    return changes


def _write(answers: Answers, changes: dict[str, Any], now: Settings) -> None:
    """Keys first, then the configuration that names them."""
    passphrase = answers.passphrase
    if passphrase is None and (answers.wallet == "create" or changes.get("private_key") == ""):
        passphrase = _given_passphrase(now)
    if answers.wallet == "create":
        changes |= {"keypair_path": str(_created(passphrase or "")), "private_key": ""}
    elif answers.key:
        path = _imported(answers.key, passphrase or "")
        changes |= {"keypair_path": str(path), "private_key": ""}
    if "private_key" in changes:
        _keep_old_key(changes["private_key"], passphrase or "")
    former = Path(now.keypair_path).expanduser()
    place = Path(changes.get("keypair_path", former)).expanduser()
    if place != former and former.exists():
        click.echo(folded("\nthe wallet before was ", f"{former}; that file stays", indent=2))
    settings_file.update(changes)


def _given_passphrase(now: Settings) -> str:
    """The one that a source has; nobody is asked."""
    from decloud_trainer.chain.passphrases import find_passphrase

    found = find_passphrase(os.environ, now.passphrase_file)
    return "" if found is None else found.text


def _created(passphrase: str) -> Path:
    from decloud_trainer.chain.wallet import create_keypair_file

    make_private_dir(home_dir())
    path = new_wallet_path()
    if path.exists():
        click.echo(folded("\nthe wallet that is already there is kept: ", str(path), indent=2))
    else:
        create_keypair_file(path, passphrase)
        kind = "encrypted" if passphrase else "not encrypted"
        click.echo(folded(f"\na new wallet, {kind}: ", str(path), indent=2))
        text = "Back this file up: it is the only key to what the wallet will hold."
        click.echo(folded("  ", text))
    return path


def _imported(key: str, passphrase: str) -> Path:
    """The keypair file of a key, a new one unless it is in its place already."""
    from decloud_trainer.chain.wallet import import_keypair_file, load_wallet, read_key_file

    make_private_dir(home_dir())
    path, pubkey = new_wallet_path(), load_wallet(environ={}, private_key=key).pubkey
    if path.exists() and read_key_file(path).pubkey != pubkey:
        path = path.with_name(f"wallet-{pubkey[:8]}.json")
    import_keypair_file(path, key, passphrase)
    click.echo(folded("\nthe key is stored in ", str(path), indent=2))
    return path


def _keep_old_key(new: str, passphrase: str) -> None:
    """A key that the configuration is about to lose may hold money: it gets a file first."""
    from decloud_trainer.chain.wallet import import_keypair_file, load_wallet

    old = str(settings_file.read_file(settings_file.config_path()).get("private_key") or "")
    if not old or old == new:
        return
    try:
        pubkey = load_wallet(environ={}, private_key=old).pubkey
    except WalletError:
        return  # what isn't a key holds nothing
    path = make_private_dir(home_dir()) / f"wallet-{pubkey[:8]}.json"
    import_keypair_file(path, old, passphrase)
    text = f"{pubkey} leaves the configuration; it is kept in {path}"
    click.echo(folded("\nthe key of ", text, indent=2))
