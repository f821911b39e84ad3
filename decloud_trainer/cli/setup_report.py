"""The end of ``setup``: what is configured now, whether it works, and the one next command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli.config_view import shown_text
from decloud_trainer.cli.funds import funds_of
from decloud_trainer.cli.output import folded, print_table
from decloud_trainer.config import Loaded
from decloud_trainer.errors import DecloudError, NetworkError, WalletError
from decloud_trainer.money import format_sol
from decloud_trainer.settings import TABLE, Settings

if TYPE_CHECKING:
    from decloud_trainer.chain.wallet import FoundWallet

START = "decloud-trainer start"


def report(before: Loaded) -> None:
    """Show the configuration, and try what can be tried without spending anything."""
    from decloud_trainer.services import known_wallet
    from decloud_trainer.wiring import home_is_held

    loaded = settings_file.load()
    settings = loaded.settings
    _show_settings(before, loaded)
    click.echo(folded("\nsaved:   ", str(loaded.path), indent=9))
    click.echo(folded("         ", "readable by you alone (mode 0600)"))
    if home_is_held():
        click.echo(folded("note:    ", "the daemon that is running takes this at its next start"))
    try:
        wallet = known_wallet(settings, None)
    except WalletError as error:
        click.echo(folded("wallet:  ", error.message))
        lacking = "decloud-trainer wallet new"
        _try_pins(settings)
    else:
        _show_wallet(wallet)
        lacking = _try_chain(settings, wallet.pubkey)
        pins = _try_pins(settings)
        lacking = lacking or pins
    click.echo(f"next:    {lacking or START}")


def _show_settings(before: Loaded, after: Loaded) -> None:
    """All that isn't the default, and what each changed value was."""
    old, new = settings_file.shown_values(before), settings_file.shown_values(after)
    rows = []
    for key, row in TABLE.items():
        default = row.setting.kind.show(row.default)
        if new[key] != old[key]:
            rows.append([key, shown_text(new[key]), shown_text(old[key])])
        elif new[key] != default:
            rows.append([key, shown_text(new[key]), ""])
    click.echo()
    if rows:
        print_table(["Setting", "Value", "Was"], rows)
        default = "Everything else has its default"
    else:
        default = "Every setting has its default"
    click.echo(folded(f"{default}: ", "decloud-trainer config --show", indent=2))


def _show_wallet(wallet: FoundWallet) -> None:
    click.echo(folded("wallet:  ", wallet.pubkey))
    click.echo(folded("         from ", wallet.source, indent=9))
    for warning in wallet.warnings:
        click.echo(folded("note:    ", warning))


def _try_chain(settings: Settings, pubkey: str) -> str:
    """Show the balance and what a round costs; the command that mends what is lacking, if any."""
    is_local = settings.network == "localnet"
    try:
        funds = funds_of(settings, pubkey)
    except DecloudError as error:
        click.echo(folded("balance: ", f"not known: {error.message}"))
        is_down = is_local and isinstance(error, NetworkError)
        return "decloud-trainer localnet up" if is_down else ""
    text = f"{format_sol(funds.balance)}; a round costs {format_sol(funds.cost)}"
    click.echo(folded("balance: ", text))
    if funds.rounds:
        return ""
    if is_local:
        return f"decloud-trainer localnet airdrop {pubkey} 1"
    text = f"that is too little for a round ({format_sol(funds.kept)} must stay in a wallet)"
    click.echo(folded("hint:    ", f"{text}: {_funding(settings.network)}"))
    return ""


def _funding(network: str) -> str:
    """How to get money on a public network."""
    if network in ("devnet", "testnet"):
        return f"get free {network} SOL for this address at https://faucet.solana.com"
    return "send some SOL to this address"


def _try_pins(settings: Settings) -> str:
    """Try the credentials; the command that sets others if there are none or they are refused."""
    from decloud_trainer.services import pin_services_of

    mending = "decloud-trainer config --set pinata_jwt=-"
    services = pin_services_of(settings)
    if not services:
        text = "no pin service is configured: gradients can't be uploaded yet"
        click.echo(folded("IPFS:    ", text))
        return mending
    refused = 0
    for service in services:
        try:
            service.check()
        except NetworkError as error:
            click.echo(folded("IPFS:    ", f"{service.name}: not known: {error.message}"))
        except DecloudError as error:
            click.echo(folded("IPFS:    ", f"{service.name}: {error.message}"))
            refused += 1
        else:
            click.echo(folded("IPFS:    ", f"{service.name} accepts the credentials"))
    return mending if refused == len(services) else ""
