"""Which known network a state_dict could be, by a few telling keys; decides nothing by itself.

Building every network to compare with would take a second, so only the likeliest is built. A wrong
guess does no harm: what is guessed is compared exactly afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Mapping[str, Shape]  # by the names of a state_dict

# The weight of each network's last layer: its first dimension is the number of classes.
HEADS = {
    "simple_cnn": "fc2.weight",
    "medium_cnn": "classifier.4.weight",
    "resnet18": "fc.weight",
    "resnet34": "fc.weight",
    "resnet50": "fc.weight",
    "efficientnet_b0": "classifier.1.weight",
    "efficientnet_b1": "classifier.1.weight",
    "efficientnet_b2": "classifier.1.weight",
    "mobilenet_v2": "classifier.1.weight",
    "mobilenet_v3_small": "classifier.3.weight",
    "mobilenet_v3_large": "classifier.3.weight",
    "vgg11": "classifier.6.weight",
    "vgg16": "classifier.6.weight",
    "densenet121": "classifier.weight",
    "vit_b_16": "heads.head.weight",
    "vit_b_32": "heads.head.weight",
    "mlp": "model.12.weight",
    "text_cnn": "fc.weight",
    "distilbert": "classifier.weight",
    "bert": "classifier.weight",
}


def likeliest(shapes: Shapes) -> str | None:
    """The name of the network that these keys resemble most; None when they resemble none."""
    if "layer1.0.conv1.weight" in shapes:
        return _resnet(shapes)
    if "conv_proj.weight" in shapes:
        return "vit_b_32" if shapes["conv_proj.weight"][-1:] == (32,) else "vit_b_16"
    if "features.conv0.weight" in shapes:
        return "densenet121"
    if "features.0.0.weight" in shapes:
        return _mobile(shapes)
    if "features.0.weight" in shapes:
        if "classifier.6.weight" in shapes:
            # The second convolution follows the first at once, or after a pooling layer.
            return "vgg16" if "features.2.weight" in shapes else "vgg11"
        return "medium_cnn"
    return _small(shapes)


def _small(shapes: Shapes) -> str | None:
    """Texts, tables, and the smallest network for images."""
    if "convs.0.weight" in shapes or "embedding.weight" in shapes:
        return "text_cnn"
    if "model.0.weight" in shapes:
        return "mlp"
    if "distilbert.embeddings.word_embeddings.weight" in shapes:
        return "distilbert"
    if "bert.embeddings.word_embeddings.weight" in shapes:
        return "bert"
    return "simple_cnn" if "conv1.weight" in shapes or "fc2.weight" in shapes else None


def _resnet(shapes: Shapes) -> str:
    if "layer1.0.conv3.weight" in shapes:
        return "resnet50"
    return "resnet34" if "layer1.2.conv1.weight" in shapes else "resnet18"


def _mobile(shapes: Shapes) -> str:
    """MobileNets and EfficientNets: the blocks' own names differ, then depth and width."""
    if "features.1.conv.0.0.weight" in shapes:
        return "mobilenet_v2"
    if "features.1.block.0.0.weight" in shapes:
        deep = "features.16.0.weight" in shapes
        return "mobilenet_v3_large" if deep else "mobilenet_v3_small"
    if "features.1.1.block.0.0.weight" not in shapes:
        return "efficientnet_b0"
    wide = shapes.get("features.8.0.weight", ())[:1] == (1408,)
    return "efficientnet_b2" if wide else "efficientnet_b1"
