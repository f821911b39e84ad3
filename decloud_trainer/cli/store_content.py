"""The parts of ``store`` that open a version's content: weights, states, differences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer.cli.chains import CHAIN, CODES, VERSION, opened_chain, version_json
from decloud_trainer.cli.output import JSON_OPTION, print_json, print_table
from decloud_trainer.errors import DecloudError

if TYPE_CHECKING:
    from decloud_trainer.store.chain import Store
    from decloud_trainer.store.version import Version


@click.command(
    epilog="\b\nExamples:\n  decloud-trainer store export prod 12 model.safetensors"
    "\n  decloud-trainer store export prod release-1 model.pt --format torch" + CODES
)
@CHAIN
@VERSION
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["safetensors", "torch"]),
    default="safetensors",
    show_default=True,
    help="What to write.",
)
@JSON_OPTION
def export(chain: str, version: str, file: Path, form: str, as_json: bool) -> None:
    """Write a version's model weights to a file."""
    from decloud_trainer.training.snapshots import load_checkpoint, weights_file, weights_of

    opened = opened_chain(chain)
    found = opened.get_version(version)
    weights = weights_of(load_checkpoint(opened, found))
    if not weights:
        raise DecloudError(f"{found.name} of {opened.where} holds no model")
    _write(file, weights_file(weights, form))
    if as_json:
        print_json(_written(opened, found, file) | {"tensors": len(weights), "format": form})
    else:
        click.echo(f"{len(weights)} tensors of {found.name} are in {file}")


@click.command(
    epilog="\b\nExample:\n  decloud-trainer store checkout prod 12 state.safetensors" + CODES
)
@CHAIN
@VERSION
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@JSON_OPTION
def checkout(chain: str, version: str, file: Path, as_json: bool) -> None:
    """Write a version's whole content to a file, verified: model, optimiser and position."""
    opened = opened_chain(chain)
    found = opened.get_version(version)
    _write(file, opened.read(found))
    if as_json:
        print_json(_written(opened, found, file))
    else:
        click.echo(f"{found.name}, {found.size:,} bytes, is in {file}")


def _written(opened: Store, version: Version, file: Path) -> dict[str, Any]:
    return {
        "chain": opened.where,
        "version": version.name,
        "file": str(file),
        "bytes": file.stat().st_size,
    }


def _write(file: Path, data: bytes) -> None:
    from decloud_trainer.files import write_atomic

    if file.exists() and not file.is_file():
        raise DecloudError(f"{file} is no plain file", hint="name a file to write to")
    try:
        write_atomic(file, data)
    except OSError as error:
        raise DecloudError(
            f"can't write {file}: {error.strerror}", hint="see that its folder is there and yours"
        ) from error


@click.command(
    "import",
    epilog="\b\nExample:\n  decloud-trainer store import prod state.safetensors -m 'from the lab'"
    + CODES,
)
@CHAIN
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-m", "--message", default="", help="The commit's message; else the file's name.")
@JSON_OPTION
def import_file(chain: str, file: Path, message: str, as_json: bool) -> None:
    """Append a training state that `checkout` wrote, or a model in safetensors."""
    from decloud_trainer.training.snapshots import checkpoint_file, commit_checkpoint

    opened = opened_chain(chain)
    state = checkpoint_file(file)
    made = commit_checkpoint(opened, state, message or f"imported {file.name}")
    if as_json:
        print_json(version_json(opened, made, opened.tags()))
    else:
        click.echo(f"{file} is {made.name} of {opened.where}")


@click.command(
    epilog="\b\nExamples:\n  decloud-trainer store diff prod 3 7"
    "\n  decloud-trainer store diff prod 3 7 --json" + CODES
)
@CHAIN
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@JSON_OPTION
def diff(chain: str, first: str, second: str, as_json: bool) -> None:
    """Show how two versions differ: metrics, settings, and how far each parameter moved."""
    from decloud_trainer.training.snapshots import change_norms, load_checkpoint, weights_of

    opened = opened_chain(chain)
    one, other = opened.get_version(first), opened.get_version(second)
    states = [load_checkpoint(opened, each) for each in (one, other)]
    norms = change_norms(*(weights_of(state) for state in states))
    metrics = _beside(one.metrics, other.metrics)
    settings = _beside(*(_flat(state.document) for state in states))
    changed = {name: pair for name, pair in settings.items() if pair[0] != pair[1]}
    if as_json:
        told = {"a": one.name, "b": other.name, "metrics": metrics, "document": changed}
        print_json({**told, "parameters": norms})
        return
    rows = [
        [f"metric {name}", _text(a), _text(b), ""] for name, (a, b) in metrics.items() if a != b
    ]
    rows += [[key, _text(a), _text(b), ""] for key, (a, b) in changed.items()]
    rows += [[name, "", "", _moved(norm)] for name, norm in norms.items() if norm != 0]
    if not rows:
        click.echo("the two versions are equal")
        return
    print_table(["", one.name, other.name, "Moved by"], rows)
    still = sum(norm == 0 for norm in norms.values())
    if still:
        click.echo(f"\n{still} parameters are the same in both")


def _beside(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Name -> the value in each; None where it has none."""
    return {name: (one.get(name), other.get(name)) for name in dict.fromkeys([*one, *other])}


def _flat(document: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Objects within objects by names with dots."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{start}{key}.")
        else:
            found[start + key] = value
    return found


def _moved(norm: float | None) -> str:
    return "another shape" if norm is None else f"{norm:.4g}"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@click.command(
    epilog="\b\nExample:\n  decloud-trainer store tensorboard prod --logdir runs"
    "\n\nThen: tensorboard --logdir runs" + CODES
)
@CHAIN
@click.option(
    "--logdir",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for TensorBoard.",
)
@JSON_OPTION
def tensorboard(chain: str, logdir: Path, as_json: bool) -> None:
    """Write the metrics of all versions for TensorBoard (extra: track)."""
    from decloud_trainer.training.track import write_metrics

    opened = opened_chain(chain)
    rows = [(version.counter, version.metrics) for version in opened.log()]
    write_metrics(logdir, list(reversed(rows)))
    if as_json:
        print_json({"chain": opened.where, "versions": len(rows), "logdir": str(logdir)})
    else:
        click.echo(f"the metrics of {len(rows)} versions are in {logdir}")
