"""``start``: the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer import presets
from decloud_trainer.cli.notify import announced
from decloud_trainer.cli.output import JSON_OPTION, folded, print_json
from decloud_trainer.errors import DecloudError, NetworkError, SettingsError

if TYPE_CHECKING:
    from decloud_trainer.config import Settings
    from decloud_trainer.wiring import Trainer

# Between two looks whether the endpoint still serves the network of the start.
GUARD_S = 15.0

EPILOG = """\b
Examples:
  decloud-trainer start
  decloud-trainer start --dataset cifar10,mnist --min-reward 0.01
  decloud-trainer start --preset image-small --max-parallel 2
  nohup decloud-trainer start > trainer.log 2>&1 &

\b
Exit codes: 0 after Ctrl-C or SIGTERM; 1 when another one is running, the
network can't be reached at the start or Pinata refuses the key; 2 for wrong
settings.
"""


@click.command(epilog=EPILOG)
@click.option("--preset", metavar="NAME", help="Use a preset for this session.")
@click.option("--dataset", metavar="LIST", help="Comma-separated datasets to accept.")
@click.option("--min-reward", metavar="SOL", help="Least reward to accept.")
@click.option("--max-reward", metavar="SOL", help="Greatest reward to accept; 0: unlimited.")
@click.option("--epochs", metavar="N", help="Training epochs per round.")
@click.option("--max-parallel", metavar="N", help="Rounds worked on at once.")
@click.option("--no-auto-train", is_flag=True, help="Only join; don't train.")
@click.option("--no-auto-claim", is_flag=True, help="Don't claim rewards.")
@click.option("--network", metavar="NAME", help="localnet, devnet, testnet or mainnet-beta.")
@JSON_OPTION
@click.pass_context
def start(
    ctx: click.Context,
    preset: str | None,
    dataset: str | None,
    min_reward: str | None,
    max_reward: str | None,
    epochs: str | None,
    max_parallel: str | None,
    no_auto_train: bool,
    no_auto_claim: bool,
    network: str | None,
    as_json: bool,
) -> None:
    """Run the daemon: find rounds, join, train, submit and claim, until Ctrl-C.

    Options hold for this session and win over --preset, which wins over the configuration.
    """
    options = {
        "datasets": dataset,
        "min_reward": min_reward,
        "max_reward": max_reward,
        "epochs": epochs,
        "max_concurrent_rounds": max_parallel,
        "auto_train": False if no_auto_train else None,
        "auto_claim": False if no_auto_claim else None,
        "network": network,
    }
    chosen = presets.load(preset) if preset else None
    loaded = settings_file.load(
        preset=(chosen.name, chosen.values) if chosen else None, options=options
    )
    asyncio.run(run_daemon(loaded.settings, ctx.obj["keypair"], ctx.obj["verbose"], as_json))


async def run_daemon(settings: Settings, keypair: str | None, verbose: bool, as_json: bool) -> None:
    """The daemon with its output, until SIGINT or SIGTERM."""
    from decloud_trainer.cli.live import Teller
    from decloud_trainer.cli.logs import start_logging
    from decloud_trainer.rounds.daemon import Daemon
    from decloud_trainer.wiring import open_trainer, wallet_of

    log_path = start_logging("daemon", verbose=verbose)
    teller = Teller(as_json=as_json, quiet_skips=not verbose)
    until = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, until.set)
    wallet_of(settings, keypair)  # the first thing that a newcomer lacks is named first
    notes = await asyncio.to_thread(_check_pins, settings)
    async with open_trainer(
        settings,
        keypair,
        on_event=teller.event,
        on_progress=lambda told: teller.progress(told, time.monotonic()),
    ) as trainer:
        await _greet(trainer, as_json, str(log_path), notes)
        daemon = Daemon(trainer.engine, trainer.watch, trainer.scope, trainer.followed)
        guard = asyncio.create_task(_guard_network(trainer))
        guard.add_done_callback(lambda _: until.set())
        async with announced(f"listening for rounds on {settings.network}"):
            await daemon.run(until)
        if guard.done():
            guard.result()
        guard.cancel()
        if not as_json:
            click.echo("stopping; rounds go on where they are at the next start")
    if as_json:
        print_json({"event": "stopped"})


async def _guard_network(trainer: Trainer) -> None:
    """Look again and again whether this is still the network of the start.

    Round ids mean other rounds on another one, such as a local network that was started anew.

    Raises:
        DecloudError: it is another network.
    """
    from decloud_trainer.chain.rpc import Rpc
    from decloud_trainer.wiring import services

    async with Rpc(services(trainer.settings).rpc_url) as rpc:
        while True:
            await asyncio.sleep(GUARD_S)
            with contextlib.suppress(NetworkError):
                if await rpc.genesis_hash() != trainer.scope.genesis:
                    raise DecloudError(
                        "the RPC endpoint serves another network now than at the start "
                        "(its genesis hash differs)",
                        hint="start the daemon again; what it knows of the other one is kept",
                    )


def _check_pins(settings: Settings) -> list[str]:
    """Try the pin service before any rent is spent on rounds that need it; notes for the user.

    Raises:
        SettingsError: there are no credentials.
        PinRefused: the service doesn't accept them.
    """
    from decloud_trainer.wiring import pin_service_of

    if not settings.auto_train:
        return []
    service = pin_service_of(settings)
    if service is None:
        raise SettingsError(
            "IPFS is not configured, so no gradients could be uploaded",
            hint="get a JWT at https://app.pinata.cloud/keys, then: "
            "decloud-trainer config --set pinata_jwt=-",
        )
    try:
        service.check()
    except NetworkError as error:
        return [f"the pin service can't be reached at the moment: {error.message}"]
    return []


async def _greet(trainer: Trainer, as_json: bool, log_path: str, notes: list[str]) -> None:
    from decloud_trainer.cli.live import banner
    from decloud_trainer.cli.output import sign

    settings = trainer.settings
    balance = await trainer.chain.balance()
    facts: dict[str, Any] = {
        "wallet": trainer.wallet.pubkey,
        "balance": balance,
        "network": settings.network,
        "generation": trainer.generation,
    }
    notes = [*trainer.wallet.warnings, *_untrainable(trainer), *notes]
    if as_json:
        print_json({"event": "started", **facts, "log": log_path, "notes": notes})
        return
    values = {
        "preset": settings.preset,
        "datasets": settings.datasets,
        "min_reward": settings.min_reward_lamports,
        "max_reward": settings.max_reward_lamports,
        "max_parallel": settings.max_concurrent_rounds,
        "epochs": settings.epochs,
        "auto_train": settings.auto_train,
        "auto_claim": settings.auto_claim,
    }
    click.echo(banner(**facts, settings=values))
    for note in notes:
        click.echo(folded("note: ", note))
    click.echo(f"\n  {sign('👀')}Listening for rounds... (Ctrl+C to stop; log: {log_path})\n")


def _untrainable(trainer: Trainer) -> list[str]:
    """Accepted datasets that nothing here can train: said at the start, skipped later."""
    terms = trainer.engine.parts.terms
    missing = [name for name in trainer.settings.datasets if terms.data_for(name) is None]
    if not missing:
        return []
    text = (
        f"no data or loader here for {', '.join(missing)}: such rounds are skipped "
        "(`decloud-trainer config --add-mapping FROM:TO` trains on other data instead)"
    )
    return [text]
