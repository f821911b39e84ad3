"""``config``: show and change settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer import presets
from decloud_trainer.cli import completing
from decloud_trainer.cli.output import JSON_OPTION, print_json
from decloud_trainer.errors import SettingsError
from decloud_trainer.files import absolute
from decloud_trainer.names import dataset_key

EPILOG = """\b
Examples:
  decloud-trainer config --show
  decloud-trainer config --get min_reward
  decloud-trainer config --set min_reward=0.01
  decloud-trainer config --set datasets=cifar10,mnist --set epochs=2
  decloud-trainer config --set pinata_jwt=-
  decloud-trainer config --unset epochs
  decloud-trainer config --preset list
  decloud-trainer config --preset image-small
  decloud-trainer config --preset save evenings
  decloud-trainer config --add-mapping custom:digits
  decloud-trainer config --remove-mapping custom
  decloud-trainer config --add-path mnist:~/data/mnist
  decloud-trainer config --edit

A secret given as `-` is asked for, or read from standard input. Several options work in one go:
--reset first, then what is taken out, then the preset, then the rest.
"""

# Settings that name a place on this machine.
_PLACES = ("keypair_path", "passphrase_file", "tokenizer_path")


@click.command(epilog=EPILOG)
@click.option("--show", is_flag=True, help="Show every setting and where its value comes from.")
@click.option(
    "--get",
    "wanted",
    metavar="KEY",
    shell_complete=completing.setting_keys,
    help="Print one setting's value.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=completing.assignments,
    help="Change a setting.",
)
@click.option(
    "--unset",
    multiple=True,
    metavar="KEY",
    shell_complete=completing.setting_keys,
    help="Back to a setting's default.",
)
@click.option(
    "--preset",
    metavar="NAME|list|save",
    shell_complete=completing.preset_words,
    help="Copy a preset's values into the settings, list the presets, or save your own.",
)
@click.option(
    "--add-mapping",
    multiple=True,
    metavar="FROM:TO",
    shell_complete=completing.mapping_pairs,
    help="When a round asks for FROM, train on TO.",
)
@click.option(
    "--remove-mapping",
    multiple=True,
    metavar="FROM",
    shell_complete=completing.mapped_names,
    help="Forget a mapping.",
)
@click.option(
    "--add-path", multiple=True, metavar="NAME:PATH", help="The folder that holds a dataset."
)
@click.option(
    "--remove-path",
    multiple=True,
    metavar="NAME",
    shell_complete=completing.path_names,
    help="Forget a dataset's folder.",
)
@click.option("--edit", is_flag=True, help="Open the file in $VISUAL or $EDITOR.")
@click.option("--path", "print_path", is_flag=True, help="Print where the file is.")
@click.option("--reset", is_flag=True, help="Back to the defaults; keeps a backup.")
@click.option("--yes", is_flag=True, help="Don't ask before a reset.")
@click.option(
    "--force",
    is_flag=True,
    help="Take a path or mapping that can't be used now; replace a preset of yours.",
)
@click.argument("name", required=False, metavar="[NAME]")
@JSON_OPTION
@click.pass_context
def config(
    ctx: click.Context,
    show: bool,
    wanted: str | None,
    assignments: tuple[str, ...],
    unset: tuple[str, ...],
    preset: str | None,
    add_mapping: tuple[str, ...],
    remove_mapping: tuple[str, ...],
    add_path: tuple[str, ...],
    remove_path: tuple[str, ...],
    edit: bool,
    print_path: bool,
    reset: bool,
    yes: bool,
    force: bool,
    name: str | None,
    as_json: bool,
) -> None:
    """Show and change settings (~/.decloud-trainer/config.json).

    NAME belongs to --preset save: the name of your own preset.
    """
    from decloud_trainer.cli import config_view

    if (preset == "save") != (name is not None):
        raise click.UsageError(
            "--preset save takes the name of your preset: config --preset save NAME"
            if preset == "save"
            else "the last word belongs to no option"  # not repeated: it may be a secret
        )
    if not any((show, wanted, assignments, unset, preset, add_mapping, remove_mapping)) and not any(
        (add_path, remove_path, edit, print_path, reset)
    ):
        click.echo(ctx.get_help())
        return
    if print_path:
        click.echo(settings_file.config_path())
    if edit:
        _edit()
    if reset:
        _reset(yes)
    chosen = None if preset in (None, "list", "save") else preset
    changes = _changes(assignments, chosen, add_mapping, add_path, force)
    _check(changes, force)
    _check_known(unset)
    done = _taken_out(unset, remove_mapping, remove_path)
    if changes:
        settings_file.update(changes)
        done += [f"saved {', '.join(changes)}"]
    if done:
        _say_done(done, changes, unset, as_json)
    if preset == "save":
        assert name is not None
        path = presets.save(name, settings_file.load().settings, replace=force)
        click.echo(f"preset {name} is saved in {path}")
    if preset == "list":
        config_view.list_presets(as_json)
    if wanted is not None:
        config_view.get(wanted, as_json)
    if show:
        config_view.show(as_json, ctx.obj["keypair"])


def _check_known(unset: tuple[str, ...]) -> None:
    """A setting of ours, or one that stands in the file, whoever wrote it."""
    present = settings_file.read_file(settings_file.config_path()) if unset else {}
    for key in unset:
        if key not in present:
            settings_file.row_of(key)


def _taken_out(
    unset: tuple[str, ...], mappings: tuple[str, ...], paths: tuple[str, ...]
) -> list[str]:
    """Carry out the removals; each in words."""
    done = []
    for key in unset:
        if settings_file.remove(key):
            done.append(f"{key} is unset")
        else:
            done.append(f"{settings_file.row_of(key).setting.key} was not set in the file")
    pairs = [("dataset_mappings", "mapping", name) for name in mappings]
    pairs += [("dataset_paths", "path", name) for name in paths]
    for key, what, name in pairs:
        if not settings_file.remove(key, name):
            present = getattr(settings_file.load().settings, key)
            raise SettingsError(
                f"there is no {what} for {dataset_key(name)!r}",
                hint=f"there are: {', '.join(present)}" if present else "there is none at all",
            )
        done.append(f"the {what} for {dataset_key(name)} is removed")
    return done


def _say_done(
    done: list[str], changes: Mapping[str, Any], unset: tuple[str, ...], as_json: bool
) -> None:
    from decloud_trainer.wiring import home_is_held

    path = settings_file.config_path()
    if as_json:
        print_json({"path": str(path), "saved": list(changes), "unset": list(unset)})
    else:
        click.echo(f"{'; '.join(done)} ({path})")
    if home_is_held():
        click.echo("note: the daemon that is running takes this at its next start", err=True)


def _changes(
    assignments: tuple[str, ...],
    preset: str | None,
    mappings: tuple[str, ...],
    paths: tuple[str, ...],
    force: bool,
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
        changes[setting.key] = _value_of(setting.key, value)
        settings_file.parse(setting.key, changes[setting.key], "--set")
    if mappings:
        changes["dataset_mappings"] = dict(_pair(text, "--add-mapping") for text in mappings)
    if paths:
        changes["dataset_paths"] = dict(_checked_path(text, force) for text in paths)
    return changes


def _check(changes: Mapping[str, Any], force: bool) -> None:
    """Look at what a key, a path and mappings lead to, before anything is written."""
    if changes.get("private_key"):
        from decloud_trainer.chain.wallet import load_wallet

        load_wallet(environ={}, private_key=changes["private_key"])
    path = changes.get("keypair_path")
    if path and not os.path.exists(Path(path).expanduser()):
        click.echo(f"note: there is no file {path}", err=True)
    if changes.get("dataset_mappings"):
        _check_targets(changes, force)


def _check_targets(changes: Mapping[str, Any], force: bool) -> None:
    """What a mapping trains on must be trainable here, or be named by a preset of ours."""
    from decloud_trainer.plans import data_specs

    paths = settings_file.parse("dataset_paths", changes.get("dataset_paths", {}), "paths")
    trainable = {**data_specs(settings_file.load().settings), **paths}
    mappings = settings_file.parse("dataset_mappings", changes["dataset_mappings"], "mappings")
    for target in dict.fromkeys(mappings.values()):
        if target in trainable:
            continue
        lacking = f"{target} can't be trained here"
        if target not in presets.named_datasets() and not force:
            raise SettingsError(
                lacking,
                hint=f"can be trained: {', '.join(trainable)}; or give your own data first: "
                f"decloud-trainer config --add-path {target}:/path/to/its/folder",
            )
        click.echo(
            f"note: {lacking} yet, so such rounds are skipped until it can "
            f"(decloud-trainer config --add-path {target}:/path/to/its/folder)",
            err=True,
        )


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
    return absolute(value) if key in _PLACES else value


def _pair(text: str, option: str) -> tuple[str, str]:
    name, colon, target = text.partition(":")
    if not (dataset_key(name) and colon and target.strip()):
        form = "NAME:PATH" if option == "--add-path" else "FROM:TO"
        raise SettingsError(f"{option} takes {form}, not {text!r}")
    return dataset_key(name), target.strip()


def _checked_path(text: str, force: bool) -> tuple[str, str]:
    from decloud_trainer.errors import DatasetUnavailable
    from decloud_trainer.plans import describe_data_folder

    name, path = _pair(text, "--add-path")
    path = absolute(path)
    settings_file.parse("dataset_paths", {name: path}, "--add-path")
    try:
        if not os.path.exists(Path(path).expanduser()):
            raise DatasetUnavailable(f"Dataset not found: {path} doesn't exist")
        click.echo(f"{name}: {describe_data_folder(path)}", err=True)
    except DatasetUnavailable as error:
        if not force:
            hint = "--force saves it all the same, for a disk that isn't mounted now"
            hint = f"{error.hint}; {hint}" if error.hint else hint
            raise DatasetUnavailable(error.message, hint=hint) from error
        click.echo(f"note: {name}: {error.message}; saved all the same", err=True)
    return name, path


def _edit() -> None:
    from decloud_trainer.cli.config_edit import edit

    changed = edit()
    path = settings_file.config_path()
    click.echo(f"saved {path}" if changed else f"nothing was changed ({path})")


def _reset(yes: bool) -> None:
    path = settings_file.config_path()
    if not path.exists():
        click.echo("nothing to reset: the settings are the defaults")
        return
    if not yes:
        click.confirm(f"Put all settings of {path} back to their defaults?", abort=True)
    click.echo(f"reset; the old settings are in {settings_file.reset()}")
