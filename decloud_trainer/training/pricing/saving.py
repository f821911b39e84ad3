"""A pricer's snapshots as versions of a chain."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Coroutine, Mapping
from typing import Any, overload

import torch
from torch import Tensor, nn

from decloud_trainer.errors import CorruptionError, SettingsError
from decloud_trainer.store.aio import AsyncStore
from decloud_trainer.store.chain import Store
from decloud_trainer.store.version import Version
from decloud_trainer.training.checkpoint import Checkpoint, decode, pieces
from decloud_trainer.training.pricing.config import BlackScholesConfig, GbmCVNNPricerConfig
from decloud_trainer.training.pricing.network import NetworkSpec, PricerNetwork
from decloud_trainer.training.pricing.options import checked_bounds


@overload
def commit_snapshot(store: Store, snapshot: GbmCVNNPricerConfig, message: str) -> Version: ...
@overload
def commit_snapshot(
    store: AsyncStore, snapshot: GbmCVNNPricerConfig, message: str
) -> Coroutine[Any, Any, Version]: ...
def commit_snapshot(
    store: Store | AsyncStore, snapshot: GbmCVNNPricerConfig, message: str
) -> Version | Coroutine[Any, Any, Version]:
    """Append a snapshot, which must stay as it is until that is done; to be awaited where the
    store's calls are. Raises as `Store.commit`."""
    metrics = {"step": float(snapshot.global_step)}
    return store.commit(pieces(checkpoint_of(snapshot)), message, metrics=metrics)


@overload
def load_snapshot_from_checkpoint(
    store: Store, version: Version, model_template: nn.Module, config_template: GbmCVNNPricerConfig
) -> GbmCVNNPricerConfig: ...
@overload
def load_snapshot_from_checkpoint(
    store: AsyncStore,
    version: Version,
    model_template: nn.Module,
    config_template: GbmCVNNPricerConfig,
) -> Coroutine[Any, Any, GbmCVNNPricerConfig]: ...
def load_snapshot_from_checkpoint(
    store: Store | AsyncStore,
    version: Version,
    model_template: nn.Module,
    config_template: GbmCVNNPricerConfig,
) -> GbmCVNNPricerConfig | Coroutine[Any, Any, GbmCVNNPricerConfig]:
    """The snapshot in a version; to be awaited where the store's calls are.

    Args:
        model_template: a network of the same shape; its weights don't matter and stay.
        config_template: made with the same simulation and bounds.

    Raises:
        CorruptionError: the version is damaged, or no pricer's.
        SettingsError: a template is of another kind than the version.
    """

    def load(data: bytes) -> GbmCVNNPricerConfig:
        return _filled(decode(data), model_template, config_template)

    if isinstance(store, AsyncStore):
        awaited = store

        async def loaded() -> GbmCVNNPricerConfig:
            return load(await awaited.read(version))

        return loaded()
    return load(store.read(version))


def checkpoint_of(
    snapshot: GbmCVNNPricerConfig, weights: Mapping[str, Tensor] | None = None
) -> Checkpoint:
    """A snapshot as the core's checkpoint.

    Args:
        weights: copies of the network's, where that one is trained on meanwhile.
    """
    model = snapshot.cvnn
    held = model.state_dict() if weights is None else weights
    tensors = {f"model/{name}": value for name, value in held.items()}
    moments = snapshot.optimizer_state
    tensors |= {f"optimizer/{name}": value for name, value in (moments or {}).items()}
    if snapshot.torch_cpu_rng_state is not None:
        tensors["random/cpu"] = bytes_tensor(snapshot.torch_cpu_rng_state)
    for number, state in enumerate(snapshot.torch_cuda_rng_states):
        tensors[f"random/gpu{number}"] = bytes_tensor(state)
    document = {
        "pricer": snapshot.cfg.to_json(),
        "domain_bounds": {name: list(ends) for name, ends in snapshot.domain_bounds.items()},
        "step": snapshot.global_step,
        "sobol_skip": snapshot.sobol_skip,
        "has_optimizer": moments is not None,
    }
    if isinstance(model, PricerNetwork):
        document["network"] = {**model.spec.to_json(), "price": model.price}
    return Checkpoint(document, tensors)


def snapshot_of(checkpoint: Checkpoint) -> GbmCVNNPricerConfig:
    """The snapshot in a checkpoint whose network is a `PricerNetwork`, without templates.

    Raises:
        CorruptionError: it is no pricer's, or its network is another one.
    """
    document = checkpoint.document
    try:
        cfg = BlackScholesConfig.from_json(document["pricer"])
        network = dict(document["network"])
        price = float(network.pop("price"))
        spec = NetworkSpec.from_json(network)
        bounds = document["domain_bounds"]
    except (KeyError, TypeError, ValueError, SettingsError) as error:
        raise CorruptionError(
            f"that version holds no pricer that can be rebuilt from itself ({error})",
            hint="load it from Python with the network as a template",
        ) from error
    model = PricerNetwork(spec, cfg.sim_params.network_size, price, seed=0)
    model.to(cfg.sim_params.torch_dtype)
    return _filled(checkpoint, model, GbmCVNNPricerConfig(cfg, bounds, model))


# A typical price, before anything is known: a tenth of a typical strike.
PRICE_PER_STRIKE = 0.1


def config_from_json(data: object) -> GbmCVNNPricerConfig:
    """A new pricer from plain values: ``simulation``, ``network``, ``domain_bounds``,
    ``simulate_log_return`` and ``normalize_forwards``, each optional.

    Raises:
        SettingsError: something unknown, or out of its range.
    """
    known = ("simulation", "network", "domain_bounds", "simulate_log_return", "normalize_forwards")
    if not isinstance(data, dict) or set(data) - set(known):
        raise SettingsError(
            "a pricer's configuration is a JSON object", hint=f"its parts are {', '.join(known)}"
        )
    process = {name: data[name] for name in known[3:] if name in data}
    cfg = BlackScholesConfig.from_json({"sim_params": data.get("simulation", {}), **process})
    bounds = checked_bounds(data.get("domain_bounds", {}))
    price = PRICE_PER_STRIKE * sum(bounds["strike"]) / 2
    params = cfg.sim_params
    network = NetworkSpec.from_json(data.get("network", {}))
    model = PricerNetwork(network, params.network_size, price, params.mc_seed)
    return GbmCVNNPricerConfig(cfg, bounds, model)


def bytes_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _filled(
    checkpoint: Checkpoint, model: nn.Module, template: GbmCVNNPricerConfig
) -> GbmCVNNPricerConfig:
    document = checkpoint.document
    missing = {"pricer", "domain_bounds", "step", "sobol_skip", "has_optimizer"} - set(document)
    if missing:
        raise CorruptionError(
            f"that version holds no pricer (it lacks {', '.join(sorted(missing))})",
            hint="`decloud-trainer store list` shows what the chain's versions are",
        )
    made = template.cfg.to_json(), {k: list(v) for k, v in template.domain_bounds.items()}
    if made != (document["pricer"], document["domain_bounds"]):
        raise SettingsError(
            "the version's simulation or bounds aren't the template's",
            hint="make the templates with the configuration that the pricer was made with",
        )
    weights = checkpoint.part("model")
    filled = copy.deepcopy(model).to(template.cfg.sim_params.torch_dtype)
    try:
        filled.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise SettingsError(f"the version's network isn't the template's: {error}") from error
    random = checkpoint.part("random")
    cpu = random.pop("cpu", None)
    gpus = sorted(random, key=lambda name: (len(name), name))
    return dataclasses.replace(
        template,
        cvnn=filled,
        optimizer_state=checkpoint.part("optimizer") if document["has_optimizer"] else None,
        global_step=document["step"],
        sobol_skip=document["sobol_skip"],
        torch_cpu_rng_state=None if cpu is None else bytes(cpu.numpy()),
        torch_cuda_rng_states=tuple(bytes(random[name].numpy()) for name in gpus),
    )
