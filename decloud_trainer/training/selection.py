"""Which state of a run is handed in: judged on a part of the training data that is held out.

The test split takes no part in this; it is for the preview alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from decloud_trainer.errors import CorruptionError
from decloud_trainer.training.checkpoint import Checkpoint
from decloud_trainer.training.classifier_task import ClassifierTask, network_inputs
from decloud_trainer.training.convention import MEASURED_BATCHES, has_batchnorm, measure_statistics
from decloud_trainer.training.data.samples import Samples
from decloud_trainer.training.device import Device
from decloud_trainer.training.evaluate import Verdict, judge
from decloud_trainer.training.holdout import hold_out
from decloud_trainer.training.networks import Architecture
from decloud_trainer.training.state import Training, on_cpu

Batch = TypeVar("Batch")

BATCH_SIZE = 256
# By fewer samples a choice would be luck: then nothing is held out, and the run's record says so.
# Not more, since a table of some hundred rows has no more to give; only who asks for it gets it.
LEAST_HELD_OUT = 50
# Without a part that is held out, so many training samples show whether a state is of any use.
PROBED = 512
# Looking may take this part of the time that training takes. A forward pass is a third of a step.
LOOK_SHARE, FORWARD_SHARE = 0.03, 1 / 3


@dataclass(frozen=True, slots=True)
class Division:
    """How the training data is used, as ascending sample numbers.

    Attributes:
        train: to train on.
        judge: to judge states by; held out of `train` if `is_held_out`, else part of it.
    """

    train: NDArray[np.int64]
    judge: NDArray[np.int64]
    is_held_out: bool


def divide(labels: NDArray[np.int64], fraction: float, seed: int) -> Division:
    """Hold out a part for the choice of the best state, if that is wanted and large enough."""
    train, held = hold_out(labels, fraction, seed)
    if len(held) >= LEAST_HELD_OUT:
        return Division(train, held, True)
    _, probe = hold_out(labels, min(0.5, PROBED / len(labels)), seed)
    everything = np.arange(len(labels), dtype=np.int64)
    return Division(everything, probe if len(probe) else everything, False)


class Judge:
    """Judges weights with a network of its own: the training's isn't touched.

    Batch normalisation's statistics are measured anew for the weights that are judged.
    """

    def __init__(
        self,
        architecture: Architecture,
        base: Mapping[str, Tensor],
        task: ClassifierTask,
        samples: Samples,
        device: Device,
    ) -> None:
        model = architecture.with_weights(base)
        self.model: nn.Module = model.to(device.torch, memory_format=device.layout)  # type: ignore[call-overload]
        self._base = base
        self._base_is_flat: bool | None = None
        self._task = task
        self._device = device
        self._inputs = torch.from_numpy(samples.inputs)
        self._labels = torch.from_numpy(samples.labels)
        self._modality = samples.modality

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Be the network of that state, with the statistics that belong to its weights."""
        self.model.load_state_dict(state, strict=True)
        if has_batchnorm(self.model):
            # Epoch 0 is never trained. The same samples each time: a run can be repeated.
            batches = itertools.islice(self._task.batches(0), MEASURED_BATCHES)
            measure_statistics(self.model, (inputs for inputs, _ in batches), self._device)

    def verdict(self, state: Mapping[str, Tensor] | None = None) -> Verdict:
        """On the samples to judge by; of `state` as it is, or of what was taken."""
        if state is not None:
            self.model.load_state_dict(state, strict=True)
        with self._device.precision():
            return judge(self.model, self._batches())

    def problem(self, verdict: Verdict) -> str:
        """Why what was judged so is of no use; empty when it may be.

        One answer to everything is none where the untrained model has but one, too: then training
        hasn't come far yet, and has spoilt nothing.
        """
        if verdict.is_flat and self._base_is_flat is None:
            self._base_is_flat = self.verdict(self._base).is_flat
        if not math.isfinite(verdict.loss):
            return f"its loss is {verdict.loss}"
        if verdict.is_flat and not self._base_is_flat:
            return "it gives the same answer to everything"
        return ""

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self._labels), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            inputs = network_inputs(self._inputs[part], self._modality, self._device.layout)
            yield inputs.to(self._device.torch), self._labels[part].to(self._device.torch)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A state that may be handed in.

    Attributes:
        step: after so many steps.
        weights: ``latest`` or ``averaged``.
        accuracy, loss: on the samples to judge by.
        state: the network's whole state, on the CPU.
    """

    step: int
    weights: str
    accuracy: float
    loss: float
    state: Mapping[str, Tensor]


class Selection:
    """The best state so far.

    With a part held out the best is the one with the highest accuracy there, with equal ones the
    one with the lower loss. Without one it is the last, averaged if the strategy averages.

    Args:
        wanted: (step, weights) of the state that was chosen before; for replays.
    """

    def __init__(
        self, judge: Judge, is_held_out: bool, wanted: tuple[int, str] | None = None
    ) -> None:
        self._judge = judge
        self.is_held_out = is_held_out
        self._wanted = wanted
        self.best: Candidate | None = None
        self.latest: float | None = None

    def look(self, training: Training[Batch]) -> str:
        """Judge the training's weights and their average; keep what is better than the best.

        Returns:
            Why neither is of any use; empty when one is. `latest` is the better one's accuracy on
            the part held out, None without such a part.
        """
        found = [self._candidate(training, which) for which in self._kinds(training)]
        usable = [candidate for candidate, problem in found if not problem]
        if self._wanted:
            exact = [each for each, _ in found if (each.step, each.weights) == self._wanted]
            self.best = exact[0] if exact else self.best
        elif usable:
            best = max(usable, key=_merit) if self.is_held_out else usable[-1]
            if not (self.is_held_out and self.best and _merit(best) <= _merit(self.best)):
                self.best = best
        accuracies = [each.accuracy for each in usable]
        self.latest = max(accuracies) if accuracies and self.is_held_out else None
        return "" if usable else found[-1][1]

    def snapshot(self) -> Checkpoint:
        if self.best is None:
            return Checkpoint({}, {})
        best = self.best
        document = {
            "step": best.step,
            "weights": best.weights,
            "accuracy": best.accuracy,
            "loss": best.loss,
        }
        return Checkpoint(document, {f"best/{name}": value for name, value in best.state.items()})

    def restore(self, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Raises CorruptionError: it isn't a selection's."""
        self.best = None
        if document:
            try:
                self.best = Candidate(**document, state=dict(tensors))
                self._judge.model.load_state_dict(self.best.state, strict=True)
            except (TypeError, RuntimeError) as error:
                raise CorruptionError(
                    f"the checkpoint's best state is unusable: {error}"
                ) from error

    def _kinds(self, training: Training[Batch]) -> list[str]:
        """The weights that are judged, the preferred ones last."""
        averages = bool(training.average.weights())
        if self.is_held_out or self._wanted:
            return ["latest", "averaged"] if averages else ["latest"]
        return ["averaged"] if averages else ["latest"]

    def _candidate(self, training: Training[Batch], which: str) -> tuple[Candidate, str]:
        state = dict(training.task.model.state_dict())
        if which == "averaged":
            state |= training.average.weights()
        self._judge.take(state)
        verdict = self._judge.verdict()
        kept = {name: on_cpu(value) for name, value in self._judge.model.state_dict().items()}
        candidate = Candidate(training.step, which, verdict.accuracy, verdict.loss, kept)
        return candidate, self._judge.problem(verdict)


def _merit(candidate: Candidate) -> tuple[float, float]:
    return candidate.accuracy, -candidate.loss


def look_every(judged: int, batch_size: int, per_epoch: int, averages: bool) -> int:
    """Steps between looks, so that they take a small part of the time; whole epochs if possible."""
    cost_in_steps = judged * (1 + averages) * FORWARD_SHARE / batch_size
    steps = max(1, math.ceil(cost_in_steps / LOOK_SHARE))
    return -(-steps // per_epoch) * per_epoch
