"""What a training child answers: frozen values, JSON both ways. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from decloud_trainer.training.spec import MODALITIES, Modality
from decloud_trainer.training.values import Json, as_json, fields, require

Stopped: TypeAlias = Literal["complete", "deadline", "stop", "patience", "diverged"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What `inspect` found.

    Attributes:
        parameters: trained numbers; buffers are not counted.
        samples_per_s: a short measurement of training on this machine.
        memory_bytes: an estimate of the training's peak with the batch size asked for; 0 = unknown.
        device, threads, precision: on what it was measured; the precision is that of the forward
            pass.
        torch: its version.
        modality: what an input is.
        columns: of the rows that it takes; 0 where inputs are no rows.
    """

    architecture: str
    classes: int
    parameters: int
    sha256: str
    bytes: int
    samples_per_s: float
    device: str = ""
    threads: int = 0
    precision: str = ""
    torch: str = ""
    memory_bytes: int = 0
    modality: Modality = "image"
    columns: int = 0

    @classmethod
    def from_json(cls, data: object) -> ModelInfo:
        return cls(**fields(cls, data))

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What `prepare` made ready: samples of each split (0 = not there), classes, content digest,
    and what an input is (``image``, ``text`` or ``tabular``)."""

    train: int
    test: int
    classes: int
    fingerprint: str
    modality: Modality = "image"
    columns: int = 0

    def __post_init__(self) -> None:
        require(self.modality in MODALITIES, f"{self.modality!r} is no kind of data")

    @classmethod
    def from_json(cls, data: object) -> DataInfo:
        return cls(**fields(cls, data))

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Preview:
    """Accuracy in percent on the scoring split: the base, and with the stored artefact applied."""

    before: float
    after: float
    samples: int

    @property
    def improvement(self) -> float:
        """Percentage points, as the scoring side counts them."""
        return self.after - self.before

    @classmethod
    def from_json(cls, data: object) -> Preview:
        return cls(**fields(cls, data))


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished run.

    Attributes:
        artifact: the file's name in the job's folder; `sha256` and `bytes` are that file's.
        preview: None when the spec asked for none.
        epochs: passes begun, the extra ones included; `loss` has the mean of each.
        samples: trained on, repeats counted; `samples_per_s` without loading and scoring.
        seconds: all of it.
        stopped: whether the run was cut short, and by what; ``patience`` = it had stopped learning,
            ``diverged`` = the state before that is the result.
        device, threads, torch: with the spec's seed, what the bytes depend on.
    """

    artifact: str
    sha256: str
    bytes: int
    preview: Preview | None
    epochs: int
    batches: int
    samples: int
    samples_per_s: float
    seconds: float
    loss: tuple[float, ...]
    stopped: Stopped
    device: str
    threads: int
    torch: str

    @classmethod
    def from_json(cls, data: object) -> TrainResult:
        given = fields(cls, data)
        if given["preview"] is not None:
            given["preview"] = Preview.from_json(given["preview"])
        require(isinstance(given["loss"], (list, tuple)), "loss must be a list of numbers")
        return cls(**{**given, "loss": tuple(given["loss"])})

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands; a field that doesn't apply, or isn't known yet, is None.

    Attributes:
        stage: ``download``, ``load``, ``data``, ``baseline``, ``train`` or ``preview``.
        epoch, batch: from 1; `epochs` and `batches` are the totals planned now.
        loss: mean of the epoch so far.
        accuracy: percent, of the epoch so far.
        learning_rate: of the next step.
        validation: percent, of the best state so far, on the held-out part of the training data.
        memory_bytes: what this process holds, or what torch holds on the GPU.
        file, done_bytes, total_bytes: a download's.
    """

    stage: str
    epoch: int | None = None
    epochs: int | None = None
    batch: int | None = None
    batches: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    samples_per_s: float | None = None
    eta_s: float | None = None
    learning_rate: float | None = None
    validation: float | None = None
    memory_bytes: int | None = None
    file: str | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None

    def to_json(self) -> Json:
        """Only the fields that are known."""
        return {key: value for key, value in as_json(self).items() if value is not None}
