"""BERT and DistilBERT classifiers of texts, built from their sizes alone.

Needs the package `transformers` (the extra ``[text]``). Nothing is ever downloaded and no code of
a model's author is run: the library's own classes are made from a configuration that is told from
the shapes in the model file.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from decloud_trainer.errors import UnknownArchitecture
from decloud_trainer.training.candidates import Shapes
from decloud_trainer.training.data.tokens import PADDING

NAMES = ("distilbert", "bert")
# Attention heads by width. A file doesn't tell them, and another number computes something else: so
# only widths whose published models agree are known: BERT's own, MiniLM's (384), TinyBERT's (312).
HEADS = {128: 2, 256: 4, 312: 12, 384: 12, 512: 8, 768: 12, 1024: 16}
# Of published models: 24 layers, 1,024 wide, a multilingual vocabulary of 120,000 and more.
MAX_LAYERS = 48
MAX_INNER = 16_384
MAX_VOCABULARY = 1_000_000
MAX_POSITIONS = 4096
MIN_POSITIONS = 8


@dataclass(frozen=True, slots=True)
class EncoderSizes:
    """A transformer's sizes.

    Attributes:
        vocabulary, positions: how many tokens there are, and how many a text may have.
        width, layers, inner: of the vectors, of the stack, and of the layers between.
        types: kinds of segments; 0 for DistilBERT, which has none.
    """

    vocabulary: int
    positions: int
    width: int
    layers: int
    inner: int
    types: int = 0

    @property
    def heads(self) -> int:
        return HEADS[self.width]


def sizes_in(name: str, shapes: Shapes) -> EncoderSizes:
    """The sizes that a model file's shapes tell.

    Raises:
        ValueError: a table that tells one is missing, or its size can't be.
    """
    words, width = _table(shapes, f"{name}.embeddings.word_embeddings.weight")
    positions, _ = _table(shapes, f"{name}.embeddings.position_embeddings.weight")
    if name == "bert":
        types, _ = _table(shapes, "bert.embeddings.token_type_embeddings.weight")
        stack, inner = "bert.encoder.layer.", "intermediate.dense.weight"
    else:
        types, stack, inner = 0, "distilbert.transformer.layer.", "ffn.lin1.weight"
    layers = len({key[len(stack) :].partition(".")[0] for key in shapes if key.startswith(stack)})
    between, _ = _table(shapes, f"{stack}0.{inner}")
    if width not in HEADS:
        raise ValueError(f"how many heads it has at a width of {width} can't be told")
    for what, found, low, high in (
        ("vocabulary", words, 2, MAX_VOCABULARY),
        ("positions", positions, MIN_POSITIONS, MAX_POSITIONS),
        ("layers", layers, 1, MAX_LAYERS),
        ("inner width", between, 1, MAX_INNER),
        ("segment types", types, 0, 16),
    ):
        if not low <= found <= high:
            raise ValueError(f"its {what} of {found} is not in {low} to {high}")
    return EncoderSizes(words, positions, width, layers, between, types)


def _table(shapes: Shapes, key: str) -> tuple[int, int]:
    shape = shapes.get(key)
    if shape is None:
        raise ValueError(f"{key} is missing")
    if len(shape) != 2:
        raise ValueError(f"{key} has the shape {shape}")
    return shape[0], shape[1]


def build(name: str, sizes: EncoderSizes, classes: int) -> nn.Module:
    """The classifier, on torch's current device; token ids (N, L) in, logits (N, classes) out.

    Raises:
        UnknownArchitecture: `transformers` isn't installed, or doesn't work here.
    """
    library = _transformers(name)
    common = {
        "vocab_size": sizes.vocabulary,
        "max_position_embeddings": sizes.positions,
        "num_labels": classes,
    }
    if name == "bert":
        published = library.BertForSequenceClassification
        config = library.BertConfig(
            hidden_size=sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=sizes.inner,
            type_vocab_size=sizes.types,
            **common,
        )
    else:
        published = library.DistilBertForSequenceClassification
        config = library.DistilBertConfig(
            dim=sizes.width,
            n_layers=sizes.layers,
            n_heads=sizes.heads,
            hidden_dim=sizes.inner,
            **common,
        )
    return _of_ids(published)(config)  # type: ignore[no-any-return]


def _of_ids(published: Any) -> Any:
    """The library's class, called like our other networks: one tensor in, one out.

    Its tables of positions and segments are no part of a model file: they are computed, so that a
    network made on torch's meta device lacks nothing once it has its weights.
    """

    class OfIds(published):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for name, module in list(self.named_modules()):
                if name.endswith(".embeddings"):
                    for buffer in [key for key, _ in module.named_buffers(recurse=False)]:
                        delattr(module, buffer)

        def forward(self, ids: Tensor) -> Tensor:
            # Texts are cut to a length that nearly all models take; smaller ones cut once more.
            ids = ids[:, : self.config.max_position_embeddings]
            given = {"input_ids": ids, "attention_mask": (ids != PADDING).long()}
            if self.config.model_type == "bert":
                places = torch.arange(ids.shape[1], device=ids.device)
                given |= {"position_ids": places[None], "token_type_ids": torch.zeros_like(ids)}
            return super().forward(**given).logits  # type: ignore[no-any-return]

    return OfIds


def _transformers(name: str) -> Any:
    try:
        return importlib.import_module("transformers")
    # RuntimeError: one made for another torch fails so.
    except (ImportError, RuntimeError) as error:
        raise UnknownArchitecture(
            f"the model is a {name} classifier, which needs the package transformers: {error}",
            hint="pip install 'decloud-trainer[text]', or skip this round",
        ) from error
