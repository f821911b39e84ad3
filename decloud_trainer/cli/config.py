"""``config``: show and change settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer import presets
from decloud_trainer.cli.output import JSON_OPTION, print_json, print_table
from decloud_trainer.errors import SettingsError
from decloud_trainer.names import dataset_key

EPILOG = """\b
Examples:
  decloud-trainer config --show
  decloud-trainer config --set min_reward=0.01
  decloud-trainer config --set datasets=cifar10,mnist
  decloud-trainer config --preset image-small
  decloud-trainer config --add-mapping custom:digits
"""


@click.command(epilog=EPILOG)
@click.option("--show", is_flag=True, help="Show every setting and where its value comes from.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option("--preset", metavar="NAME|list", help="Apply a preset, or list them.")
@click.option("--add-mapping", multiple=True, metavar="FROM:TO", help="Train on TO for FROM.")
@click.option("--add-path", multiple=True, metavar="NAME:PATH", help="Where a dataset lies.")
@click.option("--reset", is_flag=True, help="Back to the defaults; keeps a backup.")
@click.option("--yes", is_flag=True, help="Don't ask before a reset.")
@JSON_OPTION
@click.pass_context
def config(
    ctx: click.Context,
    show: bool,
    assignments: tuple[str, ...],
    preset: str | None,
    add_mapping: tuple[str, ...],
    add_path: tuple[str, ...],
    reset: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Show and change settings (~/.decloud-trainer/config.json)."""
    if not any((show, assignments, preset, add_mapping, add_path, reset)):
        click.echo(ctx.get_help())
        return
    if preset == "list":
        _list_presets(as_json)
        return
    if reset:
        _reset(yes)
    changes = _changes(assignments, preset, add_mapping, add_path)
    if changes:
        _check(changes)
        settings_file.update(changes)
        if not as_json:
            click.echo(f"saved {', '.join(changes)} in {settings_file.config_path()}")
    if show:
        _show(as_json, ctx.obj["keypair"])


def _changes(
    assignments: tuple[str, ...],
    preset: str | None,
    mappings: tuple[str, ...],
    paths: tuple[str, ...],
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if preset is not None:
        chosen = presets.load(preset)
        changes |= {**chosen.values, "preset": chosen.name}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise SettingsError(
                f"--set takes KEY=VALUE, not {key!r}",
                hint="for example --set epochs=3",
            )
        setting = settings_file.row_of(key).setting
        changes[setting.key] = _value_of(key, value)
        settings_file.parse(setting.key, changes[setting.key], "--set")
    if mappings:
        changes["dataset_mappings"] = dict(_pair(text, "--add-mapping") for text in mappings)
    if paths:
        changes["dataset_paths"] = dict(_checked_path(text) for text in paths)
    return changes


def _check(changes: dict[str, Any]) -> None:
    """Look at what a key and a path lead to, before anything is written."""
    if changes.get("private_key"):
        from decloud_trainer.chain.wallet import load_wallet

        load_wallet(environ={}, private_key=changes["private_key"])
    path = changes.get("keypair_path")
    if path and not Path(path).expanduser().exists():
        click.echo(f"note: there is no file {path}", err=True)


def _value_of(key: str, value: str) -> str:
    secret = settings_file.row_of(key).setting.secret
    if secret and value == "-":
        if sys.stdin.isatty():
            return str(click.prompt(key, hide_input=True))
        return sys.stdin.readline().strip()
    if secret and value:
        click.echo(
            f"note: this command line, {key} included, is now in your shell's history; "
            f"`--set {key}=-` asks for it instead",
            err=True,
        )
    return value


def _pair(text: str, option: str) -> tuple[str, str]:
    name, colon, target = text.partition(":")
    if not (name.strip() and colon and target.strip()):
        raise SettingsError(f"{option} takes FROM:TO, not {text!r}")
    return dataset_key(name), target.strip()


def _checked_path(text: str) -> tuple[str, str]:
    from decloud_trainer.wiring import describe_data_folder

    name, path = _pair(text, "--add-path")
    click.echo(f"{name}: {describe_data_folder(path)}", err=True)
    return name, path


def _reset(yes: bool) -> None:
    path = settings_file.config_path()
    if not path.exists():
        click.echo("nothing to reset: the settings are the defaults")
        return
    if not yes:
        click.confirm(f"Put all settings of {path} back to their defaults?", abort=True)
    click.echo(f"reset; the old settings are in {settings_file.reset()}")


def _list_presets(as_json: bool) -> None:
    chosen = [presets.load(name) for name in presets.names()]
    if as_json:
        print_json(
            [{"name": p.name, "description": p.description, "settings": p.values} for p in chosen]
        )
        return
    rows = [
        [p.name, p.description, ", ".join(p.values.get("datasets", [])) or "any"] for p in chosen
    ]
    print_table(["Preset", "Description", "Datasets"], rows)


def _show(as_json: bool, keypair: str | None) -> None:
    loaded = settings_file.load()
    values = settings_file.shown_values(loaded)
    wallet = _wallet(loaded.settings, keypair)
    if as_json:
        print_json(
            {"path": str(loaded.path), "settings": values, "sources": loaded.sources} | wallet
        )
        return
    rows = [[key, shown_text(value), loaded.sources[key]] for key, value in values.items()]
    print_table(["Setting", "Value", "From"], rows)
    click.echo(f"\nFile:   {loaded.path}")
    click.echo(f"Wallet: {wallet['wallet'] or wallet['wallet_problem']}")
    if wallet["wallet"]:
        click.echo(f"        from {wallet['wallet_source']}")
    for key in loaded.unknown:
        click.echo(f"note: {key!r} in the file is not a setting of this version; it is kept")


def shown_text(value: Any) -> str:
    """A setting's value for people: ``0.01``, ``5``, ``true``, ``mnist,emnist``, ``custom:digits``;
    ``-`` for nothing."""
    if isinstance(value, dict):
        value = [f"{name}:{target}" for name, target in value.items()]
    if isinstance(value, list):
        value = ",".join(value)
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return (value if isinstance(value, str) else json.dumps(value)) or "-"


def _wallet(settings: settings_file.Settings, keypair: str | None) -> dict[str, str]:
    from decloud_trainer.errors import WalletError
    from decloud_trainer.wiring import wallet_of

    try:
        wallet = wallet_of(settings, keypair)
    except WalletError as error:
        return {"wallet": "", "wallet_source": "", "wallet_problem": error.message}
    return {"wallet": wallet.pubkey, "wallet_source": wallet.source, "wallet_problem": ""}
