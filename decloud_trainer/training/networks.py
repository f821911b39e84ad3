"""Architectures, recognised strictly from a state_dict's keys and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional

from decloud_trainer.errors import UnknownArchitecture
from decloud_trainer.training.candidates import HEADS, likeliest
from decloud_trainer.training.spec import ARCHITECTURES, MAX_CLASSES

Shape = tuple[int, ...]
SIDE = 32  # of the images that every round's network gets, in pixels


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


class MediumCNN(nn.Module):
    """Four convolutions with batch normalisation, and a wide classifier.

    Input (N, 3, 32, 32) float32, output (N, classes) logits. The positions in both sequences are
    the keys of the model files.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 64), (64, 128), (128, 256), (256, 512)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.MaxPool2d(2) if outputs < 512 else nn.AdaptiveAvgPool2d(4),
            ]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(512 * 4 * 4, 1024),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(1024, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # (N, 512, 4, 4)
        return self.classifier(x.flatten(1))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A known network and the width of its head."""

    name: str
    classes: int

    def empty(self) -> nn.Module:
        """The network without weights, on torch's ``meta`` device; in training mode."""
        with torch.device("meta"):
            if self.name == "simple_cnn":
                return SimpleCNN(self.classes)
            if self.name == "medium_cnn":
                return MediumCNN(self.classes)
            # Imported here: it takes a second, and the networks above need none of it.
            from torchvision import models

            size = {"image_size": SIDE} if self.name.startswith("vit") else {}
            build = getattr(models, self.name)
            return build(num_classes=self.classes, **size)  # type: ignore[no-any-return]

    def shapes(self) -> dict[str, Shape]:
        return {key: tuple(value.shape) for key, value in self.empty().state_dict().items()}

    def parameters(self) -> dict[str, Shape]:
        """The trained part of `shapes`: without buffers and counters."""
        return {key: tuple(value.shape) for key, value in self.empty().named_parameters()}

    def with_weights(self, state: Mapping[str, Tensor]) -> nn.Module:
        """The network holding copies of `state`'s tensors, on the CPU."""
        model = self.empty()
        copies = {key: value.detach().clone() for key, value in state.items()}
        model.load_state_dict(copies, strict=True, assign=True)
        return model


def recognise(shapes: Mapping[str, Shape]) -> Architecture:
    """The network whose state_dict has exactly these keys and shapes.

    Raises:
        UnknownArchitecture: none has; the message names the first difference to the network that
            it resembles most.
    """
    name = likeliest(shapes)
    if name is None:
        _refuse(f"its keys ({_some(shapes)}) are like none's")
    head = shapes.get(HEADS[name], ())
    _check_image_size(name, shapes)
    classes = head[0] if len(head) == 2 else 10
    if not 2 <= classes <= MAX_CLASSES:
        _refuse(
            f"its {HEADS[name]} {head} has {classes} classes (it resembles {name}), "
            f"allowed are 2 to {MAX_CLASSES}"
        )
    candidate = Architecture(name, classes)
    difference = _first_difference(candidate.shapes(), shapes)
    if difference:
        _refuse(f"it resembles {name}, but {difference}")
    return candidate


def _check_image_size(name: str, shapes: Mapping[str, Shape]) -> None:
    """A vision transformer takes images of one size only: that of its position embedding."""
    embedding = shapes.get("encoder.pos_embedding", ())
    if not name.startswith("vit") or len(embedding) != 3:
        return
    patch = int(name.rpartition("_")[2])
    side = round(max(embedding[1] - 1, 0) ** 0.5) * patch
    if side != SIDE:
        _refuse(
            f"it is {name} for images of {side}x{side} (encoder.pos_embedding {embedding}); "
            f"rounds have images of {SIDE}x{SIDE}, which it can't take"
        )


def _refuse(reason: str) -> NoReturn:
    raise UnknownArchitecture(
        f"the model is no architecture that this version trains: {reason}",
        hint=f"known for 3x{SIDE}x{SIDE} images and 2 to {MAX_CLASSES} classes are "
        f"{', '.join(ARCHITECTURES)}; skip this round",
    )


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
