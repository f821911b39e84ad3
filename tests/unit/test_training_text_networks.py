"""The networks for tables and texts: recognised exactly, near misses named, computed as stated."""

from __future__ import annotations

import dataclasses
import math
import sys

import pytest
import torch
import transformers

from decloud_trainer.errors import UnknownArchitecture
from decloud_trainer.training.candidates import Shape
from decloud_trainer.training.classifier_task import network_inputs
from decloud_trainer.training.convention import carried
from decloud_trainer.training.encoders import EncoderSizes
from decloud_trainer.training.networks import Architecture, recognise

BERT = EncoderSizes(vocabulary=50, positions=16, width=128, layers=2, inner=96, types=2)
DISTILBERT = dataclasses.replace(BERT, types=0)
# With the numbers that each trains: counted by hand for the mlp and the text_cnn.
NETWORKS = {
    "mlp": (Architecture("mlp", 3, columns=4), 11_523),
    "text_cnn": (Architecture("text_cnn", 4), 3_840_000 + 3 * 100 + 128 * 100 * 12 + 301 * 4),
    "bert": (Architecture("bert", 2, encoder=BERT), None),
    "distilbert": (Architecture("distilbert", 2, encoder=DISTILBERT), None),
}


def published(name: str, classes: int) -> torch.nn.Module:
    """The library's own network, as a round's creator would have made it."""
    if name == "bert":
        return transformers.BertForSequenceClassification(
            transformers.BertConfig(
                vocab_size=50,
                hidden_size=128,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=96,
                max_position_embeddings=16,
                num_labels=classes,
            )
        )
    return transformers.DistilBertForSequenceClassification(
        transformers.DistilBertConfig(
            vocab_size=50,
            dim=128,
            n_layers=2,
            n_heads=2,
            hidden_dim=96,
            max_position_embeddings=16,
            num_labels=classes,
        )
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_each_is_recognised_with_its_sizes_and_classes(name: str) -> None:
    """Columns and a transformer's sizes are told from the shapes, classes from the head."""
    architecture, numbers = NETWORKS[name]
    assert recognise(architecture.shapes()) == architecture
    wide = dataclasses.replace(architecture, classes=77)
    assert recognise(wide.shapes()).classes == 77
    if numbers is not None:
        assert sum(math.prod(shape) for shape in architecture.parameters().values()) == numbers


@pytest.mark.parametrize("name", NETWORKS)
def test_examples_are_what_the_network_takes(name: str) -> None:
    """Made-up inputs of the right kind give one row of logits each, the same every time."""
    architecture, _ = NETWORKS[name]
    example = architecture.example(3)
    assert torch.equal(example, architecture.example(3))
    assert architecture.modality == ("tabular" if name == "mlp" else "text")
    state = {
        key: torch.zeros(shape, dtype=torch.long if key.endswith("tracked") else torch.float32)
        for key, shape in architecture.shapes().items()
    }
    assert architecture.with_weights(state)(example).shape == (3, architecture.classes)
    image = Architecture("simple_cnn", 10)
    assert (image.modality, image.example(2).shape) == ("image", (2, 3, 32, 32))


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_transformers_compute_what_the_library_computes(name: str) -> None:
    """Weights of the library's own network give its logits, padding masked, and can be trained."""
    torch.manual_seed(0)
    original = published(name, 3).eval()
    architecture = recognise({key: tuple(v.shape) for key, v in original.state_dict().items()})
    ours = architecture.with_weights(original.state_dict()).eval()
    ids = architecture.example(4)
    ids[:, 9:] = 0
    expected = original(input_ids=ids, attention_mask=(ids != 0).long()).logits
    assert torch.equal(ours(ids), expected)
    ours.train()(ids).sum().backward()
    assert ours.classifier.weight.grad is not None


def test_mlp_computes_what_the_contract_says() -> None:
    """Three times linear, batch normalisation and relu, then linear."""
    torch.manual_seed(0)
    model = NETWORKS["mlp"][0].empty().to_empty(device="cpu")
    for value in model.state_dict().values():
        value.copy_(torch.rand(value.shape) + 0.5 if value.is_floating_point() else value * 0)
    state = model.eval().state_dict()
    x = torch.randn(5, 4)
    expected = x
    for linear, norm in ((0, 1), (4, 5), (8, 9)):
        w, b = state[f"model.{linear}.weight"], state[f"model.{linear}.bias"]
        part = {key: state[f"model.{norm}.{key}"] for key in ("weight", "bias")}
        mean, var = state[f"model.{norm}.running_mean"], state[f"model.{norm}.running_var"]
        expected = (expected @ w.T + b - mean) / (var + 1e-5).sqrt()
        expected = (expected * part["weight"] + part["bias"]).relu()
    expected = expected @ state["model.12.weight"].T + state["model.12.bias"]
    assert torch.allclose(model(x), expected, rtol=1e-4)


def test_text_cnn_takes_the_strongest_place_of_each_filter() -> None:
    """A text's logits don't depend on where in it the telling words stand."""
    torch.manual_seed(0)
    architecture = NETWORKS["text_cnn"][0]
    state = {key: torch.randn(shape) for key, shape in architecture.shapes().items()}
    state["embedding.weight"][0] = 0
    model = architecture.with_weights(state).eval()
    early, late = torch.zeros(1, 40, dtype=torch.long), torch.zeros(1, 40, dtype=torch.long)
    early[0, 10:15] = late[0, 20:25] = torch.tensor([5, 6, 7, 8, 9])
    assert torch.allclose(model(early), model(late), rtol=1e-3, atol=1e-2)
    assert not torch.allclose(model(early), model(torch.zeros_like(early)), atol=1)


def test_batch_normalisation_in_one_dimension_follows_both_conventions() -> None:
    """A descent carries parameters alone, an addition the running statistics, too; no counters."""
    mlp = NETWORKS["mlp"][0]
    descent, addition = carried(mlp, -0.1), carried(mlp, 1.0)
    assert set(addition) - set(descent) == {
        f"model.{norm}.running_{what}" for norm in (1, 5, 9) for what in ("mean", "var")
    }
    assert not any(key.endswith("num_batches_tracked") for key in addition)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("mlp", {"model.0.weight": (128,)}, r"resembles mlp, but model.0.weight .* \(128,\)"),
        ("mlp", {"model.0.weight": (64, 4)}, "model.0.weight has the shape"),
        ("mlp", {"model.5.running_var": None}, "model.5.running_var .* is missing"),
        ("mlp", {"model.13.weight": (3, 3)}, "'model.13.weight' is too much"),
        ("mlp", {"model.12.weight": (1, 32), "model.12.bias": (1,)}, "has 1 classes"),
        ("text_cnn", {"embedding.weight": (20_000, 128)}, "embedding.weight has the shape"),
        ("text_cnn", {"convs.2.weight": (100, 128, 6)}, "convs.2.weight has the shape"),
        ("text_cnn", {"convs.0.weight": None}, "convs.0.weight .* is missing"),
        ("text_cnn", {"fc.bias": (5,)}, "fc.bias has the shape"),
        ("bert", {"bert.pooler.dense.weight": None}, "bert.pooler.dense.weight .* is missing"),
        ("bert", {"bert.encoder.layer.5.output.dense.bias": (128,)}, "resembles bert, but"),
        ("bert", {"bert.embeddings.word_embeddings.weight": (50, 100)}, "at a width of 100"),
        ("bert", {"bert.embeddings.token_type_embeddings.weight": None}, "token_type.* is missing"),
        ("distilbert", {"distilbert.embeddings.position_embeddings.weight": (4, 128)}, "of 4 is"),
        ("distilbert", {"pre_classifier.weight": (128, 64)}, "pre_classifier.weight has the shape"),
        ("distilbert", {"distilbert.transformer.layer.0.ffn.lin1.weight": (9,)}, "lin1.weight has"),
    ],
)
def test_near_misses_are_refused_by_their_difference(
    name: str, change: dict[str, Shape | None], words: str
) -> None:
    """One key or shape off is another network, and the message says which."""
    found = {**NETWORKS[name][0].shapes(), **change}
    with pytest.raises(UnknownArchitecture, match=words):
        recognise({key: shape for key, shape in found.items() if shape is not None})


def test_without_transformers_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named, and the networks of texts that don't need it still work."""
    shapes = NETWORKS["bert"][0].shapes()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        UnknownArchitecture, match=r"bert classifier, which needs .*transformers"
    ) as e:
        recognise(shapes)
    assert "decloud-trainer[text]" in e.value.hint
    assert recognise(NETWORKS["text_cnn"][0].shapes()).name == "text_cnn"


@pytest.mark.parametrize("name", ["text_cnn", "bert", "distilbert"])
def test_padding_that_is_cut_off_changes_nothing(name: str) -> None:
    """A batch is as long as its longest text and a little more; the logits stay as they were."""
    torch.manual_seed(0)
    architecture, _ = NETWORKS[name]
    state = {key: torch.randn(shape) for key, shape in architecture.shapes().items()}
    model = architecture.with_weights(state).eval()
    ids = torch.zeros(3, 16 if architecture.encoder else 256, dtype=torch.int32)
    ids[0, :7], ids[1, :2], ids[2, 0] = 9, 3, 1
    short = network_inputs(ids, "text", torch.contiguous_format)
    assert short.shape == (3, 12)
    assert torch.allclose(model(short), model(ids.long()), rtol=1e-4, atol=1e-3)
    assert network_inputs(ids + 1, "text", torch.contiguous_format).shape == ids.shape
