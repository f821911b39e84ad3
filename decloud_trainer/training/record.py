"""A training run's record: all that is needed to understand it, compare it and run it again.

It stands as ``run.json`` beside the artefact and outlives it. It names no round and holds no
secret: a model and data by their digests, settings, choices, figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from decloud_trainer import files
from decloud_trainer.errors import CorruptionError
from decloud_trainer.training.spec import TrainSpec

RECORD = "run.json"
FORMAT = 1
MAX_RECORD_BYTES = 32 * 1024**2
# The speed of an epoch of so many seconds tells something; so many times slower is worth a note.
TELLING_S, MUCH_SLOWER = 3.0, 4.0


@dataclass(frozen=True, slots=True)
class Point:
    """How far a run was, seen at the end of an epoch or of the part there was time for.

    Attributes:
        epoch: from 1; `steps` and `samples` count from the run's beginning.
        loss, accuracy: of the epoch's training samples; accuracy in percent.
        validation: accuracy in percent on the held-out part of the training data; None without one.
        learning_rate: the last step's.
        seconds: training time so far, without loading and scoring.
    """

    epoch: int
    steps: int
    samples: int
    loss: float | None
    accuracy: float | None
    validation: float | None
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One finished run.

    Attributes:
        started: UTC, ISO 8601.
        spec: the `TrainSpec` as JSON.
        choices: every adaptive choice as JSON (`Choices`): with these the spec runs again the same.
        versions: of what the bytes depend on: ``decloud_trainer``, ``python``, ``torch``,
            ``numpy`` and ``cpu`` (torch's word for the instructions it uses) or ``gpu``.
        data: fingerprint and size of the training data; `preview_data` of the scoring split, None
            without one.
        curve: oldest first.
        notes: what was out of the ordinary, in sentences: a resumption, a lowered rate.
        result: the `TrainResult` as JSON; it has the artefact's digest and the preview.
        peak_memory_bytes: of the process, or of the GPU where one trained.
    """

    started: str
    spec: Mapping[str, Any]
    choices: Mapping[str, Any]
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    preview_data: Mapping[str, Any] | None
    curve: tuple[Point, ...]
    notes: tuple[str, ...]
    result: Mapping[str, Any]
    peak_memory_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> RunRecord:
        """The inverse of `to_json`.

        Raises:
            CorruptionError: it isn't a record that this version knows.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise CorruptionError(
                f"not a record of format {FORMAT}",
                hint="it was written by another version of decloud-trainer, or damaged",
            )
        values = {name: value for name, value in data.items() if name != "format"}
        try:
            _check_kinds(values)
            TrainSpec.from_json(values["spec"])
            values["curve"] = tuple(Point(**point) for point in values["curve"])
            values["notes"] = tuple(str(note) for note in values["notes"])
            return cls(**values)
        except (TypeError, KeyError) as error:
            raise CorruptionError(f"not a complete record: {error}") from error


def _check_kinds(values: Mapping[str, Any]) -> None:
    wanted = {field.name for field in fields(RunRecord)}
    if set(values) != wanted:
        raise KeyError(", ".join(sorted(set(values) ^ wanted)))
    for name in ("spec", "choices", "versions", "data", "result"):
        if not isinstance(values[name], dict):
            raise TypeError(f"{name} is no JSON object")


def slow_epochs(curve: Sequence[Point]) -> list[str]:
    """A sentence if an epoch was much slower than the run's fastest one, for the notes.

    Other programs that take the processors slow a training down by more than their share: its
    threads wait for each other.
    """
    speeds: dict[int, float] = {}  # samples a second, by epoch
    samples, seconds = 0, 0.0
    for point in curve:
        took_s = point.seconds - seconds
        if took_s >= TELLING_S:
            speeds[point.epoch] = (point.samples - samples) / took_s
        samples, seconds = point.samples, point.seconds
    if not speeds:
        return []
    slowest, fastest = min(speeds, key=speeds.__getitem__), max(speeds.values())
    if speeds[slowest] * MUCH_SLOWER > fastest:
        return []
    told = f"epoch {slowest} had {speeds[slowest]:,.0f} samples/s, the fastest one {fastest:,.0f}"
    return [f"{told}: something else kept the processors busy"]


def write(folder: Path, record: RunRecord) -> Path:
    """Durably, in place of an older one."""
    path = folder / RECORD
    files.write_atomic(path, json.dumps(record.to_json(), indent=1).encode())
    return path


def content(path: Path) -> bytes:
    """The bytes of the file `path`, whose folder a training child can write to.

    Raises:
        CorruptionError: there are too many.
        OSError: it can't be read, or is no plain file.
    """
    with files.open_plain(path) as file:
        data = file.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise CorruptionError("it is too large for a run's record")
    return data


def read(path: Path) -> RunRecord:
    """The record in the file `path`.

    Raises:
        CorruptionError: it can't be read, or isn't one.
    """
    try:
        return RunRecord.from_json(json.loads(content(path)))
    except OSError as error:
        raise CorruptionError(f"can't read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CorruptionError(f"{path} is no JSON: {error}") from error
    except CorruptionError as error:
        raise CorruptionError(f"{path}: {error.message}", hint=error.hint) from error
