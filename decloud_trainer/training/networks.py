"""Architectures, recognised strictly from a state_dict's keys and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional

from decloud_trainer.errors import UnknownArchitecture
from decloud_trainer.training import encoders
from decloud_trainer.training.candidates import HEADS, Shape, Shapes, likeliest
from decloud_trainer.training.data.samples import SIDE
from decloud_trainer.training.data.tokens import LENGTH, PADDING, VOCABULARY
from decloud_trainer.training.encoders import EncoderSizes
from decloud_trainer.training.spec import ARCHITECTURES, MAX_CLASSES, Modality

MAX_COLUMNS = 65_536  # of a table that an mlp takes


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


class MLP(nn.Module):
    """The network's classifier of table rows: three hidden layers with batch normalisation.

    Input (N, columns) float32, output (N, classes) logits. The positions in the sequence are the
    keys of the model files.
    """

    def __init__(self, columns: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = columns
        for hidden in (128, 64, 32):
            layers += [
                nn.Linear(width, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
                nn.Dropout(0.3),
            ]
            width = hidden
        self.model = nn.Sequential(*layers, nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


class TextCNN(nn.Module):
    """The network's classifier of texts: word vectors, and three widths of convolution over them.

    Input (N, L) token ids below `VOCABULARY`, L is 5 or more; output (N, classes) logits.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 128, padding_idx=PADDING)
        self.convs = nn.ModuleList(nn.Conv1d(128, 100, width) for width in (3, 4, 5))
        self.fc = nn.Linear(300, classes)

    def forward(self, x: Tensor) -> Tensor:
        words = self.embedding(x).transpose(1, 2)  # (N, 128, L)
        found = [functional.relu(conv(words)).amax(dim=2) for conv in self.convs]  # (N, 100) each
        return self.fc(torch.cat(found, dim=1))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A known network and the width of its head.

    Attributes:
        columns: of the table that an mlp takes; 0 for the others.
        encoder: the sizes of a transformer for texts; None for the others.
    """

    name: str
    classes: int
    columns: int = 0
    encoder: EncoderSizes | None = None

    @property
    def modality(self) -> Modality:
        """What an input is: images (N, 3, 32, 32), token ids (N, L) or rows (N, columns)."""
        if self.name == "mlp":
            return "tabular"
        return "text" if self.name == "text_cnn" or self.encoder else "image"

    def example(self, samples: int) -> Tensor:
        """Made-up inputs on the CPU, always the same: for measuring speed and memory."""
        generator = torch.Generator().manual_seed(0)
        if self.modality == "image":
            return torch.rand(samples, 3, SIDE, SIDE, generator=generator) * 2 - 1
        if self.modality == "tabular":
            return torch.randn(samples, self.columns, generator=generator)
        words, length = VOCABULARY, LENGTH
        if self.encoder:
            words, length = self.encoder.vocabulary, min(LENGTH, self.encoder.positions)
        return torch.randint(1, words, (samples, length), generator=generator)

    def empty(self) -> nn.Module:
        """The network without weights, on torch's ``meta`` device; in training mode."""
        with torch.device("meta"):
            if self.name == "simple_cnn":
                return SimpleCNN(self.classes)
            if self.name == "medium_cnn":
                return MediumCNN(self.classes)
            if self.name == "mlp":
                return MLP(self.columns, self.classes)
            if self.name == "text_cnn":
                return TextCNN(self.classes)
            if self.encoder:
                return encoders.build(self.name, self.encoder, self.classes)
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


def recognise(shapes: Shapes) -> Architecture:
    """The network whose state_dict has exactly these keys and shapes.

    Raises:
        UnknownArchitecture: none has; the message names the first difference to the network that
            it resembles most. Or it is a transformer for texts, and `transformers` isn't installed.
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
    candidate = Architecture(name, classes, *_sizes(name, shapes))
    difference = _first_difference(candidate.shapes(), shapes)
    if difference:
        _refuse(f"it resembles {name}, but {difference}")
    return candidate


def _sizes(name: str, shapes: Shapes) -> tuple[int, EncoderSizes | None]:
    """What the network's name leaves open: (columns, encoder)."""
    if name == "mlp":
        first = shapes.get("model.0.weight", ())
        if len(first) != 2 or not 1 <= first[1] <= MAX_COLUMNS:
            _refuse(f"it resembles mlp, but model.0.weight has the shape {first}")
        return first[1], None
    if name in encoders.NAMES:
        try:
            return 0, encoders.sizes_in(name, shapes)
        except ValueError as error:
            _refuse(f"it resembles {name}, but {error}")
    return 0, None


def _check_image_size(name: str, shapes: Shapes) -> None:
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
        hint=f"known are, with 2 to {MAX_CLASSES} classes and images of {SIDE}x{SIDE}: "
        f"{', '.join(ARCHITECTURES)}; skip this round",
    )


def _first_difference(expected: Shapes, found: Shapes) -> str:
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
