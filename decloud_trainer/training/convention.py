"""What an artefact may carry under the scoring side's convention, batch normalisation included.

A negative scale is a descent step: it is applied to the model's named *parameters*, and the base's
buffers stay. A positive one is added to the whole state_dict, and fails at integer counters; so
they are left out, and float buffers are carried.

Networks with batch normalisation train with each batch's own statistics, and the running ones
are measured anew from training data before an artefact is made (on the packaged digits, resnet18
scores 91 % after 20 batches so, 66 % without measuring, and 53 % with the base's frozen statistics
all along). Where buffers can't be carried, what they would have done is put into the layer's weight
and bias: in evaluation such a layer is one multiplication and one addition per channel, so the
trained network and the base's buffers with other weights are the same function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from decloud_trainer.training.candidates import Shape
from decloud_trainer.training.device import Device
from decloud_trainer.training.networks import Architecture

# Batches that the running statistics are measured from.
MEASURED_BATCHES = 16
# How the keys of float buffers end; batch normalisation's are the only ones.
STATISTICS = (".running_mean", ".running_var")


def carried(architecture: Architecture, apply_scale: float) -> dict[str, Shape]:
    """The tensors that an artefact has to hold, with their shapes."""
    if apply_scale < 0:
        return architecture.parameters()
    state = architecture.empty().state_dict()
    return {key: tuple(value.shape) for key, value in state.items() if value.is_floating_point()}


def has_batchnorm(model: nn.Module) -> bool:
    return any(True for _ in _layers(model))


def measure_statistics(model: nn.Module, batches: Iterable[Tensor], device: Device) -> None:
    """Set the running statistics to the plain mean over these inputs; nothing else changes.

    Dropout and the like are off meanwhile, as they are when the model is scored.
    """
    model.eval()
    layers = [layer for _, layer in _layers(model)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a cumulative mean
        layer.train()
    with torch.inference_mode(), device.precision():
        for inputs in batches:
            model(inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def submittable(
    model: nn.Module,
    trained: Mapping[str, Tensor],
    base: Mapping[str, Tensor],
    keys: Iterable[str],
) -> dict[str, Tensor]:
    """`trained` as the tensors `keys`: what an artefact brings the base to.

    Where `keys` lack the buffers of `model`, its layers' weights and biases make up for the base's.
    """
    state = dict(trained)
    wanted = list(keys)
    for name, layer in _layers(model):
        if f"{name}.running_mean" not in wanted:
            state.update(_folded(name, layer.eps, trained, base))
    return {key: state[key] for key in wanted}


def _layers(model: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, _BatchNorm))


def _folded(
    name: str, eps: float, trained: Mapping[str, Tensor], base: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weight and bias that do with the base's statistics what the trained ones do with theirs.

    (x - m) / s * w + b = (x - m0) / s0 * w' + b', with w' = w * s0 / s, b' = b + (m0 - m) * w / s.
    """

    def part(state: Mapping[str, Tensor], key: str) -> Tensor:
        return state[f"{name}.{key}"].double()

    slope = part(trained, "weight") / (part(trained, "running_var") + eps).sqrt()
    weight = slope * (part(base, "running_var") + eps).sqrt()
    shift = part(base, "running_mean") - part(trained, "running_mean")
    bias = part(trained, "bias") + slope * shift
    return {f"{name}.weight": weight.float(), f"{name}.bias": bias.float()}
