"""The settings table: what can be set, with its default, its kind, its help and its secrecy.

A setting's name in the file and on the command line is its key (``min_reward``, in SOL); the
field of `Settings` carries the unit (``min_reward_lamports``).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from decloud_trainer.kinds import (
    ADDRESS,
    DATASETS,
    FLAG,
    MAPPINGS,
    PATH,
    PATHS,
    SOL,
    TEXT,
    URL,
    URLS,
    WORDS,
    WS_URL,
    WS_URLS,
    Kind,
    choice,
    choices,
    count,
    count_or,
    number,
)

NETWORKS = ("mainnet-beta", "devnet", "testnet", "localnet")
PIN_SERVICES = ("pinata", "pinata-key", "pinning-api", "kubo")
# Hosted endpoints carry an API key in their path or query.
ENDPOINTS = ("rpc_url", "ws_url", "rpc_fallbacks", "ws_fallbacks")


class Setting(NamedTuple):
    """One row of the settings table: what the file, the options and the README know of it."""

    key: str
    kind: Kind
    help: str
    secret: bool = False
    env: tuple[str, ...] = ()


def _setting(
    default: Any,
    kind: Kind,
    help: str,
    *,
    key: str = "",
    secret: bool = False,
    env: tuple[str, ...] = (),
) -> Any:
    metadata = {"setting": Setting(key, kind, help, secret, env)}
    shown = not secret and kind not in (URL, WS_URL, URLS, WS_URLS)  # those may hold API keys
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata, repr=shown)
    return dataclasses.field(default=default, metadata=metadata, repr=shown)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a user can set; see each field's help. Secrets and URLs, which may hold some,
    don't show in the repr."""

    network: str = _setting("mainnet-beta", choice(*NETWORKS), "Solana cluster")
    rpc_url: str = _setting("", URL, "Solana RPC endpoint; empty: the network's public one")
    ws_url: str = _setting("", WS_URL, "Solana WebSocket endpoint; empty: the network's public one")
    rpc_fallbacks: tuple[str, ...] = _setting(
        (), URLS, "Further RPC endpoints of the same cluster, used when the first one fails"
    )
    ws_fallbacks: tuple[str, ...] = _setting(
        (), WS_URLS, "Further WebSocket endpoints; empty: those of rpc_fallbacks"
    )
    rpc_limit: int = _setting(
        0,
        count(0, 10**6),
        "RPC requests in 10 s to one endpoint; 0: 100 to public endpoints, others unlimited",
    )
    program_id: str = _setting("", TEXT, "On-chain program; empty: the DECLOUD v1 program")
    generation: str = _setting(
        "auto", choice("auto", "v1.0", "v1.1", "v1.2"), "Program generation; auto: detected"
    )
    referrer: str = _setting("", TEXT, "Account that gets half of the platform fee; empty: none")

    private_key: str = _setting(
        "",
        TEXT,
        "Base58 private key",
        secret=True,
        env=("DECLOUD_PRIVATE_KEY", "SOLANA_PRIVATE_KEY"),
    )
    keypair_path: str = _setting(
        "~/.config/solana/id.json",
        PATH,
        "Path of the Solana CLI's keypair file, or of an encrypted wallet",
    )
    passphrase_file: str = _setting(
        "", PATH, "File with the passphrase of an encrypted wallet; empty: none"
    )

    datasets: tuple[str, ...] = _setting((), DATASETS, "Datasets to accept; empty: any trainable")
    min_reward_lamports: int = _setting(0, SOL, "Least reward in SOL", key="min_reward")
    max_reward_lamports: int = _setting(
        0, SOL, "Greatest reward in SOL; 0: unlimited", key="max_reward"
    )
    min_profit_lamports: int = _setting(
        0, SOL, "Least profit in SOL that is expected of a round after all costs", key="min_profit"
    )
    watts: float = _setting(
        0.0, number(0, 100_000), "Watts that training draws; 0: energy isn't counted"
    )
    energy_price_lamports: int = _setting(
        0, SOL, "Price of a kilowatt-hour in SOL", key="energy_price"
    )
    dataset_mappings: dict[str, str] = _setting(
        {}, MAPPINGS, "Requested dataset to the one trained on instead"
    )
    dataset_paths: dict[str, str] = _setting({}, PATHS, "Dataset to the folder that holds it")
    tokenizer_path: str = _setting(
        "", PATH, "Folder of the tokenizer for BERT and DistilBERT models; empty: none"
    )
    dataset_cache_gb: float = _setting(
        10.0, number(0, 100_000), "Disk space for decoded datasets in GB; 0: unlimited"
    )

    epochs: int | str = _setting(
        1, count_or("auto", 1, 10_000), "Training epochs per round; auto: what the time allows"
    )
    batch_size: int = _setting(32, count(1, 65_536), "Training batch size")
    learning_rate: float = _setting(0.001, number(1e-9, 10.0), "Learning rate at its peak")
    max_batches: int = _setting(0, count(0, 10**9), "Most batches per epoch; 0: all")
    device: str = _setting("auto", choice("auto", "cpu", "cuda", "mps"), "Where to train")
    threads: int = _setting(
        0, count(0, 1024), "CPU threads of a training; 0: measured, or equal shares"
    )
    seed: int = _setting(0, count(0, 2**31 - 1), "Seed of the training order")
    precision: str = _setting(
        "auto",
        choice("auto", "float32", "bfloat16", "float16"),
        "Precision of the forward pass; auto: the fastest here, as measured",
    )
    checkpoint_seconds: float = _setting(
        30.0, number(0, 86_400), "Seconds of training that a crash may cost; 0: all of them"
    )
    store: str = _setting(
        "", TEXT, "Chain of versions that trainings commit to: a folder or s3://bucket/prefix"
    )
    auto_commit: bool = _setting(False, FLAG, "Commit each training's state at its end")
    commit_interval: int = _setting(0, count(0, 10**9), "And after every so many batches; 0: no")
    commit_message: str = _setting(
        "", TEXT, "Template of the commits' messages; empty: the usual one"
    )
    tensorboard: bool = _setting(
        False, FLAG, "Write each run's curves for TensorBoard, beside its artefact"
    )
    sandbox: bool = _setting(
        True, FLAG, "Reduce the rights of training children; false only where a GPU fails with it"
    )

    optimizer: str = _setting(
        "adam", choice("adam", "adamw", "sgd"), "Optimiser; sgd has Nesterov momentum"
    )
    schedule: str = _setting(
        "trapezoidal",
        choice("constant", "cosine", "triangular", "trapezoidal"),
        "What becomes of the learning rate during a run",
    )
    warmup: float = _setting(0.05, number(0, 0.5), "Part of a run in which the rate rises")
    averaging: str = _setting(
        "ema", choice("none", "ema"), "Hand in a running mean of the weights, or the last ones"
    )
    label_smoothing: float = _setting(
        0.1, number(0, 0.5), "Part of each label spread over all classes"
    )
    augment: str = _setting(
        "none", choice("none", "light"), "Small changes to images that their classes survive"
    )
    weight_decay: float = _setting(0.0, number(0, 1), "Weight decay")
    clip_norm: float = _setting(
        0.0, number(0, 10**6), "Norm that gradients are scaled down to; 0: never"
    )
    validation_split: float = _setting(
        0.0, number(0, 0.5), "Part of the training data held out to choose the best state by"
    )
    patience: int = _setting(
        0, count(0, 10_000), "Epochs without a better validation that end a run; 0: none do"
    )

    max_cost_per_transaction_lamports: int = _setting(
        10_000_000,
        SOL,
        "Most SOL that one transaction may cost; 0: unlimited",
        key="max_cost_per_transaction",
    )
    max_cost_per_round_lamports: int = _setting(
        10_000_000, SOL, "Most SOL that one round may cost; 0: unlimited", key="max_cost_per_round"
    )
    max_cost_per_day_lamports: int = _setting(
        500_000_000,
        SOL,
        "Most SOL spent on joins in 24 hours; 0: unlimited",
        key="max_cost_per_day",
    )
    floor_balance_lamports: int = _setting(
        1_000_000, SOL, "SOL that joins leave in the wallet for claims", key="floor_balance"
    )
    max_priority_fee_lamports: int = _setting(
        10_000,
        SOL,
        "Most SOL that one transaction may pay to land early, when others do; 0: never",
        key="max_priority_fee",
    )
    cold_address: str = _setting(
        "", ADDRESS, "Where what exceeds sweep_above is sent; empty: nowhere"
    )
    sweep_above_lamports: int = _setting(
        0,
        SOL,
        "SOL that stay in the wallet when the rest goes to cold_address; 0: all",
        key="sweep_above",
    )

    max_concurrent_rounds: int = _setting(1, count(1, 64), "Rounds worked on at once")
    auto_train: bool = _setting(True, FLAG, "Train joined rounds without being told")
    auto_claim: bool = _setting(True, FLAG, "Claim rewards without being told")
    poll_interval: float = _setting(
        5.0, number(0.1, 3600), "Seconds between checks while events are unavailable"
    )
    submit_only_if_improved: bool = _setting(
        False, FLAG, "Never submit what the preview doesn't show to be better"
    )
    expected_training_window: int = _setting(
        3600, count(1, 10**7), "Seconds assumed between training start and submit deadline"
    )

    convention: str = _setting(
        "auto",
        choice("auto", "descent-0.1", "delta"),
        "How gradients are expressed; auto: as the network's validator expects",
    )
    gradient_dtype: str = _setting(
        "auto",
        choice("auto", "float16", "bfloat16", "float32", "float64"),
        "Number format of uploaded gradients; auto: the smallest that scores no worse",
    )
    max_model_mb: int = _setting(512, count(1, 100_000), "Largest model file to download, in MB")

    gateways: tuple[str, ...] = _setting(
        (),
        URLS,
        "IPFS gateways, until their speed is known in this order; empty: the network's usual ones",
    )
    pinata_api_key: str = _setting("", TEXT, "Pinata API key", secret=True, env=("PINATA_API_KEY",))
    pinata_secret_key: str = _setting(
        "", TEXT, "Pinata secret", secret=True, env=("PINATA_SECRET_KEY",)
    )
    pinata_jwt: str = _setting("", TEXT, "Pinata JWT", secret=True, env=("PINATA_JWT",))
    pinata_api_url: str = _setting("", URL, "Pinata's API; empty: the network's")
    pinata_upload_url: str = _setting("", URL, "Pinata's V3 uploads; empty: the network's")
    kubo_api_url: str = _setting("", URL, "RPC API of an IPFS node of your own (Kubo)")
    kubo_token: str = _setting(
        "",
        TEXT,
        "Bearer token of the Kubo node, if it asks for one",
        secret=True,
        env=("KUBO_TOKEN",),
    )
    pinning_api_url: str = _setting("", URL, "A service with the IPFS Pinning Service API")
    pinning_api_token: str = _setting(
        "", TEXT, "Access token of that service", secret=True, env=("PINNING_API_TOKEN",)
    )
    pin_services: tuple[str, ...] = _setting(
        (), choices(*PIN_SERVICES), "Pin services in the order to try; empty: all configured"
    )
    availability_wait: int = _setting(
        60, count(0, 3600), "Seconds to wait for a gateway to have what was pinned; 0: don't ask"
    )
    model_cache_mb: int = _setting(
        2048, count(0, 10**7), "Downloaded models to keep for later rounds, in MB"
    )

    max_losses: int = _setting(
        3,
        count(0, 1000),
        "Losses in a row that are an alarm, and keep whoever they have in common away; 0: never",
    )
    back_off_hours: float = _setting(
        24.0, number(0.01, 10_000), "Hours that a creator, validator or dataset is left alone"
    )
    quiet_hours: float = _setting(
        6.0,
        number(0, 10_000),
        "Hours without any event, or without a join of rounds taken up, before an alarm; 0: never",
    )
    notify_webhook: str = _setting(
        "", URL, "Alarms are posted to this URL as JSON; empty: none", secret=True
    )
    notify_command: tuple[str, ...] = _setting(
        (), WORDS, "Command that gets alarms on its standard input; empty: none"
    )
    notify_desktop: bool = _setting(False, FLAG, "Show alarms as desktop notifications")
    metrics_port: int = _setting(
        0, count(0, 65_535), "Loopback port for Prometheus metrics and health; 0: none"
    )
    log_format: str = _setting("text", choice("text", "json"), "What a line of the log file is")

    preset: str = _setting("", TEXT, "Name of the preset applied last, for the banner")


class Row(NamedTuple):
    field: str
    setting: Setting
    default: Any


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    assert field.default_factory is not dataclasses.MISSING
    return field.default_factory()


TABLE: dict[str, Row] = {
    key: Row(field.name, setting._replace(key=key), _default(field))
    for field in dataclasses.fields(Settings)
    for setting in [field.metadata["setting"]]
    for key in [setting.key or field.name]
}
