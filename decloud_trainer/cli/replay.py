"""``replay``: train again from a run's record, and see whether the same comes out."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer import config
from decloud_trainer.cli.output import JSON_OPTION, print_json
from decloud_trainer.errors import DecloudError, TrainingError
from decloud_trainer.files import sha256_file

if TYPE_CHECKING:
    from decloud_trainer.training.record import RunRecord

# Between machines that compute differently: of the preview, in points, and of the last loss.
PREVIEW_POINTS = 1.0
LOSS_SHARE = 0.05
# The bytes are equal only where these are, and on the CPU.
DECISIVE = ("torch", "cpu", "gpu")


@click.command(
    epilog="\b\nExamples:\n  decloud-trainer replay 42\n"
    "  decloud-trainer replay r42-1f --out again.pt --json"
    "\n\nExit codes: 0 equal, or within the tolerance where the versions differ; 1 otherwise."
)
@click.argument("name", metavar="ID")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the new artefact in this file.",
)
@JSON_OPTION
def replay(name: str, out: Path | None, as_json: bool) -> None:
    """Train again exactly as a recorded run did, and compare what comes out.

    With an equal torch version and equal CPU instructions the artefact must be equal byte for byte,
    and so is its CID. Otherwise, and on a GPU, the preview may differ by one point and the last
    loss by 5 %. Nothing is uploaded or submitted.
    """
    from decloud_trainer.cli.runs import find_run

    run = find_run(name)
    spec = replay_spec(run.record)
    again, cids = asyncio.run(_train(spec, out, quiet=as_json))
    told = verdict(run.record, again)
    told = {"run": run.id, **told, **cids}
    if as_json:
        print_json(told)
    else:
        click.echo(told["says"])
        click.echo(f"its CID: {cids['cid_v1']}, or {cids['cid_v0']} in the older form")
    if not told["within"]:
        raise TrainingError(
            f"the replay of {run.id} did not arrive at the same result",
            hint="`decloud-trainer runs show ID` tells what the run was made with",
        )


def replay_spec(record: RunRecord) -> dict[str, Any]:
    """The recorded run's spec, bound to its choices, without deadline, curves and checkpoints.

    Raises:
        TrainingError: the base model isn't here any more.
    """
    model = record.spec["model"]
    path = Path(model["path"])
    if not path.is_file() or sha256_file(path) != model["sha256"]:
        raise TrainingError(
            f"the base model of that run, {path}, is no longer here",
            hint=f"put the file with the sha256 {model['sha256']} there",
        )
    spec = {name: value for name, value in record.spec.items() if name != "commits"}
    # None of these changes a byte, and all would be removed in the end.
    unneeded = {"deadline": None, "tensorboard": False, "checkpoint_every_s": 0}
    return {**spec, "choices": dict(record.choices), **unneeded}


async def _train(
    spec: Mapping[str, Any], out: Path | None, *, quiet: bool
) -> tuple[RunRecord, dict[str, str]]:
    """The record of the new run, and its artefact's CIDs."""
    from decloud_trainer.ipfs.cid import file_cid
    from decloud_trainer.jobs.alone import run_alone
    from decloud_trainer.training.record import RECORD, read
    from decloud_trainer.wiring import worker_of

    kept: list[RunRecord] = []
    cids: dict[str, str] = {}

    def look(folder: Path) -> None:
        record = read(folder / RECORD)
        artifact = folder / str(record.result["artifact"])
        kept.append(record)
        cids.update({f"cid_v{each}": str(file_cid(artifact, version=each)) for each in (0, 1)})
        if out is not None:
            try:
                shutil.copyfile(artifact, out)
            except OSError as error:
                raise DecloudError(f"can't write {out}: {error.strerror}") from error

    await run_alone(
        "train",
        spec,
        on_progress=_silent if quiet else _teller(),
        before_removal=look,
        worker=worker_of(config.load().settings),
    )
    return kept[0], cids


def _silent(told: Mapping[str, Any]) -> None:
    """For scripts, which want the outcome alone."""


def _teller() -> Callable[[Mapping[str, Any]], None]:
    """Says the stage when it changes, and the epochs while it trains; on standard error."""
    said: list[str] = []

    def tell(told: Mapping[str, Any]) -> None:
        line = str(told.get("stage", ""))
        if told.get("epoch"):
            line += f", epoch {told['epoch']} of {told.get('epochs', '?')}"
        if line and line not in said[-1:]:
            said.append(line)
            click.echo(f"replay: {line}", err=True)

    return tell


def verdict(before: RunRecord, again: RunRecord) -> dict[str, Any]:
    """Equal, within the tolerance, or neither; `says` is the sentence for people."""
    equal = before.result["sha256"] == again.result["sha256"]
    changed = [
        f"{name} {before.versions.get(name, '-')} then, {again.versions.get(name, '-')} now"
        for name in DECISIVE
        if before.versions.get(name) != again.versions.get(name)
    ]
    device = str(again.result["device"])
    if device != "cpu":
        changed.append(f"sums on {device} differ from run to run in their last bits")
    near = _is_near(before.result, again.result)
    if equal:
        says = f"equal: the artefact is the same byte for byte, sha256 {again.result['sha256']}"
    elif changed:
        where = "; ".join(changed)
        says = f"not comparable byte for byte ({where}); the figures are " + (
            "within the tolerance" if near else "too far apart"
        )
    else:
        says = "different, though torch and the CPU's instructions are the same"
    return {
        "equal": equal,
        "within": equal or (bool(changed) and near),
        "changed": changed,
        "says": says,
        "before": _figures(before.result),
        "again": _figures(again.result),
    }


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    preview = result.get("preview") or {}
    return {
        "sha256": result["sha256"],
        "preview": preview.get("after"),
        "loss": result["loss"][-1] if result.get("loss") else None,
    }


def _is_near(before: Mapping[str, Any], again: Mapping[str, Any]) -> bool:
    then, now = _figures(before), _figures(again)
    if (then["preview"] is None) != (now["preview"] is None):
        return False
    if then["preview"] is not None and abs(then["preview"] - now["preview"]) > PREVIEW_POINTS:
        return False
    if then["loss"] is None or now["loss"] is None:
        return then["loss"] is now["loss"]
    return math.isclose(then["loss"], now["loss"], rel_tol=LOSS_SHARE)
