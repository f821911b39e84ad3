"""The network's larger image networks: recognised exactly, near misses named, memory told."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import pytest
import torch
from torchvision import models

from decloud_trainer.errors import TrainingError, UnknownArchitecture
from decloud_trainer.training import limits, memory
from decloud_trainer.training.candidates import HEADS, Shape
from decloud_trainer.training.device import Device
from decloud_trainer.training.networks import Architecture, MediumCNN, recognise
from decloud_trainer.training.spec import ARCHITECTURES

CPU = Device("cpu", None, 1)
OTHERS = {"mlp", "text_cnn", "distilbert", "bert"}  # for tables and texts: tested elsewhere
IMAGES = [name for name in ARCHITECTURES if name not in OTHERS]
# Trained numbers with ten classes, as published for 1000 less the heads' difference.
PARAMETERS = {
    "simple_cnn": 586_250,
    "medium_cnn": 9_952_778,
    "resnet18": 11_181_642,
    "resnet34": 21_289_802,
    "resnet50": 23_528_522,
    "efficientnet_b0": 4_020_358,
    "efficientnet_b1": 6_525_994,
    "efficientnet_b2": 7_715_084,
    "mobilenet_v2": 2_236_682,
    "mobilenet_v3_small": 1_528_106,
    "mobilenet_v3_large": 4_214_842,
    "vgg11": 128_807_306,
    "vgg16": 134_301_514,
    "densenet121": 6_964_106,
    "vit_b_16": 85_658_890,
    "vit_b_32": 87_426_058,
}


@functools.cache
def built(name: str, **options: int) -> dict[str, Shape]:
    """What torchvision's own network of that name has, without weights."""
    with torch.device("meta"):
        state = getattr(models, name)(**options).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def shapes_of(name: str, classes: int) -> dict[str, Shape]:
    if name in ("simple_cnn", "medium_cnn"):
        return Architecture(name, classes).shapes()
    return built(name, num_classes=classes, **({"image_size": 32} if "vit" in name else {}))


@pytest.mark.parametrize("name", IMAGES)
def test_every_network_is_recognised_with_its_class_count(name: str) -> None:
    """Each is known from torchvision's own keys and shapes, with heads up to 1000 classes."""
    assert set(ARCHITECTURES) == {*PARAMETERS, *OTHERS} == set(HEADS)
    assert recognise(shapes_of(name, 10)) == Architecture(name, 10)
    head = HEADS[name].removesuffix("weight")
    shapes = shapes_of(name, 10)
    wide = {f"{head}weight": (1000, *shapes[f"{head}weight"][1:]), f"{head}bias": (1000,)}
    assert recognise({**shapes, **wide}) == Architecture(name, 1000)
    parameters = Architecture(name, 10).parameters()
    assert sum(math.prod(shape) for shape in parameters.values()) == PARAMETERS[name]


@pytest.mark.parametrize("name", [n for n in IMAGES if "b_" not in n or "net" in n])
def test_every_convolutional_network_takes_the_rounds_images(name: str) -> None:
    """(N, 3, 32, 32) gives (N, classes), on torch's device without arithmetic."""
    logits = Architecture(name, 7).empty()(torch.empty(4, 3, 32, 32, device="meta"))
    assert logits.shape == (4, 7)


def test_medium_cnn_computes_what_the_contract_says() -> None:
    """Four conv-norm-relu blocks, the last pooled to 4x4, then two linear layers."""
    torch.manual_seed(0)
    model = MediumCNN(10).eval()
    state = model.state_dict()
    x = torch.randn(2, 3, 32, 32)
    expected = x
    for conv in (0, 4, 8, 12):
        weight, bias = state[f"features.{conv}.weight"], state[f"features.{conv}.bias"]
        expected = torch.conv2d(expected, weight, bias, padding=1)
        expected = (expected / math.sqrt(1 + 1e-5)).relu()  # statistics of a fresh layer: 0 and 1
        expected = torch.max_pool2d(expected, 2) if conv < 12 else expected
    expected = expected.flatten(1) @ state["classifier.1.weight"].T + state["classifier.1.bias"]
    expected = expected.relu() @ state["classifier.4.weight"].T + state["classifier.4.bias"]
    with torch.inference_mode():
        assert torch.allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("resnet34", {"layer3.5.bn2.bias": None}, r"resembles resnet34, but layer3.5.bn2.bias"),
        ("resnet50", {"layer1.0.conv3.weight": None}, r"resembles resnet34, but layer1.0.conv1.w"),
        ("resnet18", {"layer1.0.bn1.num_batches_tracked": (1,)}, "tracked has the shape"),
        ("resnet18", {"fc.bias": (11,)}, r"fc.bias has the shape \(11,\), expected \(10,\)"),
        ("resnet18", {"fc.weight": (1001, 512)}, "fc.weight .* has 1001 classes"),
        ("resnet18", {"fc.weight": (1, 512), "fc.bias": (1,)}, "has 1 classes"),
        ("resnet18", {"fc.weight": None}, "fc.weight .* is missing"),
        ("resnet18", {"ema.weight": (3,)}, "'ema.weight' is too much"),
        ("resnet18", {"conv1.weight": (64, 3, 3, 3)}, "conv1.weight has the shape"),
        ("efficientnet_b1", {"features.8.0.weight": (1408, 320, 1, 1)}, "efficientnet_b2, but"),
        ("mobilenet_v3_large", {"classifier.0.bias": (1,)}, "mobilenet_v3_large, but classifier"),
        ("vgg11", {"features.18.bias": None}, "resembles vgg11, but features.18.bias"),
        ("densenet121", {"features.norm5.running_var": None}, "norm5.running_var"),
        ("medium_cnn", {"features.0.bias": None}, "resembles medium_cnn, but features.0.bias"),
        ("vit_b_32", {"encoder.pos_embedding": None}, "encoder.pos_embedding .* is missing"),
    ],
)
def test_near_misses_are_refused_by_their_first_difference(
    name: str, change: dict[str, Shape | None], words: str
) -> None:
    """One key or shape off is another network; the message says what it resembles, and why not."""
    found = {**shapes_of(name, 10), **change}
    with pytest.raises(UnknownArchitecture, match=words):
        recognise({key: shape for key, shape in found.items() if shape is not None})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet101", "resembles resnet50, but 'layer3.6.conv1.weight', .* is too much"),
        ("wide_resnet50_2", "resembles resnet50, but layer1.0.conv1.weight has the shape"),
        ("efficientnet_b3", "resembles efficientnet_b1, but features.0.0.weight"),
        ("vgg11_bn", "resembles vgg11, but features.3.weight .* is missing"),
        ("vgg13", "resembles vgg16, but"),
        ("densenet169", "resembles densenet121, but"),
        ("squeezenet1_1", "resembles medium_cnn, but"),
        ("shufflenet_v2_x0_5", "its keys .* are like none's"),
    ],
)
def test_relatives_are_not_taken_for_what_they_are_not(name: str, words: str) -> None:
    """Other networks of the same families are refused, too."""
    with pytest.raises(UnknownArchitecture, match=words) as caught:
        recognise(built(name, num_classes=10))
    assert "resnet18" in caught.value.hint


def test_transformers_for_larger_images_are_refused_with_the_reason() -> None:
    """A published vit takes 224x224 only: no validator resizes, so neither do we."""
    for name in ("vit_b_16", "vit_b_32"):
        with pytest.raises(UnknownArchitecture, match=f"{name} for images of 224x224"):
            recognise(built(name, num_classes=10))


def test_memory_is_estimated_from_weights_and_batch() -> None:
    """Copies of the weights, and activations that grow with the batch size."""
    small, medium = Architecture("simple_cnn", 10), Architecture("medium_cnn", 10)
    one, two, four = (memory.training_bytes(small, size) for size in (100, 200, 400))
    assert four - two == 2 * (two - one) > 0
    weights = 4 * (PARAMETERS["medium_cnn"] - PARAMETERS["simple_cnn"])
    assert memory.training_bytes(medium, 2) - memory.training_bytes(small, 2) > 20 * weights


def test_a_training_that_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names what is needed, for what, and what there is."""
    vgg = Architecture("vgg16", 10)
    monkeypatch.setattr(memory, "machine_bytes", lambda: 4_000_000_000)
    with pytest.raises(TrainingError, match=r"vgg16 .* GB .* times its weights .* has 4\.0 GB"):
        memory.check_fits(vgg, 32, CPU)
    assert memory.check_fits(Architecture("simple_cnn", 10), 32, CPU) < 1_000_000_000
    monkeypatch.setattr(memory, "machine_bytes", lambda: None)
    assert memory.check_fits(vgg, 32, CPU) > 4_000_000_000


def test_a_batch_that_alone_is_too_big_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the weights fit and the batch does not, it is trained on in parts."""
    simple = Architecture("simple_cnn", 10)
    monkeypatch.setattr(memory, "machine_bytes", lambda: 2_000_000_000)
    assert memory.parts_that_fit(simple, 32, CPU) == 1
    parts = memory.parts_that_fit(simple, 65_536, CPU)
    assert parts > 1
    assert memory.training_bytes(simple, 65_536 // parts) <= 2_000_000_000
    assert memory.training_bytes(simple, 2 * 65_536 // parts) > 2_000_000_000
    assert memory.check_fits(simple, 65_536, CPU) <= 2_000_000_000


def test_a_limit_of_the_control_group_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container or service, less than the machine's memory is there."""
    own = next(
        (line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[0] == "0"),
        None,
    )
    if own is None:
        pytest.skip("this system has no control groups of version 2")
    whole = memory.machine_bytes()
    folder = tmp_path / own.strip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text("123456789\n")
    monkeypatch.setattr(limits, "CGROUPS", tmp_path)
    assert memory.machine_bytes() == 123_456_789
    (folder / "memory.max").write_text("max\n")
    assert memory.machine_bytes() is not None
    assert whole is not None
