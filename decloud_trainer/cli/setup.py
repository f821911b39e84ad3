"""``setup``: the wizard. Every question is also an option."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli import completing
from decloud_trainer.cli.output import folded
from decloud_trainer.config import NETWORKS, Settings
from decloud_trainer.errors import DecloudError, SettingsError, WalletError
from decloud_trainer.files import home_dir, make_private_dir
from decloud_trainer.money import format_sol

EPILOG = """\b
Examples:
  decloud-trainer setup
  decloud-trainer setup --non-interactive --network localnet --wallet create
  decloud-trainer setup --non-interactive --dataset mnist --min-reward 0.01 \\
      --keypair-path ~/.config/solana/id.json

\b
With --secrets-stdin, keys are read from standard input as one JSON object,
never from the command line: {"private_key": "...", "pinata_jwt": "..."}.
"""

SECRETS = ("private_key", "pinata_jwt", "pinata_api_key", "pinata_secret_key")
WALLETS = ("cli", "create", "key", "keep")


@click.command(epilog=EPILOG)
@click.option("--network", type=click.Choice(NETWORKS), help="Solana cluster.")
@click.option(
    "--wallet",
    type=click.Choice(WALLETS),
    help="cli: a Solana CLI keypair file; create: a new one; key: typed in; keep: as it is.",
)
@click.option("--keypair-path", type=click.Path(), help="The keypair file for --wallet cli.")
@click.option(
    "--dataset",
    metavar="LIST",
    shell_complete=completing.dataset_lists,
    help="Datasets to accept; empty: any trainable.",
)
@click.option("--min-reward", metavar="SOL", help="Least reward.")
@click.option("--max-reward", metavar="SOL", help="Greatest reward; 0: unlimited.")
@click.option("--epochs", metavar="N", help="Training epochs per round.")
@click.option("--max-parallel", metavar="N", help="Rounds worked on at once.")
@click.option("--secrets-stdin", is_flag=True, help="Read keys as JSON from standard input.")
@click.option("--non-interactive", is_flag=True, help="Ask nothing: options and present values.")
def setup(
    network: str | None,
    wallet: str | None,
    keypair_path: str | None,
    dataset: str | None,
    min_reward: str | None,
    max_reward: str | None,
    epochs: str | None,
    max_parallel: str | None,
    secrets_stdin: bool,
    non_interactive: bool,
) -> None:
    """Answer a few questions; everything is then ready for `start`.

    Present values are the defaults. Nothing is written before the last answer, so Ctrl-C leaves
    everything as it was.
    """
    given = {
        "network": network,
        "keypair_path": keypair_path,
        "datasets": dataset,
        "min_reward": min_reward,
        "max_reward": max_reward,
        "epochs": epochs,
        "max_concurrent_rounds": max_parallel,
    }
    answers: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    for key, value in answers.items():
        settings_file.parse(key, value, f"--{key.replace('_', '-')}")
    if keypair_path is not None and wallet is None:
        wallet = "cli"
    if secrets_stdin:
        answers |= _secrets_from_stdin()
        non_interactive = True
    now = settings_file.load().settings
    if not non_interactive:
        wallet = _ask_all(answers, wallet, now)
    _write(answers, wallet)
    _report()


def _ask_all(answers: dict[str, Any], wallet: str | None, now: Settings) -> str:
    """Ask what wasn't given; fills `answers`, returns the wallet's choice."""
    click.echo(
        "DECLOUD trainer setup. Enter takes the value in [brackets]; Ctrl-C changes\nnothing.\n"
    )
    _ask(answers, "network", f"1. Network ({', '.join(NETWORKS)})", now.network)
    wallet = wallet or _ask_wallet(answers, now)
    click.echo("\n3. Which rounds to take")
    _ask(
        answers,
        "datasets",
        "   Datasets, by comma; any: all that can be trained",
        ",".join(now.datasets) or "any",
    )
    least = format_sol(now.min_reward_lamports).removesuffix(" SOL")
    most = format_sol(now.max_reward_lamports).removesuffix(" SOL")
    _ask(answers, "min_reward", "   Least reward in SOL", least)
    _ask(answers, "max_reward", "   Greatest reward in SOL (0: unlimited)", most)
    click.echo("\n4. Training")
    _ask(answers, "epochs", "   Epochs per round", str(now.epochs))
    _ask(answers, "max_concurrent_rounds", "   Rounds at once", str(now.max_concurrent_rounds))
    _ask_pins(answers, now)
    return wallet


def _ask(answers: dict[str, Any], key: str, question: str, default: str) -> None:
    """Ask until the answer is one that the setting takes."""
    while key not in answers:
        text = click.prompt(question, default=default)
        if key == "datasets" and text.strip().lower() == "any":
            text = ""
        try:
            settings_file.parse(key, text, "that")
        except SettingsError as error:
            click.echo(folded("   ", error.message.removeprefix("that: ")))
        else:
            answers[key] = text


def _ask_wallet(answers: dict[str, Any], now: Settings) -> str:
    present = Path(now.keypair_path).expanduser()
    click.echo("\n2. Wallet")
    click.echo(f"   cli     a Solana CLI keypair file{' (found one)' if present.exists() else ''}")
    click.echo("   create  a new wallet in the program's own folder")
    click.echo("   key     type a private key (base58, or the JSON list)")
    click.echo("   keep    leave it as it is")
    has_one = bool(now.private_key) or present.exists()
    choice = str(
        click.prompt(
            "   Choice",
            type=click.Choice(WALLETS),
            default="keep" if has_one else "create",
            show_choices=False,
        )
    )
    if choice == "cli" and "keypair_path" not in answers:
        _ask_wallet_value(answers, "keypair_path", "   Path", default=now.keypair_path)
    if choice == "key":
        _ask_wallet_value(answers, "private_key", "   Private key (not shown)", hide_input=True)
    return choice


def _ask_wallet_value(answers: dict[str, Any], key: str, question: str, **prompt: Any) -> None:
    """Ask until the answer leads to a wallet; what was typed is never repeated."""
    from decloud_trainer.chain.wallet import load_wallet

    while key not in answers:
        text = str(click.prompt(question, **prompt))
        try:
            if key == "private_key":
                load_wallet(environ={}, private_key=text)
            else:
                load_wallet(environ={}, keypair_path=text)
        except SettingsError as error:
            click.echo(folded("   ", error.message))
        else:
            answers[key] = text


def _ask_pins(answers: dict[str, Any], now: Settings) -> None:
    if answers.get("network", now.network) == "localnet":
        click.echo("\n5. IPFS: the local network has its own pin service")
        return
    click.echo("\n5. IPFS (Pinata), where gradients are uploaded: https://app.pinata.cloud/keys")
    known = now.pinata_jwt or (now.pinata_api_key and now.pinata_secret_key)
    choices = ["jwt", "keys", "skip"]
    choice = click.prompt(
        "   jwt, keys (API key and secret) or skip",
        type=click.Choice(choices),
        default="skip" if known else "jwt",
        show_choices=False,
    )
    if choice == "jwt":
        answers["pinata_jwt"] = click.prompt("   JWT (not shown)", hide_input=True)
    if choice == "keys":
        answers["pinata_api_key"] = click.prompt("   API key (not shown)", hide_input=True)
        answers["pinata_secret_key"] = click.prompt("   API secret (not shown)", hide_input=True)


def _secrets_from_stdin() -> dict[str, str]:
    try:
        values = json.loads(sys.stdin.read(65_536))
    except ValueError:
        values = None  # the parser's message could repeat a key
    if not isinstance(values, dict) or not set(values) <= set(SECRETS):
        raise SettingsError(
            "standard input must be a JSON object with the keys to set",
            hint=f"keys: {', '.join(SECRETS)}",
        )
    return values


def _write(answers: Mapping[str, Any], wallet: str | None) -> None:
    from decloud_trainer.chain.wallet import create_keypair_file, load_wallet

    changes = dict(answers)
    settings_file.load(options=changes)  # they must fit each other before anything is written
    now = settings_file.load().settings
    if wallet == "key" and not changes.get("private_key"):
        raise SettingsError(
            "--wallet key needs the key", hint="give it on standard input with --secrets-stdin"
        )
    if changes.get("private_key"):
        # Checked before it is stored; the message never repeats it.
        load_wallet(environ={}, private_key=changes["private_key"])
    if wallet == "cli":
        load_wallet(environ={}, keypair_path=changes.get("keypair_path", now.keypair_path))
        changes["private_key"] = ""  # it would win over the file
    if changes.get("network", now.network) == "localnet" and "custom" not in now.dataset_mappings:
        # The local network's own rounds are about the digits that ship with this program.
        changes["dataset_mappings"] = {"custom": "digits"}
    if wallet == "create":
        path = make_private_dir(home_dir()) / "wallet.json"
        if path.exists():
            click.echo(f"\nthe wallet that is already at {path} is kept")
        else:
            create_keypair_file(path)
            click.echo(f"\na new wallet: {path}")
            click.echo("  Back this file up: it is the only key to what the wallet will hold.")
        changes["keypair_path"] = str(path)
        changes["private_key"] = ""
    if "private_key" in changes:
        _keep_old_key(changes["private_key"])
    settings_file.update(changes)


def _keep_old_key(new: str) -> None:
    """A key that the configuration is about to lose may hold money: it gets a file first."""
    from decloud_trainer.chain.wallet import import_keypair_file, load_wallet

    old = str(settings_file.read_file(settings_file.config_path()).get("private_key") or "")
    if not old or old == new:
        return
    try:
        pubkey = load_wallet(environ={}, private_key=old).pubkey
    except WalletError:
        return  # what isn't a key holds nothing
    path = make_private_dir(home_dir()) / f"wallet-{pubkey[:8]}.json"
    import_keypair_file(path, old)
    click.echo(f"\nthe key of {pubkey} leaves the configuration; it is kept in {path}")


def _report() -> None:
    """Say what is configured now, and try what can be tried without spending anything."""
    from decloud_trainer.wiring import wallet_of

    loaded = settings_file.load()
    settings = loaded.settings
    click.echo(f"\nsaved:   {loaded.path}")
    click.echo("         readable by you alone; keys are not encrypted")
    try:
        wallet = wallet_of(settings, None)
    except DecloudError as error:
        click.echo(folded("wallet:  ", error.message))
        click.echo(folded("hint:    ", error.hint))
        return
    click.echo(f"wallet:  {wallet.pubkey}")
    click.echo(f"         from {wallet.source}")
    for warning in wallet.warnings:
        click.echo(folded("note:    ", warning))
    try:
        balance, cost = asyncio.run(_balance(settings, wallet.pubkey))
    except DecloudError as error:
        click.echo(folded("balance: ", f"not known: {error.message}"))
    else:
        click.echo(f"balance: {format_sol(balance)}; a round costs {format_sol(cost)}")
        if balance < cost:
            click.echo(_funding(settings.network, wallet.pubkey))
    _try_pins(settings)
    click.echo("next:    decloud-trainer start")


def _funding(network: str, pubkey: str) -> str:
    """How to get money on that network, for a wallet that has too little of it."""
    if network == "localnet":
        return f"next:    decloud-trainer localnet airdrop {pubkey} 1"
    if network in ("devnet", "testnet"):
        return f"next:    get free {network} SOL for this address at https://faucet.solana.com"
    return "next:    send some SOL to this address"


async def _balance(settings: Settings, pubkey: str) -> tuple[int, int]:
    from decloud_trainer.rounds.policy import total_costs
    from decloud_trainer.wiring import open_chain

    async with open_chain(settings, pubkey) as (chain, _):
        return await chain.balance(), total_costs(await chain.costs())


def _try_pins(settings: Settings) -> None:
    from decloud_trainer.wiring import pin_service_of

    service = pin_service_of(settings)
    if service is None:
        click.echo("IPFS:    no Pinata credentials: gradients can't be uploaded yet")
        click.echo("hint:    decloud-trainer config --set pinata_jwt=-")
        return
    try:
        service.check()
    except DecloudError as error:
        click.echo(f"IPFS:    {error.message}")
    else:
        click.echo("IPFS:    the pin service accepts the credentials")
