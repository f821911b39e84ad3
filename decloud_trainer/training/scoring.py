"""The score that an artefact will get, known before it is submitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from decloud_trainer.training.artifacts import apply, check_own
from decloud_trainer.training.classifier_task import network_inputs
from decloud_trainer.training.convention import carried
from decloud_trainer.training.data.samples import Samples
from decloud_trainer.training.evaluate import count_correct, percent
from decloud_trainer.training.networks import Architecture
from decloud_trainer.training.results import Preview, Progress

BATCH_SIZE = 64


def scoring_batches(samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
    """(inputs, labels) in the data's order, in the batches that the scoring side uses."""
    inputs, labels = torch.from_numpy(samples.inputs), torch.from_numpy(samples.labels)
    for start in range(0, len(labels), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        plain = network_inputs(inputs[part], samples.modality, torch.contiguous_format)
        yield plain, labels[part]


class Scorer:
    """Judges stored artefacts of one base model as the scoring side does.

    On the CPU, in float32, plain memory format and batches of 64, whatever device trains: so the
    accuracy is the scoring side's number and not nearly so.
    """

    def __init__(
        self,
        base: Mapping[str, Tensor],
        architecture: Architecture,
        samples: Samples,
        apply_scale: float,
        progress: Callable[[Progress], None],
    ) -> None:
        self._base = base
        self._architecture = architecture
        self._samples = samples
        self._apply_scale = apply_scale
        self._carried = carried(architecture, apply_scale)
        self._progress = progress
        self.before = self._accuracy(base, "baseline")

    def preview(self, artifact: bytes) -> Preview:
        """Load the bytes back, apply them, evaluate; what they don't carry stays the base's.

        Raises:
            HostileFile: the bytes are no usable artefact of this model.
        """
        gradient = check_own(artifact, self._carried)
        applied = apply(self._base, gradient, self._apply_scale)
        return Preview(self.before, self._accuracy(applied, "preview"), len(self._samples))

    def _accuracy(self, state: Mapping[str, Tensor], stage: str) -> float:
        total = -(-len(self._samples) // BATCH_SIZE)

        def each(batch: int) -> None:
            if batch % 50 == 0 or batch == total:
                self._progress(Progress(stage, batch=batch, batches=total))

        model = self._architecture.with_weights(state)
        return percent(*count_correct(model, scoring_batches(self._samples), each))
