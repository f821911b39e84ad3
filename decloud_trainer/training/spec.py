"""What a training child is asked: frozen values, checked at birth, JSON both ways.

Data and models are named by what they are (a digest, a dataset key and a folder), never by the
round that wants them. Nothing here imports torch, so the parent process may use it freely.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from decloud_trainer.names import dataset_key
from decloud_trainer.training.choices import PRECISIONS, STORED, Choices
from decloud_trainer.training.commit_plan import CommitPlan
from decloud_trainer.training.strategy import Strategy
from decloud_trainer.training.values import (
    Json,
    as_json,
    fields,
    finite,
    one_of,
    require,
    whole,
    within,
)

Modality: TypeAlias = Literal["image", "text", "tabular"]

MODALITIES = ("image", "text", "tabular")
AUTO = "auto"
# The longest run that ``auto`` means when there is no deadline.
AUTO_EPOCHS = 20
ARCHITECTURES = (
    "simple_cnn",
    "medium_cnn",
    "resnet18",
    "resnet34",
    "resnet50",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "vgg11",
    "vgg16",
    "densenet121",
    "vit_b_16",
    "vit_b_32",
    "mlp",
    "text_cnn",
    "distilbert",
    "bert",
)
MAX_CLASSES = 1000
MAX_MODEL_BYTES = 2 * 1024**3
# What doesn't change a training's result.
_BESIDE = ("deadline", "checkpoint_every_s", "tensorboard", "commits")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,2})?")
_DATASET = re.compile(r"[a-z0-9]{1,40}")


def _absolute(name: str, value: object) -> None:
    good = isinstance(value, Path) and value.is_absolute()
    require(good, f"{name} must be an absolute path, not {str(value)!r}")


def _tokenizer(value: object) -> None:
    if value is not None:
        _absolute("the tokenizer's path", value)


def _path(value: object) -> object:
    return Path(value) if isinstance(value, str) else value


def _digest(name: str, value: object) -> None:
    good = isinstance(value, str) and _SHA256.fullmatch(value) is not None
    require(good, f"{name} must be 64 lower-case hex digits, not {value!r}")


def _device(value: object) -> None:
    good = isinstance(value, str) and _DEVICE.fullmatch(value) is not None
    require(good, f"device {value!r} is none of auto, cpu, cuda, cuda:N, mps")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A base model on this machine, named by the digest of its bytes."""

    path: Path
    sha256: str

    def __post_init__(self) -> None:
        _absolute("model path", self.path)
        _digest("model sha256", self.sha256)

    @classmethod
    def from_json(cls, data: object) -> ModelFile:
        given = fields(cls, data)
        return cls(**{**given, "path": _path(given["path"])})


@dataclass(frozen=True, slots=True)
class DataSpec:
    """A dataset by name.

    Attributes:
        name: its key, any spelling (``fashion_mnist`` is kept as ``fashionmnist``).
        path: the user's own folder with its files; None = what ships with the package or was
            downloaded into `data_dir` before.
        data_dir: our cache of downloads and decoded tensors.
    """

    name: str
    path: Path | None
    data_dir: Path

    def __post_init__(self) -> None:
        require(isinstance(self.name, str), f"dataset name must be a text, not {self.name!r}")
        key = dataset_key(self.name)
        require(_DATASET.fullmatch(key) is not None, f"{self.name!r} is no dataset name")
        object.__setattr__(self, "name", key)
        if self.path is not None:
            _absolute(f"the path of dataset {key}", self.path)
        _absolute("data_dir", self.data_dir)

    @classmethod
    def from_json(cls, data: object) -> DataSpec:
        given = fields(cls, data)
        paths = {"path": _path(given["path"]), "data_dir": _path(given["data_dir"])}
        return cls(**{**given, **paths})

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class ArtifactSpec:
    """The upload convention, as plain values.

    Attributes:
        apply_scale: the scoring side computes ``new = base + apply_scale * artefact``: a negative
            one for named parameters only, a positive one for float buffers, too.
        dtype: in what precision the artefact is stored; ``auto`` = the smallest whose preview does
            not lose against float32's.
    """

    apply_scale: float = -0.1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        scale = finite("apply_scale", self.apply_scale)
        require(1e-6 <= abs(scale) <= 1e6, f"apply_scale {scale} makes no usable artefact")
        object.__setattr__(self, "apply_scale", scale)
        one_of("artefact dtype", self.dtype, (AUTO, *STORED))

    @classmethod
    def from_json(cls, data: object) -> ArtifactSpec:
        return cls(**fields(cls, data))


@dataclass(frozen=True, slots=True)
class InspectSpec:
    """Look at a stranger's model file: is it safe, which network is it, how fast would it train?

    Attributes:
        device, threads: where the speed is measured, as in `TrainSpec`.
        batch_size: what the training will use; its memory must suffice for that.
        precision: what the training will use, as in `TrainSpec`.
        tokenizer: the folder of the tokenizer for transformers; None = there is none.
    """

    model: Path
    max_bytes: int
    sha256: str | None = None
    device: str = "auto"
    threads: int = 0
    batch_size: int = 32
    precision: str = "float32"
    tokenizer: Path | None = None

    def __post_init__(self) -> None:
        _absolute("model path", self.model)
        _tokenizer(self.tokenizer)
        one_of("precision", self.precision, (AUTO, *PRECISIONS))
        whole("batch_size", self.batch_size, 1, 65_536)
        whole("max_bytes", self.max_bytes, 1, MAX_MODEL_BYTES)
        _device(self.device)
        whole("threads", self.threads, 0, 1024)
        if self.sha256 is not None:
            _digest("sha256", self.sha256)

    @classmethod
    def from_json(cls, data: object) -> InspectSpec:
        given = fields(cls, data)
        given["tokenizer"] = _path(given.get("tokenizer"))
        return cls(**{**given, "model": _path(given["model"])})

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class PrepareSpec:
    """Have a dataset on this machine, decoded; the only kind that may use the network.

    Attributes:
        cache_bytes: what all decoded data may take on the disk; 0 = no limit.
    """

    data: DataSpec
    cache_bytes: int = 0

    def __post_init__(self) -> None:
        whole("cache_bytes", self.cache_bytes, 0, 2**50)

    @classmethod
    def from_json(cls, data: object) -> PrepareSpec:
        given = fields(cls, data)
        return cls(**{**given, "data": DataSpec.from_json(given["data"])})

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """One training run.

    Attributes:
        model: the base model.
        architecture: what `inspect` found in it; another one there now is an error.
        classes: the width of its head; labels must be below it.
        data: what to train on (its training split).
        preview: what to score on (its test split); None = the score can't be known.
        epochs: passes over the data, fewer if the deadline forbids so many; ``auto`` = as many as
            the time until the deadline allows, and without one `AUTO_EPOCHS`.
        batch_size: samples per step.
        learning_rate: at its peak; the strategy says what becomes of it.
        max_batches: an upper limit for each epoch; 0 = all.
        seed: of the order of the samples and of dropout.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        threads: CPU threads; 0 = as many as this machine offers.
        artifact: the upload convention.
        deadline: unix seconds by which the result must stand; None = no limit.
        until_improved: train on after `epochs` while the preview doesn't beat the base.
        strategy: how the most is made of data and time. The default is the plainest.
        precision: of the forward pass; ``auto`` = the fastest on this device, as measured.
        checkpoint_every_s: how much work a crash may cost, in seconds; 0 = all of it.
        choices: of an earlier run, which this one repeats; None = they are made here.
        tensorboard: write the run's curves for it, beside the artefact.
        tokenizer: as in `InspectSpec`.
        commits: when the run's state becomes a version of its chain that goes on to another one.
    """

    model: ModelFile
    architecture: str
    classes: int
    data: DataSpec
    preview: DataSpec | None
    epochs: int | Literal["auto"] = 1
    batch_size: int = 32
    learning_rate: float = 0.001
    max_batches: int = 0
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    artifact: ArtifactSpec = ArtifactSpec()
    deadline: float | None = None
    until_improved: bool = True
    strategy: Strategy = Strategy.plain()
    precision: str = "float32"
    checkpoint_every_s: float = 30.0
    choices: Choices | None = None
    tensorboard: bool = False
    tokenizer: Path | None = None
    commits: CommitPlan = CommitPlan()

    def __post_init__(self) -> None:
        _tokenizer(self.tokenizer)
        known = ", ".join(ARCHITECTURES)
        require(
            self.architecture in ARCHITECTURES,
            f"architecture {self.architecture!r} is none of {known}",
        )
        whole("classes", self.classes, 2, MAX_CLASSES)
        if self.epochs != AUTO:
            whole("epochs", self.epochs, 1, 100_000)
        whole("batch_size", self.batch_size, 1, 65_536)
        whole("max_batches", self.max_batches, 0, 10**9)
        whole("seed", self.seed, 0, 2**63 - 1)
        whole("threads", self.threads, 0, 1024)
        rate = finite("learning_rate", self.learning_rate)
        require(0 < rate <= 10, f"learning_rate must be above 0 and at most 10, not {rate}")
        _device(self.device)
        if self.deadline is not None:
            finite("deadline", self.deadline)
        for name in ("until_improved", "tensorboard"):
            require(isinstance(getattr(self, name), bool), f"{name} must be true or false")
        one_of("precision", self.precision, (AUTO, *PRECISIONS))
        every_s = within("checkpoint_every_s", self.checkpoint_every_s, 0, 86_400)
        object.__setattr__(self, "checkpoint_every_s", every_s)

    @classmethod
    def from_json(cls, data: object) -> TrainSpec:
        given = fields(cls, data)
        given["model"] = ModelFile.from_json(given["model"])
        given["data"] = DataSpec.from_json(given["data"])
        given["tokenizer"] = _path(given.get("tokenizer"))
        if given["preview"] is not None:
            given["preview"] = DataSpec.from_json(given["preview"])
        if "artifact" in given:
            given["artifact"] = ArtifactSpec.from_json(given["artifact"])
        if "strategy" in given:
            given["strategy"] = Strategy.from_json(given["strategy"])
        if "commits" in given:
            given["commits"] = CommitPlan.from_json(given["commits"])
        if given.get("choices") is not None:
            given["choices"] = Choices.from_json(given["choices"])
        return cls(**given)

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]

    def digest(self) -> str:
        """What a run is known by: all that its result depends on, but not when it must be over."""
        values = {name: value for name, value in self.to_json().items() if name not in _BESIDE}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def asked(self) -> Json:
        """The same for people who compare runs, without the folders of this machine."""
        values = {name: value for name, value in self.to_json().items() if name not in _BESIDE}
        del values["choices"], values["tokenizer"]
        preview = None if self.preview is None else self.preview.name
        return {**values, "model": self.model.sha256, "data": self.data.name, "preview": preview}


Spec: TypeAlias = InspectSpec | PrepareSpec | TrainSpec
