"""Architectures, recognised strictly from a state_dict's keys and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from decloud_trainer.errors import UnknownArchitecture
from decloud_trainer.training.spec import MAX_CLASSES

Shape = tuple[int, ...]


class SimpleCNN(nn.Module):
    """The network's small image classifier: 586,250 parameters with ten classes.

    Input (N, 3, 32, 32) float32, output (N, classes) logits. Attribute names are the keys of the
    model files, so they can't be chosen.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1)
        self.fc1 = nn.Linear(64 * 4 * 4, 512)
        self.fc2 = nn.Linear(512, classes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = functional.max_pool2d(functional.relu(conv(x)), 2)  # (N, 32|64|64, 16|8|4, 16|8|4)
        x = x.flatten(1)  # (N, 1024), channel by channel, in whatever memory format x is
        x = self.dropout(functional.relu(self.fc1(x)))
        return self.fc2(x)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A known network and the width of its head."""

    name: str
    classes: int

    def empty(self) -> nn.Module:
        """The network without weights, on torch's ``meta`` device."""
        with torch.device("meta"):
            return SimpleCNN(self.classes)

    def shapes(self) -> dict[str, Shape]:
        return {key: tuple(value.shape) for key, value in self.empty().state_dict().items()}

    def with_weights(self, state: Mapping[str, Tensor]) -> nn.Module:
        """The network holding copies of `state`'s tensors, on the CPU."""
        model = self.empty()
        copies = {key: value.detach().clone() for key, value in state.items()}
        model.load_state_dict(copies, strict=True, assign=True)
        return model


def recognise(shapes: Mapping[str, Shape]) -> Architecture:
    """The network whose state_dict has exactly these keys and shapes.

    Raises:
        UnknownArchitecture: none has; the message names the first difference to SimpleCNN.
    """
    head = shapes.get("fc2.weight", ())
    classes = head[0] if len(head) == 2 and 2 <= head[0] <= MAX_CLASSES else 10
    candidate = Architecture("simple_cnn", classes)
    difference = _first_difference(candidate.shapes(), shapes)
    if difference:
        raise UnknownArchitecture(
            f"the model is no architecture that this version trains: {difference}",
            hint="only simple_cnn (3x32x32 images, 2 to 1000 classes) is known; skip this round",
        )
    return candidate


def _first_difference(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> str:
    for key, shape in expected.items():
        if key not in found:
            return f"{key} {shape} is missing (found {_some(found)})"
        if found[key] != shape:
            return f"{key} has the shape {found[key]}, expected {shape}"
    extra = [key for key in found if key not in expected]
    return f"{_some(extra)} is too much" if extra else ""


def _some(keys: Iterable[str]) -> str:
    """The first keys, printable: they are a stranger's words."""
    names = list(keys)
    shown = ", ".join(ascii(name[:60]) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "no tensor"
