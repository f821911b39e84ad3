"""Settings and the file that holds them, ``~/.decloud-trainer/config.json``.

A setting's name in the file and on the command line is its key (``min_reward``, in SOL); the
field of `Settings` carries the unit (``min_reward_lamports``). Every value is parsed by its
setting's kind, from JSON and from the command line alike, so a file and ``--set`` accept the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from decloud_trainer.errors import SettingsError
from decloud_trainer.files import home_dir, make_private_dir, sync_dir, write_atomic
from decloud_trainer.kinds import (
    ADDRESS,
    DATASETS,
    FLAG,
    MAPPINGS,
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
from decloud_trainer.masking import masked
from decloud_trainer.migration import KEPT, Migrated, migrated
from decloud_trainer.names import dataset_key

MAX_CONFIG_BYTES = 1 << 20

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
        "~/.config/solana/id.json", TEXT, "Path of the Solana CLI's keypair file"
    )
    passphrase_file: str = _setting(
        "", TEXT, "File with the passphrase of an encrypted wallet; empty: none"
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
        "", TEXT, "Folder of the tokenizer for BERT and DistilBERT models; empty: none"
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


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the layer that each came from.

    Attributes:
        sources: key -> ``default``, ``file``, ``preset NAME``, ``environment NAME``, ``option``.
        unknown: keys of the file that this version doesn't know; kept when it is rewritten.
    """

    settings: Settings
    sources: Mapping[str, str]
    unknown: tuple[str, ...]
    path: Path


def config_path() -> Path:
    return home_dir() / "config.json"


def row_of(key: str) -> Row:
    """The settings row of a key, or a SettingsError that offers the nearest names."""
    name = key.strip().lower().replace("-", "_")
    if name in TABLE:
        return TABLE[name]
    near = difflib.get_close_matches(name, TABLE, n=3)
    raise SettingsError(
        f"there is no setting {key!r}",
        hint=f"did you mean {' or '.join(near)}?"
        if near
        else "`decloud-trainer config --show` lists all settings",
    )


def parse(key: str, value: Any, where: str) -> Any:
    """The field's value for what a file, preset or option gives; `where` goes into the error."""
    row = row_of(key)
    try:
        return row.setting.kind.parse(value)
    except ValueError as error:
        hidden = row.setting.secret or row.setting.key in ENDPOINTS
        shown = "the value" if hidden else repr(value)
        raise SettingsError(
            f"{where}: {row.setting.key} {error} (got {shown})",
            hint=f"{row.setting.key}: {row.setting.help}",
        ) from None


def read_file(path: Path) -> dict[str, Any]:
    """The file's JSON object; empty when there is no file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
    hint = f"mend it, or move it away and run `decloud-trainer setup` ({path})"
    if len(raw) > MAX_CONFIG_BYTES:
        raise SettingsError(f"{path} is larger than a configuration can be", hint=hint)
    try:
        values = json.loads(raw, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid JSON: {error}", hint=hint) from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} must hold one JSON object", hint=hint)
    return values


def load(
    *,
    path: Path | None = None,
    preset: tuple[str, Mapping[str, Any]] | None = None,
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Defaults, then the file, then the session's preset, the environment and the options.

    Args:
        preset: its name and values; lies above the file for this session.
        options: key -> value of options that were given; None means not given, 0 is a value.
        environ: the process environment unless told otherwise.
    """
    path = path or config_path()
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources = dict.fromkeys(TABLE, "default")
    unknown: list[str] = []

    def lay(key: str, value: Any, source: str, where: str) -> None:
        row = row_of(key)
        values[row.field] = parse(key, value, where)
        sources[row.setting.key] = source

    for key, value in _in_our_terms(read_file(path)).items():
        if key not in TABLE:
            unknown.append(key)
        elif value is not None:  # a null is as good as no line at all
            lay(key, value, "file", str(path))
    if preset is not None:
        name, overlay = preset
        for key, value in overlay.items():
            lay(key, value, f"preset {name}", f"preset {name}")
        lay("preset", name, f"preset {name}", f"preset {name}")
    for key, row in TABLE.items():
        for variable in row.setting.env:
            if environ.get(variable, "").strip():
                lay(key, environ[variable], f"environment {variable}", variable)
                break
    for key, value in (options or {}).items():
        if value is not None:
            lay(key, value, "option", f"--{key.replace('_', '-')}")

    settings = Settings(**values)
    _check_rewards(settings.min_reward_lamports, settings.max_reward_lamports)
    _check_float(settings.sweep_above_lamports, settings.floor_balance_lamports)
    return Loaded(settings, sources, tuple(key for key in unknown if key != KEPT), path)


def _check_rewards(least: int, most: int) -> None:
    if 0 < most < least:
        raise SettingsError(
            "max_reward is below min_reward, so no round could ever match",
            hint="set max_reward=0 for unlimited",
        )


def _check_float(kept: int, floor: int) -> None:
    if 0 < kept <= floor:
        raise SettingsError(
            "sweep_above is no more than floor_balance, so nothing would be left to join with",
            hint="set sweep_above to what some rounds cost, such as 0.1; 0 sends nothing",
        )


def update(changes: Mapping[str, Any], *, path: Path | None = None) -> None:
    """Write values into the file: checked first, atomically, keeping keys we don't know.

    Args:
        changes: key -> value as in `parse`. Pairs (mappings, paths) are merged into the
            present ones, unless there are none, which clears them; everything else replaces.

    Raises:
        SettingsError: a value, or what it makes of the whole, can't be; nothing is written.
    """
    path = path or config_path()
    with _locked(path):
        content = _for_change(path)
        for key, value in changes.items():
            row = row_of(key)
            parsed = parse(key, value, row.setting.key)
            shown = row.setting.kind.show(parsed)
            if isinstance(shown, dict) and shown:
                shown = _present_pairs(content, row, path) | shown
            content[row.setting.key] = shown
        _check_rewards(
            *(parse(key, content.get(key) or 0, str(path)) for key in ("min_reward", "max_reward"))
        )
        _check_float(*(_amount(content, key, path) for key in ("sweep_above", "floor_balance")))
        _write(path, content)


def _amount(content: Mapping[str, Any], key: str, path: Path) -> int:
    """Lamports, as they stand in the file or by default."""
    found: int = parse(key, content[key], str(path)) if key in content else TABLE[key].default
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, so that none loses another's change."""
    make_private_dir(path.parent)
    lock = filelock.FileLock(path.with_suffix(".lock"), mode=0o600)
    try:
        lock.acquire(timeout=10)
    except filelock.Timeout as error:
        raise SettingsError(
            f"another program has been writing {path} for ten seconds", hint="try again later"
        ) from error
    except OSError as error:
        raise SettingsError(f"can't lock {path}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _present_pairs(content: Mapping[str, Any], row: Row, path: Path) -> dict[str, str]:
    pairs: dict[str, str] = parse(row.setting.key, content.get(row.setting.key) or {}, str(path))
    return pairs


def remove(key: str, name: str | None = None, *, path: Path | None = None) -> bool:
    """Take a setting, or one pair of it, out of the file; False if it wasn't there.

    A key that stands in the file can be removed even if this version doesn't know it.
    """
    path = path or config_path()
    with _locked(path):
        content = _for_change(path)
        if name is None and key in content and key not in TABLE:
            del content[key]
            _write(path, content)
            return True
        row = row_of(key)
        if row.setting.key not in content:
            return False
        if name is None:
            del content[row.setting.key]
        else:
            pairs = _present_pairs(content, row, path)
            if pairs.pop(dataset_key(name), None) is None:
                return False
            content[row.setting.key] = pairs
        _write(path, content)
    return True


def replace(raw: bytes, *, before: bytes, path: Path | None = None) -> None:
    """Put an edited file in the place of the one that was edited.

    Args:
        raw: the new file, which `load` has accepted.
        before: what the file held when the editing began; empty for no file.

    Raises:
        SettingsError: another program has changed the file since; nothing is written.
    """
    path = path or config_path()
    with _locked(path):
        if (path.read_bytes() if path.exists() else b"") != before:
            raise SettingsError(f"{path} was changed by another program while you edited it")
        _write_raw(path, raw)


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Attributes:
    backup: where the earlier kit's file is now, byte for byte.
    notes: what became of its keys, one sentence each.
    """

    backup: Path
    notes: tuple[str, ...]


def take_over(*, path: Path | None = None) -> TakenOver | None:
    """Rewrite a file of an earlier trainer kit in our terms; None if it isn't one."""
    path = path or config_path()
    if migrated(read_file(path), _read_setting) is None:
        return None
    with _locked(path):
        old = migrated(read_file(path), _read_setting)
        return None if old is None else _take_over(path, old)


def _take_over(path: Path, old: Migrated) -> TakenOver:
    backup = _free_place(path, "kit-backup")
    _write_raw(backup, path.read_bytes())
    _write(path, old.content)
    return TakenOver(backup, old.notes)


def _for_change(path: Path) -> dict[str, Any]:
    """The content of a file that is about to be rewritten."""
    content = read_file(path)
    old = migrated(content, _read_setting)
    if old is None:
        return content
    _take_over(path, old)
    return old.content


def _in_our_terms(content: dict[str, Any]) -> dict[str, Any]:
    old = migrated(content, _read_setting)
    return content if old is None else old.content


def _read_setting(key: str, value: Any) -> Any:
    """The value as the file has it; ValueError if the setting can't have it."""
    kind = TABLE[key].setting.kind
    return kind.show(kind.parse(value))


def reset(*, path: Path | None = None) -> Path | None:
    """Set the file aside as ``config.json.backup``; its new place, or None if there was none.

    An earlier backup stays: it may hold the only copy of a key."""
    path = path or config_path()
    with _locked(path):
        if not path.exists():
            return None
        backup = _free_place(path, "backup")
        path.replace(backup)
        sync_dir(path.parent)
    return backup


def _free_place(path: Path, what: str) -> Path:
    """``config.json.WHAT``, or with a number behind it: no backup replaces another."""
    names = itertools.chain([what], (f"{what}-{copy}" for copy in itertools.count(2)))
    places = (path.with_name(f"{path.name}.{name}") for name in names)
    return next(place for place in places if not place.exists())


def _write(path: Path, content: Mapping[str, Any]) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, Decimal):
            return float(value)
        raise TypeError(f"{type(value).__name__} can't stand in a configuration")

    text = json.dumps(content, indent=2, ensure_ascii=False, default=plain)
    _write_raw(path, text.encode() + b"\n")


def _write_raw(path: Path, raw: bytes) -> None:
    try:
        write_atomic(path, raw)
    except OSError as error:
        raise SettingsError(
            f"can't write {path}: {error.strerror}", hint="check the disk and the folder's owner"
        ) from error


def _endpoint(url: str) -> str:
    host = masked(url)
    return url if host == url else f"{host}/(hidden)"


def shown_values(loaded: Loaded) -> dict[str, Any]:
    """key -> JSON value, for people and scripts: secrets as ``(set)`` or an empty text, endpoints
    without what may be an API key in them."""
    shown: dict[str, Any] = {}
    for key, row in TABLE.items():
        value = getattr(loaded.settings, row.field)
        if row.setting.secret:
            shown[key] = "(set)" if value else ""
        elif key in ENDPOINTS:
            several = not isinstance(value, str)
            shown[key] = [_endpoint(url) for url in value] if several else _endpoint(value)
        else:
            shown[key] = row.setting.kind.show(value)
    return shown
