"""What the settings ask for, as the plain values that rounds and training work with."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decloud_trainer.errors import SettingsError
from decloud_trainer.files import cache_dir
from decloud_trainer.names import dataset_key
from decloud_trainer.services import program_of
from decloud_trainer.settings import Settings

if TYPE_CHECKING:
    from decloud_trainer.rounds.parts import TrainingPlan
    from decloud_trainer.rounds.policy import Terms
    from decloud_trainer.rounds.spending import Ceilings, ColdStore
    from decloud_trainer.rounds.watchdog import Patience

# The scoring side computes base + scale * gradient.
CONVENTIONS = {"descent-0.1": -0.1, "delta": 1.0}
V1_CONVENTION = "descent-0.1"


def datasets_dir() -> Path:
    """Downloads and decoded data."""
    return cache_dir() / "datasets"


def data_specs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Dataset key -> data spec of the training core, for all that can be trained here."""
    from decloud_trainer.training.data.published import CLASSES

    data_dir = str(datasets_dir())
    paths = {
        dataset_key(name): str(Path(path).expanduser().resolve())
        for name, path in settings.dataset_paths.items()
    }
    return {
        key: {"name": key, "path": paths.get(key), "data_dir": data_dir}
        for key in sorted({*CLASSES, *paths})
    }


def describe_data_folder(path: str) -> str:
    """What a dataset folder holds, in words; DatasetUnavailable if nothing we can read."""
    from decloud_trainer.training.data.datasets import find_format

    found = find_format(Path(path).expanduser())
    return (
        f"{found.format} format, {found.train:,} training and {found.test:,} test samples of "
        f"{found.inputs}, {found.classes} classes"
    )


def terms_of(settings: Settings) -> Terms:
    from decloud_trainer.rounds.policy import Terms
    from decloud_trainer.rounds.prospects import Power

    return Terms(
        datasets=frozenset(settings.datasets),
        min_reward_lamports=settings.min_reward_lamports,
        max_reward_lamports=settings.max_reward_lamports,
        max_concurrent_rounds=settings.max_concurrent_rounds,
        trainable=frozenset(data_specs(settings)),
        trained_on=settings.dataset_mappings,
        submit_only_if_improved=settings.submit_only_if_improved,
        auto_train=settings.auto_train,
        auto_claim=settings.auto_claim,
        expected_training_window_s=settings.expected_training_window,
        floor_lamports=settings.floor_balance_lamports,
        min_profit_lamports=settings.min_profit_lamports,
        max_priority_lamports=settings.max_priority_fee_lamports,
        power=Power(settings.watts, settings.energy_price_lamports),
        patience=patience_of(settings),
    )


def patience_of(settings: Settings) -> Patience:
    from decloud_trainer.rounds.watchdog import Patience

    return Patience(
        losses=settings.max_losses,
        back_off_s=settings.back_off_hours * 3600,
        quiet_s=settings.quiet_hours * 3600,
    )


def ceilings_of(settings: Settings) -> Ceilings:
    from decloud_trainer.rounds.spending import Ceilings

    return Ceilings(
        transaction=settings.max_cost_per_transaction_lamports,
        round=settings.max_cost_per_round_lamports,
        day=settings.max_cost_per_day_lamports,
        floor=settings.floor_balance_lamports,
        cold=cold_of(settings),
    )


def cold_of(settings: Settings) -> ColdStore | None:
    """Where what exceeds the float goes.

    Raises:
        SettingsError: nobody, or only a program, could ever get it back from there.
    """
    from decloud_trainer.chain import v1
    from decloud_trainer.rounds.spending import ColdStore

    if not settings.cold_address or not settings.sweep_above_lamports:
        return None
    if settings.cold_address in map(str, (program_of(settings), v1.TREASURY)):
        raise SettingsError(
            f"cold_address {settings.cold_address} is the network's own",
            hint="set it to the address of a wallet of yours",
        )
    return ColdStore(settings.cold_address, settings.sweep_above_lamports)


def strategy_of(settings: Settings) -> dict[str, Any]:
    """The training strategy as the training core takes it; SettingsError if it can't be."""
    from decloud_trainer.training.strategy import Strategy

    return Strategy(
        optimizer=settings.optimizer,
        schedule=settings.schedule,
        warmup=settings.warmup,
        averaging=settings.averaging,
        label_smoothing=settings.label_smoothing,
        augment=settings.augment,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        validation=settings.validation_split,
        patience=settings.patience,
    ).to_json()


def plan_of(settings: Settings) -> TrainingPlan:
    from decloud_trainer.rounds.parts import TrainingPlan
    from decloud_trainer.training.limits import threads_each

    if settings.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise SettingsError(
            "tensorboard is set, but the package isn't installed",
            hint='pip install "decloud-trainer[track]", or config --set tensorboard=false',
        )
    convention = V1_CONVENTION if settings.convention == "auto" else settings.convention
    return TrainingPlan(
        data=data_specs(settings),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        max_batches=settings.max_batches,
        seed=settings.seed,
        strategy=strategy_of(settings),
        precision=settings.precision,
        checkpoint_every_s=settings.checkpoint_seconds,
        commits=commits_of(settings),
        tensorboard=settings.tensorboard,
        device=settings.device,
        threads=settings.threads or threads_each(settings.max_concurrent_rounds),
        apply_scale=CONVENTIONS[convention],
        dtype=settings.gradient_dtype,
        dataset_cache_bytes=cache_bytes(settings),
        tokenizer=str(Path(settings.tokenizer_path).expanduser().resolve())
        if settings.tokenizer_path
        else None,
    )


def commits_of(settings: Settings) -> dict[str, Any] | None:
    """Which versions of each training go to which chain; None = none.

    Raises:
        SettingsError: the settings don't go together, or the chain can't be one.
    """
    from decloud_trainer.store.opening import open_store
    from decloud_trainer.training.commit_plan import DEFAULT_MESSAGE, CommitPlan

    message = settings.commit_message or DEFAULT_MESSAGE
    plan = CommitPlan(settings.auto_commit, settings.commit_interval or None, message)
    plan.check(has_store=bool(settings.store))
    if not plan.auto_commit:
        return None
    return {"store": open_store(settings.store).where, **plan.to_json()}


def cache_bytes(settings: Settings) -> int:
    """What decoded datasets may take on the disk; 0 = no limit."""
    return int(settings.dataset_cache_gb * 1e9)
