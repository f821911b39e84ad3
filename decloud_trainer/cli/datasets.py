"""``datasets``: what can be trained here, and having it ready before a round needs it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli import completing
from decloud_trainer.cli.output import JSON_OPTION, print_json, print_pairs, print_table
from decloud_trainer.errors import DatasetUnavailable

if TYPE_CHECKING:
    from decloud_trainer.checks.data import LocalData

# Between two lines about a download.
TELL_EVERY_S = 2.0


@click.group()
def datasets() -> None:
    """Show which datasets can be trained here, fetch them, and check folders of your own."""


LIST_EPILOG = """\b
Examples:
  decloud-trainer datasets list
  decloud-trainer datasets list --all
  decloud-trainer datasets list --json
"""


@datasets.command("list", epilog=LIST_EPILOG)
@click.option("--all", "show_all", is_flag=True, help="Also those that can't be trained here.")
@JSON_OPTION
def list_datasets(show_all: bool, as_json: bool) -> None:
    """List datasets: trainable here, from where, how many samples, disk space taken.

    With --json all of them are listed.
    """
    from decloud_trainer.checks.data import all_data

    found = all_data(settings_file.load().settings)
    if as_json:
        print_json([local.to_json() for local in found])
        return
    shown = [local for local in found if show_all or local.source]
    columns = ["Dataset", "Index", "Trainable", "From", "Train", "Test", "Disk", "Note"]
    print_table(columns, [_row(local) for local in shown])
    if not show_all:
        click.echo(f"\n{len(found) - len(shown)} more can't be trained here (--all shows them).")
        click.echo("config --add-path NAME:PATH and --add-mapping FROM:TO add to this list.")


def _row(local: LocalData) -> list[str]:
    here = local.found
    return [
        local.key,
        "-" if local.index is None else str(local.index),
        "yes" if local.is_ready else "after a download" if local.is_trainable else "no",
        _source(local),
        f"{here.train:,}" if here else "-",
        f"{here.test:,}" if here else "-",
        _megabytes(local.kept_bytes) if local.kept_bytes else "-",
        local.problem,
    ]


def _source(local: LocalData) -> str:
    source = local.path or local.source or "-"
    return f"{local.trained_on} ({source})" if local.trained_on != local.key else source


FETCH_EPILOG = """\b
Examples:
  decloud-trainer datasets fetch mnist
  decloud-trainer datasets fetch FashionMnist --json
  decloud-trainer datasets fetch cifar10 --unmapped

\b
Exit codes: 0 ready, 1 it can't be had.
"""


@datasets.command(epilog=FETCH_EPILOG)
@click.argument("name", shell_complete=completing.dataset_names)
@click.option(
    "--unmapped",
    is_flag=True,
    help="The dataset itself, though a mapping trains on another one: its test split previews.",
)
@JSON_OPTION
def fetch(name: str, unmapped: bool, as_json: bool) -> None:
    """Download a dataset and prepare it.

    No round then has to wait for it. Data that is here already is only prepared.
    """
    from decloud_trainer.checks.data import data_spec, local_data
    from decloud_trainer.plans import cache_bytes

    settings = settings_file.load().settings
    if unmapped:
        settings = dataclasses.replace(settings, dataset_mappings={})
    local = local_data(settings, name)
    spec = data_spec(settings, local.trained_on)
    if spec is None:
        raise _unknown(local)
    if local.trained_on != local.key and not as_json:
        click.echo(f"{local.key} is trained on {local.trained_on} (mapping)")
    job = {"data": spec.to_json(), "cache_bytes": cache_bytes(settings)}
    info = asyncio.run(_fetch(job, quiet=as_json))
    if as_json:
        print_json({"dataset": local.key, "trained_on": local.trained_on, **info})
        return
    click.echo(
        f"{local.trained_on} is ready: {info['train']:,} training and {info['test']:,} test "
        f"samples, {info['classes']} classes"
    )


async def _fetch(job: Mapping[str, Any], *, quiet: bool) -> Mapping[str, Any]:
    """Run the child that prepares data; meanwhile tell what has arrived."""
    from decloud_trainer.cli.live import progress_text
    from decloud_trainer.jobs.alone import run_alone

    told, at = "", 0.0

    def tell(values: Mapping[str, Any]) -> None:
        nonlocal told, at
        what = f"{values.get('stage')} {values.get('file')}"
        if not quiet and (what != told or time.monotonic() - at >= TELL_EVERY_S):
            told, at = what, time.monotonic()
            click.echo(progress_text(values), err=True)

    return await run_alone("prepare", job, on_progress=tell)


REMOVE_EPILOG = """\b
Examples:
  decloud-trainer datasets remove cifar100
  decloud-trainer datasets remove mnist --json

\b
Exit codes: 0 removed, or nothing was there; 1 it's in use.
"""


@datasets.command(epilog=REMOVE_EPILOG)
@click.argument("name", shell_complete=completing.dataset_names)
@JSON_OPTION
def remove(name: str, as_json: bool) -> None:
    """Free the disk space of a dataset: its download and what was decoded.

    Folders of your own stay as they are. A dataset in use by a training isn't removed.
    """
    from decloud_trainer.names import dataset_key
    from decloud_trainer.plans import datasets_dir
    from decloud_trainer.training.data.datasets import remove as remove_data

    key = dataset_key(name)
    freed = remove_data(datasets_dir(), key)
    if as_json:
        print_json(
            {
                "dataset": key,
                "downloaded_bytes": freed.downloaded,
                "decoded_bytes": freed.decoded,
            }
        )
        return
    if not freed.downloaded + freed.decoded:
        click.echo(f"Nothing of {key} was kept here.")
        return
    click.echo(
        f"Removed {key}: {_megabytes(freed.downloaded)} downloaded, "
        f"{_megabytes(freed.decoded)} decoded"
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


CHECK_EPILOG = """\b
Examples:
  decloud-trainer datasets check mnist
  decloud-trainer datasets check ~/data/my-digits

\b
Exit codes: 0 it can be trained, 1 it can't.
"""


@datasets.command(epilog=CHECK_EPILOG)
@click.argument("name", metavar="NAME|PATH", shell_complete=completing.dataset_names)
@JSON_OPTION
def check(name: str, as_json: bool) -> None:
    """Say what is there of a dataset, or what a folder holds. Changes nothing."""
    from decloud_trainer.checks.data import local_data

    if os.sep in name or name.startswith("~"):
        _check_folder(Path(name).expanduser(), as_json)
        return
    local = local_data(settings_file.load().settings, name)
    if as_json:
        print_json(local.to_json())
    if local.problem:
        raise DatasetUnavailable(
            f"Dataset not found: {local.problem}",
            hint=f"decloud-trainer config --add-path {local.trained_on}:/path/to/its/folder",
        )
    if not local.source:
        raise _unknown(local)
    if local.found is None:
        raise DatasetUnavailable(
            f"Dataset not found: {local.trained_on} was not downloaded yet",
            hint=f"decloud-trainer datasets fetch {local.trained_on}",
        )
    if not as_json:
        number = "" if local.index is None else f" (number {local.index} on the network)"
        print_pairs(
            {"Dataset": f"{local.key}{number}", "From": _source(local)} | _facts(local.found)
        )


def _check_folder(path: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from decloud_trainer.training.data.datasets import find_format
    from decloud_trainer.training.data.nearly import missing_halves

    found = find_format(path)
    missing = missing_halves(path)
    if as_json:
        print_json({"path": str(path), **asdict(found), "missing": missing})
        return
    note = {"Note": "; ".join(missing)} if missing else {}
    print_pairs({"Folder": str(path)} | _facts(found) | note)
    click.echo(f"\nUse it: decloud-trainer config --add-path NAME:{path}")


def _facts(found: Any) -> dict[str, str]:
    return {
        "Format": f"{found.format}, {found.inputs}",
        "Training": f"{found.train:,} samples",
        "Test": f"{found.test:,} samples" if found.test else "none: scores can't be previewed",
        "Classes": _classes(found.classes, found.labels),
    }


def _classes(count: int, labels: tuple[str, ...]) -> str:
    if not labels:
        return str(count)
    return f"{count}: {', '.join(labels[:10])}{', ...' if len(labels) > 10 else ''}"


def _unknown(local: LocalData) -> DatasetUnavailable:
    name = local.trained_on
    return DatasetUnavailable(
        f"Dataset not found: there is no data and no loader for {name} here",
        hint=f"use files of your own: decloud-trainer config --add-path {name}:/path/to/its/folder,"
        f" or train on other data instead: decloud-trainer config --add-mapping {local.key}:mnist",
    )
