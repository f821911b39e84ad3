"""How ``config`` shows settings and presets."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer import presets
from decloud_trainer.cli.output import folded, print_json, print_table
from decloud_trainer.errors import SettingsError
from decloud_trainer.money import format_sol
from decloud_trainer.settings import Settings


def show(as_json: bool, keypair: str | None) -> None:
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
    click.echo("\n" + folded("File:   ", str(loaded.path)))
    click.echo(folded("Wallet: ", wallet["wallet"] or wallet["wallet_problem"]))
    if wallet["wallet"]:
        click.echo(folded("        from ", wallet["wallet_source"], indent=8))
    for key in loaded.unknown:
        text = f"{key!r} in the file is not a setting of this version; it is kept"
        click.echo(folded("note: ", text))


def get(wanted: str, as_json: bool) -> None:
    """One value, as ``--set`` takes it; a secret is only said to be set."""
    loaded = settings_file.load()
    key = settings_file.row_of(wanted).setting.key
    value = settings_file.shown_values(loaded)[key]
    if as_json:
        print_json({"key": key, "value": value, "source": loaded.sources[key]})
    else:
        click.echo(shown_text(value, nothing=""))


def shown_text(value: Any, *, nothing: str = "-") -> str:
    """A setting's value for people: ``0.01``, ``5``, ``true``, ``mnist,emnist``,
    ``custom:digits``."""
    if isinstance(value, dict):
        value = [f"{name}:{target}" for name, target in value.items()]
    if isinstance(value, list):
        value = ",".join(value)
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    return (value if isinstance(value, str) else json.dumps(value)) or nothing


def _wallet(settings: Settings, keypair: str | None) -> dict[str, str]:
    from decloud_trainer.errors import WalletError
    from decloud_trainer.services import known_wallet

    try:
        wallet = known_wallet(settings, keypair)
    except WalletError as error:
        return {"wallet": "", "wallet_source": "", "wallet_problem": error.message}
    return {"wallet": wallet.pubkey, "wallet_source": wallet.source, "wallet_problem": ""}


def list_presets(as_json: bool) -> None:
    """Every preset with what it would have this machine do, given the other settings."""
    views = [_preset_view(name) for name in presets.names()]
    if as_json:
        print_json(views)
        return
    for view in views:
        marks = ", ".join(word for word in ("own", "applied") if view[word])
        click.echo(view["name"] + (f" ({marks})" if marks else ""))
        if view["problem"]:
            click.echo(folded("    ", view["problem"]))
            continue
        click.echo(folded("    ", view["description"]))
        click.echo(folded("    trains here: ", _data_text(view["trains"]) or "nothing"))
        if view["skips"]:
            click.echo(folded("    skips:       ", f"{', '.join(view['skips'])} (no data here)"))
        click.echo(folded("    rounds:      ", view["terms"]))
    click.echo("\nApply one: decloud-trainer config --preset NAME")


def _data_text(trains: dict[str, str]) -> str:
    return ", ".join(f"{name} ({how})" if how != "ready" else name for name, how in trains.items())


def _preset_view(name: str) -> dict[str, Any]:
    own = name in presets.own_names()
    applied = settings_file.load().settings.preset == name
    view: dict[str, Any] = {"name": name, "own": own, "applied": applied, "problem": ""}
    try:
        preset = presets.load(name)
        settings = settings_file.load(preset=(name, preset.values)).settings
    except SettingsError as error:
        return view | {"problem": error.message}
    trains, skips = _outlook(settings)
    return view | {
        "description": preset.description,
        "settings": preset.values,
        "trains": trains,
        "skips": skips,
        "terms": _terms(settings),
    }


def _outlook(settings: Settings) -> tuple[dict[str, str], list[str]]:
    """What would be trained, dataset -> ``ready``, ``is downloaded when needed`` or ``on X``; and
    what would be skipped."""
    from decloud_trainer.checks.data import local_data
    from decloud_trainer.plans import data_specs

    trains: dict[str, str] = {}
    skips = []
    for name in settings.datasets or [*data_specs(settings), *settings.dataset_mappings]:
        local = local_data(settings, name)
        if not local.is_trainable:
            skips.append(name)
        elif local.trained_on != local.key:
            trains[name] = f"on {local.trained_on}"
        else:
            trains[name] = "ready" if local.is_ready else "is downloaded when needed"
    return trains, skips


def _terms(settings: Settings) -> str:
    least, most = settings.min_reward_lamports, settings.max_reward_lamports
    reward = f"from {format_sol(least)}" if least else "any reward"
    reward += f" up to {format_sol(most)}" if most else ""
    batches = f", at most {settings.max_batches} batches each" if settings.max_batches else ""
    epochs = "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"
    return f"{reward}; {epochs}{batches}, batches of {settings.batch_size}"
