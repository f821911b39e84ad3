"""From the chosen state to the file that is handed in, and to its score."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from decloud_trainer.errors import Diverged
from decloud_trainer.training.artifacts import apply, check_own, difference, serialise
from decloud_trainer.training.candidates import Shapes
from decloud_trainer.training.convention import STATISTICS, submittable
from decloud_trainer.training.results import Preview
from decloud_trainer.training.scoring import Scorer
from decloud_trainer.training.spec import AUTO, ArtifactSpec

log = logging.getLogger(__name__)

# Half of float32's size, the more precise one first; bfloat16 holds larger numbers.
SMALLER = ("float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file's bytes, in what precision its numbers are, and its previewed score if that can be
    known."""

    data: bytes
    dtype: str
    preview: Preview | None


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes artefacts of one base model.

    Attributes:
        model: the network; for the names of its layers alone.
        keys: what an artefact may hold.
        accuracy: of a state, where no preview is possible; None = that can't be known either.
    """

    base: Mapping[str, Tensor]
    model: nn.Module
    keys: Shapes
    convention: ArtifactSpec
    scorer: Scorer | None
    accuracy: Callable[[Mapping[str, Tensor]], float] | None

    def make(self, state: Mapping[str, Tensor]) -> Artifact:
        """The artefact of a network's state, scored.

        With ``auto`` it is the smallest precision that doesn't lose against float32: by the
        preview, else by `accuracy`; where neither can be known it is float32.

        Raises:
            Diverged: a value isn't finite, in the precision asked for.
        """
        wanted = self.convention.dtype
        if wanted != AUTO:
            return self.scored(state, wanted)
        full = self.scored(state, "float32")
        least = self._worth(full)
        if least is None:
            return full
        for dtype in SMALLER:
            try:
                smaller = self.scored(state, dtype)
            except Diverged as error:
                log.info("no artefact in %s: %s", dtype, error)
                continue
            worth = self._worth(smaller)
            if worth is not None and worth >= least:
                return smaller
        return full

    def scored(self, state: Mapping[str, Tensor], dtype: str) -> Artifact:
        data = self.encode(state, dtype)
        return Artifact(data, dtype, self.scorer.preview(data) if self.scorer else None)

    def encode(self, state: Mapping[str, Tensor], dtype: str) -> bytes:
        """The file's bytes.

        Under a convention that applies what it finds by name, parameters that didn't change are
        left out: the base's stay. Where nothing at all has changed, all are there.
        """
        trained = submittable(self.model, state, self.base, self.keys)
        scale = self.convention.apply_scale
        changed = {
            key: value for key, value in trained.items() if not torch.equal(value, self.base[key])
        }
        if scale < 0 and changed:
            trained = changed
        # Statistics are few, and a variance that is rounded below zero would spoil everything.
        exact = [key for key in trained if key.endswith(STATISTICS)]
        return serialise(difference(self.base, trained, scale, dtype, exact))

    def _worth(self, artifact: Artifact) -> float | None:
        if artifact.preview is not None:
            return artifact.preview.after
        if self.accuracy is None:
            return None
        gradient = check_own(artifact.data, self.keys)
        return self.accuracy(apply(self.base, gradient, self.convention.apply_scale))
