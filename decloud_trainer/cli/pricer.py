"""``pricer``: train a network on simulated options, and price with it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer.cli.chains import CHAIN
from decloud_trainer.cli.output import JSON_OPTION, print_json, print_pairs, print_table
from decloud_trainer.errors import DecloudError, SettingsError
from decloud_trainer.training import limits

if TYPE_CHECKING:
    from decloud_trainer.store.chain import Store
    from decloud_trainer.training.pricing.config import GbmCVNNPricerConfig
    from decloud_trainer.training.pricing.pricer import GbmCVNNPricer, PricerReport
    from decloud_trainer.training.results import Progress

MAX_CONFIG_BYTES = 1 << 20
SHOWN_EVERY_S = 1.0

VERSION = click.option("--version", "version", help="Number, name or tag; else the newest.")
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
THREADS = click.option(
    "--threads", type=click.IntRange(0, 1024), default=0, help="CPU threads; 0: chosen."
)


@click.group()
def pricer() -> None:
    """Option prices by a complex-valued network, kept in a chain of versions.

    CHAIN is a folder's path, s3://bucket/prefix, or a plain word for a chain in the data folder.
    """
    limits.ready_for_torch()


TRAIN_EPILOG = """\b
Examples:
  decloud-trainer pricer train options --batches 2000
  decloud-trainer pricer train options --config my.json --commit-interval 500
  decloud-trainer pricer train options --batches 1000 --learning-rate 0.0003
  decloud-trainer pricer train wide --set simulation.network_size=1024 \\
    --set network.norm=covariance

\b
A chain that has versions is gone on with, from the newest. The configuration
is JSON with the parts simulation, network, domain_bounds,
simulate_log_return and normalize_forwards, each optional. --set changes one
value of it, or of the defaults.

\b
Exit codes: 0 trained, and committed as asked, 1 a commit failed,
2 wrong settings.
"""


@pricer.command(epilog=TRAIN_EPILOG)
@CHAIN
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file for a new pricer.",
)
@click.option(
    "--set",
    "changes",
    metavar="KEY=VALUE",
    multiple=True,
    help="One value for a new pricer, e.g. simulation.timesteps=50.",
)
@click.option(
    "--batches", type=click.IntRange(1), default=1000, show_default=True, help="To train on now."
)
@click.option(
    "--batch-size",
    type=click.IntRange(2, 65_536),
    default=64,
    show_default=True,
    help="Contracts in each.",
)
@click.option("--learning-rate", type=float, default=0.003, show_default=True, help="Of Adam.")
@click.option(
    "--auto-commit/--no-auto-commit", default=True, show_default=True, help="Commit at the end."
)
@click.option("--commit-interval", type=click.IntRange(1), help="Commit every so many batches.")
@click.option("--commit-message", help="Of the commits, e.g. 'step={step}, loss={loss:.4f}'.")
@DEVICE
@THREADS
@JSON_OPTION
def train(
    chain: str,
    config_file: Path | None,
    changes: tuple[str, ...],
    batches: int,
    batch_size: int,
    learning_rate: float,
    auto_commit: bool,
    commit_interval: int | None,
    commit_message: str | None,
    device: str,
    threads: int,
    as_json: bool,
) -> None:
    """Train a pricer, or train one on, and commit it.

    With --no-auto-commit nothing is kept: a trial of speed and settings.
    """
    from decloud_trainer.store.opening import open_store
    from decloud_trainer.training.commit_plan import DEFAULT_MESSAGE
    from decloud_trainer.training.pricing.config import TrainingConfig
    from decloud_trainer.training.pricing.pricer import GbmCVNNPricer

    store = open_store(chain)
    wanted = TrainingConfig(batches, batch_size, learning_rate)
    start = _start(store, config_file, changes)
    trained = GbmCVNNPricer(start, device=device, threads=threads)
    report = trained.train(
        wanted,
        blockchain_store=store,
        auto_commit=auto_commit,
        commit_interval=commit_interval,
        commit_message_template=commit_message or DEFAULT_MESSAGE,
        progress=_teller(as_json),
    )
    _tell_end(store, trained, report, as_json)


def _start(store: Store, config_file: Path | None, changes: tuple[str, ...]) -> GbmCVNNPricerConfig:
    from decloud_trainer.training.pricing.saving import snapshot_of
    from decloud_trainer.training.snapshots import load_checkpoint

    head = store.get_head()
    if head is None:
        return _new(config_file, changes)
    if config_file is not None or changes:
        raise SettingsError(
            f"{store.where} has a pricer already, with its own configuration",
            hint="leave --config and --set out to train it on, or name another chain",
        )
    return snapshot_of(load_checkpoint(store, head))


def _new(config_file: Path | None, changes: tuple[str, ...]) -> GbmCVNNPricerConfig:
    from decloud_trainer.training.pricing.saving import config_from_json

    data = _read(config_file) if config_file else {}
    for change in changes:
        data = _changed(data, change)
    try:
        return config_from_json(data)
    except SettingsError as error:
        where = str(config_file) if config_file else "--set"
        raise SettingsError(f"{where}: {error.message}", hint=error.hint) from error


def _read(config_file: Path) -> Any:
    try:
        with config_file.open("rb") as opened:
            data = opened.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"can't read {config_file}: {error.strerror}") from error
    try:
        if len(data) > MAX_CONFIG_BYTES:
            raise ValueError("it is too large")
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{config_file} is no JSON: {error}") from error


def _changed(data: Any, change: str) -> dict[str, Any]:
    """The configuration with one value set: ``simulation.timesteps=50``.

    A value that is no JSON is a word.
    """
    key, equals, text = change.partition("=")
    part, _, name = key.strip().partition(".")
    if not equals or not part:
        raise SettingsError(f"--set {change} is not KEY=VALUE, e.g. simulation.timesteps=50")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text.strip()
    if not name:
        return {**_object(data), part: value}
    return {**_object(data), part: {**_object(_object(data).get(part, {})), name: value}}


def _object(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise SettingsError("--set needs a configuration of JSON objects within one object")
    return data


def _teller(quiet: bool) -> Callable[[Progress], None]:
    told = [0.0]

    def tell(progress: Progress) -> None:
        now = time.monotonic()
        if quiet or progress.loss is None or now - told[0] < SHOWN_EVERY_S:
            return
        told[0] = now
        left = "" if progress.eta_s is None else f", {progress.eta_s:,.0f} s left"
        line = f"loss {progress.loss:,.4g}, {progress.samples_per_s or 0:,.0f} contracts/s{left}"
        is_terminal = sys.stderr.isatty()
        click.echo(f"\r{line}\x1b[K" if is_terminal else line, err=True, nl=not is_terminal)

    return tell


def _tell_end(store: Store, trained: GbmCVNNPricer, report: PricerReport, as_json: bool) -> None:
    commits, head = report.commits, store.get_head()
    facts = {
        "chain": store.where,
        "version": head.name if head else None,
        "step": trained.snapshot().global_step,
        "loss": report.losses[-1] if report.losses else None,
        "seconds": round(report.seconds, 3),
        "waited_s": round(report.waited_s, 3),
        "committed": commits.committed if commits else 0,
        "failed": commits.failed if commits else 0,
        "left_out": commits.left_out if commits else 0,
    }
    if as_json:
        print_json(facts)
    else:
        if sys.stderr.isatty():
            click.echo("", err=True)
        kept = "nothing was committed, as asked"
        if commits:
            kept = (
                f"{commits.committed} versions committed to {store.where}, the newest is "
                f"{facts['version']}"
            )
        click.echo(f"step {facts['step']:,}, loss {facts['loss']:,.6g}: {kept}")
    if commits and commits.failed:
        raise DecloudError(
            f"{commits.failed} commits failed, the last one because of: {commits.error}",
            hint="the training itself is done up to the newest version; run it again to go on",
        )


def _opened(chain: str, version: str | None, device: str, threads: int) -> GbmCVNNPricer:
    from decloud_trainer.store.opening import open_store
    from decloud_trainer.training.pricing.pricer import GbmCVNNPricer
    from decloud_trainer.training.pricing.saving import snapshot_of
    from decloud_trainer.training.snapshots import load_checkpoint

    store = open_store(chain)
    found = store.get_head() if version is None else store.get_version(version)
    if found is None:
        raise DecloudError(
            f"{store.where} has no pricer yet", hint=f"decloud-trainer pricer train {chain}"
        )
    return GbmCVNNPricer(snapshot_of(load_checkpoint(store, found)), device=device, threads=threads)


@pricer.command(
    epilog="\b\nExample:\n  decloud-trainer pricer price options --spot 100 --strike 105 \\\n"
    "    --maturity 1 --rate 0.03 --dividend 0.01 --volatility 0.2"
    "\n\nExit codes: 0 priced, 1 no such version, 2 outside of what it was trained for."
)
@CHAIN
@click.option("--spot", type=float, required=True, help="Price of the asset now.")
@click.option("--strike", type=float, required=True, help="Strike price.")
@click.option("--maturity", type=float, required=True, help="Years to expiry.")
@click.option("--rate", type=float, required=True, help="Interest rate, e.g. 0.03.")
@click.option("--dividend", type=float, default=0.0, show_default=True, help="Dividend yield.")
@click.option("--volatility", type=float, required=True, help="Volatility a year, e.g. 0.2.")
@VERSION
@DEVICE
@THREADS
@JSON_OPTION
def price(
    chain: str, version: str | None, device: str, threads: int, as_json: bool, **inputs: float
) -> None:
    """Price a European put and call; beside it the closed formula's prices."""
    from decloud_trainer.training.pricing.evaluation import quote

    found = quote(_opened(chain, version, device, threads), inputs)
    if as_json:
        print_json({**inputs, **found.to_json()})
        return
    rows = [("put", found.put, found.formula_put), ("call", found.call, found.formula_call)]
    print_table(
        ["", "Network", "Black-Scholes", "Difference"],
        [[name, f"{own:.4f}", f"{exact:.4f}", f"{own - exact:+.4f}"] for name, own, exact in rows],
    )


@pricer.command(
    epilog="\b\nExamples:\n  decloud-trainer pricer evaluate options"
    "\n  decloud-trainer pricer evaluate options --contracts 4096 --json"
    "\n\nExit codes: 0 evaluated, 1 no such version."
)
@CHAIN
@click.option(
    "--contracts",
    type=click.IntRange(2, 2**20),
    default=1024,
    show_default=True,
    help="How many are priced.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the contracts."
)
@VERSION
@DEVICE
@THREADS
@JSON_OPTION
def evaluate(
    chain: str,
    contracts: int,
    seed: int,
    version: str | None,
    device: str,
    threads: int,
    as_json: bool,
) -> None:
    """Compare the network with the closed formula, and with Monte Carlo and its error bars.

    The contracts fill the bounds that it was trained in and are none that it was trained on.
    """
    from decloud_trainer.training.pricing.evaluation import evaluated

    found = evaluated(_opened(chain, version, device, threads), contracts, seed)
    if as_json:
        print_json(found.to_json())
        return
    print_pairs(
        {
            "Contracts": f"{found.contracts:,}, mean put {found.mean_put:.4f}",
            "Network": f"root mean square error {found.rmse:.4f}, mean error {found.bias:+.4f}, "
            f"largest {found.largest:.4f}",
            "Monte Carlo": f"{found.paths:,} paths each: root mean square error "
            f"{found.monte_carlo_rmse:.4f}, standard error {found.standard_error:.4f}",
            "Error bars": f"{found.within:.1%} of the simulated prices are within two standard "
            "errors of the formula (95 % or more are expected)",
        }
    )
    if found.rmse <= found.monte_carlo_rmse:
        click.echo("\nThe network is more exact than a simulation with so many paths.")
