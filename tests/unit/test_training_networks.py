"""Architectures are known by keys and shapes, exactly."""

from __future__ import annotations

import pytest
import torch

from decloud_trainer.errors import UnknownArchitecture
from decloud_trainer.training.candidates import Shape
from decloud_trainer.training.networks import Architecture, SimpleCNN, recognise


def shapes(classes: int = 10) -> dict[str, Shape]:
    return Architecture("simple_cnn", classes).shapes()


@pytest.mark.parametrize(("classes", "parameters"), [(10, 586_250), (100, 632_420), (2, 582_146)])
def test_simple_cnn_is_recognised_with_its_class_count(classes: int, parameters: int) -> None:
    """The head's width is read from fc2, and the network has the published size."""
    model = SimpleCNN(classes)
    found = recognise({key: tuple(value.shape) for key, value in model.state_dict().items()})
    assert found == Architecture("simple_cnn", classes)
    assert sum(value.numel() for value in model.parameters()) == parameters


def test_the_network_computes_what_the_contract_says() -> None:
    """Three conv-relu-pool blocks, a flatten channel by channel, two linear layers."""
    torch.manual_seed(0)
    model = SimpleCNN(10).eval()
    state = model.state_dict()
    x = torch.randn(4, 3, 32, 32)
    expected = x
    for name in ("conv1", "conv2", "conv3"):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        expected = torch.conv2d(expected, weight, bias, padding=1).relu()
        expected = torch.max_pool2d(expected, 2)
    expected = (expected.reshape(4, 1024) @ state["fc1.weight"].T + state["fc1.bias"]).relu()
    expected = expected @ state["fc2.weight"].T + state["fc2.bias"]
    with torch.inference_mode():
        assert torch.allclose(model(x), expected, atol=1e-5)
        last = x.to(memory_format=torch.channels_last)
        assert torch.allclose(model(last), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conv1.weight": None}, "conv1.weight .* is missing"),
        ({"conv1.weight": (32, 1, 3, 3)}, r"conv1.weight has the shape \(32, 1, 3, 3\)"),
        ({"fc1.weight": (512, 2048)}, "fc1.weight"),
        ({"fc2.bias": (11,)}, "fc2.bias"),
        ({"fc2.weight": (1, 512), "fc2.bias": (1,)}, "fc2.weight"),
        ({"fc2.weight": (1001, 512), "fc2.bias": (1001,)}, "fc2.weight"),
        ({"fc2.weight": (10, 256)}, "fc2.weight"),
        ({"bn1.running_mean": (32,)}, "'bn1.running_mean' is too much"),
    ],
)
def test_near_misses_are_refused_by_their_first_difference(
    change: dict[str, Shape | None], words: str
) -> None:
    """Anything but the exact network is refused, naming what differs."""
    found = {**shapes(), **change}
    with pytest.raises(UnknownArchitecture, match=words):
        recognise({key: shape for key, shape in found.items() if shape is not None})


def test_a_strangers_words_are_printed_harmlessly() -> None:
    """Keys of an unknown network appear escaped and shortened."""
    with pytest.raises(UnknownArchitecture) as caught:
        recognise({"\x1b[2Jevil" + "x" * 500: (1,)})
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 300
