"""What a run needs before its first step: the base model, the data, the score to beat."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from decloud_trainer.errors import TrainingError, UnknownArchitecture
from decloud_trainer.training.artifacts import Loaded, load_model
from decloud_trainer.training.classifier_task import check_labels
from decloud_trainer.training.data import datasets
from decloud_trainer.training.data.samples import Dataset
from decloud_trainer.training.fitting import check_inputs, has_same_words, tokenizer_for
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.networks import Architecture, recognise
from decloud_trainer.training.results import Progress
from decloud_trainer.training.scoring import Scorer
from decloud_trainer.training.spec import MAX_MODEL_BYTES, DataSpec, TrainSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Material:
    """What a run is made of: files that were read and data that was opened.

    Attributes:
        preview, scorer: None if the score can't be known.
        scoring_s: how long it took to score the base model.
    """

    loaded: Loaded
    architecture: Architecture
    dataset: Dataset
    preview: Dataset | None
    scorer: Scorer | None
    scoring_s: float


def gather(spec: TrainSpec, hooks: Hooks) -> Material:
    """Read the model, open the data, score the model as it is.

    Raises:
        HostileFile, TooLarge, ContentMismatch, UnknownArchitecture: the model can't be used.
        DatasetUnavailable, TrainingError: the data can't.
    """
    hooks.progress(Progress("load"))
    # Before the device: a GPU's driver would count against the limit that holds while loading.
    loaded = load_model(spec.model.path, MAX_MODEL_BYTES, spec.model.sha256)
    architecture = recognise(loaded.shapes)
    if (architecture.name, architecture.classes) != (spec.architecture, spec.classes):
        raise UnknownArchitecture(
            f"the model is {architecture.name} with {architecture.classes} classes, "
            f"the job says {spec.architecture} with {spec.classes}",
            hint="inspect the model again",
        )
    return Material(loaded, architecture, *_open_data(spec, loaded, architecture, hooks))


def _open_data(
    spec: TrainSpec, loaded: Loaded, architecture: Architecture, hooks: Hooks
) -> tuple[Dataset, Dataset | None, Scorer | None, float]:
    hooks.progress(Progress("data"))
    tokenizer = tokenizer_for(architecture, spec.tokenizer)
    dataset = datasets.load(spec.data, tokenizer)
    check_inputs(dataset.split("train"), architecture, spec.data.name)
    check_labels(dataset.split("train"), architecture.classes, spec.data.name)
    if spec.preview is None or not has_same_words(architecture, spec.data, spec.preview):
        return dataset, None, None, 0.0
    preview = _open_preview(spec.preview, architecture, tokenizer)
    if preview is None:
        return dataset, None, None, 0.0
    test = preview.split("test")
    before = hooks.clock()
    scale = spec.artifact.apply_scale
    scorer = Scorer(loaded.tensors, architecture, test, scale, hooks.progress)
    return dataset, preview, scorer, hooks.clock() - before


def _open_preview(
    spec: DataSpec, architecture: Architecture, tokenizer: Path | None
) -> Dataset | None:
    """What the score is previewed on; None if the score can't be known: it isn't on this machine,
    or it doesn't fit the model."""
    preview = datasets.load_test(spec, tokenizer)
    if preview is not None:
        try:
            check_inputs(preview.split("test"), architecture, spec.name)
            check_labels(preview.split("test"), architecture.classes, spec.name)
        except TrainingError as error:
            log.warning("no score can be previewed: %s", error)
            return None
    return preview
