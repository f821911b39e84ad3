"""``runs``: what was trained here, how it went, and how two runs differ."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer.cli.output import (
    JSON_OPTION,
    print_json,
    print_pairs,
    print_table,
    terminal_width,
)
from decloud_trainer.cli.plotting import columns_plot
from decloud_trainer.errors import CorruptionError, DecloudError
from decloud_trainer.files import home_dir

if TYPE_CHECKING:
    from decloud_trainer.training.record import Point, RunRecord

_ROUND = re.compile(r"r(\d+)-")
# Where a figure of one's own home says nothing about the run.
_PLACES = ("spec.model.path", "spec.data.data_dir", "spec.preview.data_dir")


@dataclass(frozen=True, slots=True)
class Run:
    """A recorded run; `id` is its job's, `round` the number of the round it was for, if any."""

    id: str
    folder: Path
    record: RunRecord

    @property
    def round(self) -> int | None:
        found = _ROUND.match(self.id)
        return int(found[1]) if found else None

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "round": self.round, **self.record.to_json()}


@click.group()
def runs() -> None:
    """Show the training runs of this machine and compare them.

    A run is named by its ID, by the beginning of it, or by the number of its round (the latest run
    of that round).
    """


@runs.command(
    "list",
    epilog="\b\nExamples:\n  decloud-trainer runs list\n  decloud-trainer runs list --json",
)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Most shown.")
@JSON_OPTION
def list_runs(limit: int, as_json: bool) -> None:
    """List finished runs, the latest first.

    Records that can't be read are left out, with a sentence on standard error.
    """
    found = sorted(recorded(), key=lambda run: run.record.started, reverse=True)
    if as_json:
        print_json([run.to_json() for run in found[:limit]])
        return
    if not found:
        click.echo("no run is recorded here yet; a trained round leaves one")
        return
    print_table(
        ["Run", "Round", "Started (UTC)", "Model", "Data", "Epochs", "Preview", "Took"],
        [_row(run) for run in found[:limit]],
    )
    if len(found) > limit:
        click.echo(f"\n{len(found) - limit} older ones (--limit)")


def _row(run: Run) -> list[str]:
    record = run.record
    return [
        run.id,
        "-" if run.round is None else f"#{run.round}",
        record.started[:19].replace("T", " "),
        f"{record.spec['architecture']}, {record.spec['classes']}",
        str(record.spec["data"]["name"]),
        str(record.result.get("epochs", "-")),
        preview_text(record),
        f"{record.result.get('seconds', 0):,.0f} s",
    ]


def preview_text(record: RunRecord) -> str:
    """``54.2 -> 93.3 %``, or that nobody can know."""
    preview = record.result.get("preview")
    return f"{preview['before']:.2f} -> {preview['after']:.2f} %" if preview else "unknown"


@runs.command(
    epilog="\b\nExamples:\n  decloud-trainer runs show 42\n"
    "  decloud-trainer runs show 42 --plot\n  decloud-trainer runs show r42-1f --json"
    "\n\nExit codes: 0 shown, 1 there is no such run, 4 its record is damaged."
)
@click.argument("name", metavar="ID")
@click.option("--plot", is_flag=True, help="Draw the curves of loss and accuracy.")
@JSON_OPTION
def show(name: str, plot: bool, as_json: bool) -> None:
    """Show one run: what it was asked, what it chose, how it went."""
    run = find_run(name)
    if as_json:
        print_json(run.to_json())
        return
    print_pairs(_facts(run))
    click.echo()
    print_table(
        ["Epoch", "Batches", "Loss", "Accuracy", "Validation", "Rate", "Seconds"],
        [_curve_row(point) for point in run.record.curve],
    )
    for note in run.record.notes:
        click.echo(f"\nNote: {note}")
    if plot:
        _plot(run.record)


def _facts(run: Run) -> dict[str, str]:
    record, spec, result = run.record, run.record.spec, run.record.result
    chosen = ", ".join(f"{name} {_text(value)}" for name, value in record.choices.items())
    versions = ", ".join(f"{name} {value}" for name, value in record.versions.items())
    return {
        "Run": run.id,
        "Started": f"{record.started[:19].replace('T', ' ')} UTC",
        "Model": f"{spec['architecture']} with {spec['classes']} classes, "
        f"sha256 {spec['model']['sha256'][:16]}",
        "Data": f"{spec['data']['name']}, {record.data.get('train', 0):,} samples, "
        f"fingerprint {str(record.data.get('fingerprint', '-'))[:16]}",
        "Asked": f"epochs {spec['epochs']}, batch size {spec['batch_size']}, "
        f"learning rate {spec['learning_rate']}, seed {spec['seed']}",
        "Chosen": chosen or "-",
        "Preview": preview_text(record),
        "Ended": f"{result.get('stopped', '-')}, {result.get('samples', 0):,} samples, "
        f"{result.get('samples_per_s', 0):,.0f} a second, {result.get('seconds', 0):,.1f} s in all",
        "Memory": f"{record.peak_memory_bytes / 1e6:,.0f} MB at most",
        "Artefact": f"{result.get('bytes', 0):,} bytes, sha256 {result.get('sha256', '-')}",
        "With": versions or "-",
        "Folder": str(run.folder),
    }


def _curve_row(point: Point) -> list[str]:
    return [
        str(point.epoch),
        f"{point.steps:,}",
        "-" if point.loss is None else f"{point.loss:.4f}",
        "-" if point.accuracy is None else f"{point.accuracy:.2f} %",
        "-" if point.validation is None else f"{point.validation:.2f} %",
        f"{point.learning_rate:.2e}",
        f"{point.seconds:,.1f}",
    ]


def _plot(record: RunRecord) -> None:
    for title, name in (
        ("Loss", "loss"),
        ("Training accuracy in %", "accuracy"),
        ("Validation accuracy in %", "validation"),
    ):
        values = [v for point in record.curve if (v := getattr(point, name)) is not None]
        if values:
            click.echo(f"\n{title}, by epoch")
            for line in columns_plot(values, terminal_width()):
                click.echo(line)


@runs.command(
    epilog="\b\nExamples:\n  decloud-trainer runs compare 42 43\n"
    "  decloud-trainer runs compare r42-1f r43-0a --json"
    "\n\nExit codes: 0 compared, 1 there is no such run, 4 a record is damaged."
)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@JSON_OPTION
def compare(first: str, second: str, as_json: bool) -> None:
    """Show where two runs differ: in what was asked, chosen, used, and in the outcome."""
    one, other = find_run(first), find_run(second)
    found = differences(one.record, other.record)
    if as_json:
        print_json({"a": one.id, "b": other.id, "differences": found})
        return
    if not found:
        click.echo("the two runs are equal in everything that is recorded, but for time")
        return
    print_table(
        ["", one.id, other.id],
        [[name, _text(pair[0]), _text(pair[1])] for name, pair in found.items()],
    )


def differences(one: RunRecord, other: RunRecord) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> both values, for all that isn't equal; times and places left out."""
    sides = [
        dict(_flat("", {name: getattr(record, name) for name in _COMPARED}))
        for record in (one, other)
    ]
    names = dict.fromkeys([*sides[0], *sides[1]])
    return {
        name: (sides[0].get(name), sides[1].get(name))
        for name in names
        if name not in _PLACES and sides[0].get(name) != sides[1].get(name)
    }


_COMPARED = ("spec", "choices", "versions", "data", "preview_data", "result")


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    else:
        yield prefix, value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value) or "none"
    return "-" if value is None else str(value)


def runs_dir() -> Path:
    return home_dir() / "jobs"


def recorded() -> Iterator[Run]:
    """All runs whose record can be read; the others are named on standard error."""
    from decloud_trainer.training.record import RECORD, read

    for path in sorted(runs_dir().glob(f"*/{RECORD}")):
        try:
            yield Run(path.parent.name, path.parent, read(path))
        except CorruptionError as error:
            click.echo(f"left out: {error.message}", err=True)


def find_run(name: str) -> Run:
    """The run of that ID, of an ID that begins so, or the latest of the round of that number.

    Raises:
        DecloudError: there is none, or several begin so.
        CorruptionError: its record is damaged.
    """
    from decloud_trainer.training.record import RECORD, read

    paths = {path.parent.name: path for path in runs_dir().glob(f"*/{RECORD}")}
    wanted = name.lstrip("#")
    if wanted.isascii() and wanted.isdigit():
        mine = [path for run, path in paths.items() if run.startswith(f"r{int(wanted)}-")]
        matching = sorted(mine, key=os.path.getmtime)[-1:]
    else:
        exact = [paths[name]] if name in paths else []
        matching = exact or [path for run, path in paths.items() if name and run.startswith(name)]
    if len(matching) == 1:
        return Run(matching[0].parent.name, matching[0].parent, read(matching[0]))
    if matching:
        names = ", ".join(sorted(path.parent.name for path in matching)[:5])
        raise DecloudError(f"several runs begin with {name}: {names}", hint="give more of the ID")
    raise DecloudError(
        f"no run {name} is recorded here", hint="`decloud-trainer runs list` shows them"
    )
