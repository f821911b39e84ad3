"""``wallet``: the key that signs and gets the rewards. No option takes a key by value."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli.output import JSON_OPTION, folded, print_json
from decloud_trainer.errors import WalletError
from decloud_trainer.files import home_dir, make_private_dir, new_wallet_path
from decloud_trainer.money import format_sol

if TYPE_CHECKING:
    from decloud_trainer.chain.wallet import FoundWallet, Wallet
    from decloud_trainer.cli.funds import Funds

MAX_INPUT_CHARS = 4097
PATH_OPTION = click.option(
    "--path",
    type=click.Path(),
    help="Where to write the keypair file; otherwise wallet.json in the program's folder.",
)


PLAIN_OPTION = click.option("--plain", is_flag=True, help="Don't encrypt it, and don't ask.")
_PASSPHRASES = "type one at a terminal, or give it with --passphrase-fd or passphrase_file"


@click.group(
    epilog="\b\nExamples:\n  decloud-trainer wallet show\n  decloud-trainer wallet balance"
)
def wallet() -> None:
    """Show, make, import, encrypt and export the wallet.

    The key that is used is the first of: --keypair, DECLOUD_PRIVATE_KEY, SOLANA_PRIVATE_KEY,
    the setting private_key, the file that the setting keypair_path names.
    """


@wallet.command(
    epilog="\b\nExamples:\n  decloud-trainer wallet show\n  decloud-trainer wallet show --balance"
)
@click.option("--balance", is_flag=True, help="Ask the network for its balance, too.")
@JSON_OPTION
@click.pass_context
def show(ctx: click.Context, balance: bool, as_json: bool) -> None:
    """Show the wallet's address and where its key comes from."""
    found = _known(ctx)
    lamports = _funds(found.pubkey).balance if balance else None
    if as_json:
        told = {
            "address": found.pubkey,
            "source": found.source,
            "encrypted": found.encrypted,
            "warnings": list(found.warnings),
        }
        print_json(told if lamports is None else {**told, "balance_lamports": lamports})
        return
    click.echo(f"Address: {found.pubkey}")
    click.echo(f"From:    {found.source}")
    click.echo(f"Key:     {'encrypted' if found.encrypted else 'not encrypted'}")
    if lamports is not None:
        click.echo(f"Balance: {format_sol(lamports)}")
    for warning in found.warnings:
        click.echo(folded("note:    ", warning))


@wallet.command(
    epilog="\b\nExamples:\n  decloud-trainer wallet balance\n"
    "  decloud-trainer wallet balance --json"
)
@JSON_OPTION
@click.pass_context
def balance(ctx: click.Context, as_json: bool) -> None:
    """Ask the network what the wallet holds, and for how many rounds that is enough."""
    found = _known(ctx)
    funds = _funds(found.pubkey)
    network = settings_file.load().settings.network
    if as_json:
        told = {"address": found.pubkey, "network": network, "balance_lamports": funds.balance}
        print_json({**told, "rounds_affordable": funds.rounds})
        return
    held = f"{format_sol(funds.balance)} on {network}"
    text = f"{held}: enough to take part in {funds.rounds} rounds"
    click.echo(folded("", text, indent=2))
    click.echo(found.pubkey)


@wallet.command(
    epilog="\b\nExamples:\n  decloud-trainer wallet new\n"
    "  decloud-trainer wallet new --path ~/keys/trainer.json"
)
@PATH_OPTION
@PLAIN_OPTION
@JSON_OPTION
@click.pass_context
def new(ctx: click.Context, path: str | None, plain: bool, as_json: bool) -> None:
    """Make a new wallet and use it from now on.

    The key goes to a file that you alone can read: encrypted under the passphrase that is asked
    for or given, or without one in the Solana CLI's form. No file is ever overwritten.
    """
    from decloud_trainer.chain.wallet import create_keypair_file

    settings_file.load()  # settings that can't be changed are said before a key is made
    place = _place(path)
    made = create_keypair_file(place, _new_passphrase(plain))
    _use(ctx, made, place, as_json)
    if not as_json:
        click.echo(f"Back up {place} now: it is the only key to what the wallet will hold.")


@wallet.command(
    "import",
    epilog="\b\nExamples:\n  decloud-trainer wallet import\n"
    "  decloud-trainer wallet import < ~/old/id.json\n"
    "  decloud-trainer wallet import --path ~/keys/trainer.json",
)
@PATH_OPTION
@PLAIN_OPTION
@click.argument("words", nargs=-1, metavar="")
@JSON_OPTION
@click.pass_context
def import_(
    ctx: click.Context, path: str | None, plain: bool, words: tuple[str, ...], as_json: bool
) -> None:
    """Store a key that you have, and use it from now on.

    The key is asked for without showing it, or read from standard input: base58 text, or the JSON
    list of a Solana CLI keypair file. It is encrypted as by `new`.
    """
    from decloud_trainer.chain.wallet import import_keypair_file

    if words:
        # Not repeated: what stands there is most likely the key.
        raise click.UsageError(
            "import takes no key on the command line, where other programs and your shell's "
            "history see it. If you gave a real one, move its funds to a new wallet. "
            "Run `decloud-trainer wallet import` and paste the key when asked."
        )
    settings_file.load()
    place = _place(path)
    text = _typed_key()
    if not text.strip():
        raise WalletError("no key was given", hint="paste it when asked, or pipe it in")
    made = import_keypair_file(place, text, _new_passphrase(plain))
    _use(ctx, made, place, as_json)


@wallet.command(
    epilog="\b\nExamples:\n  decloud-trainer wallet encrypt\n"
    "  decloud-trainer --passphrase-fd 3 wallet encrypt 3< FILE"
)
@click.pass_context
def encrypt(ctx: click.Context) -> None:
    """Encrypt the wallet's key file, in its place.

    Copies of the file elsewhere, backups and the freed blocks of the disk still hold the key in
    the clear.
    """
    from decloud_trainer.chain.wallet import LockedWallet, rewrite_key_file

    found, place = _key_file(ctx)
    if isinstance(found, LockedWallet):
        raise WalletError(
            f"{place} is encrypted already", hint="decloud-trainer wallet passphrase changes it"
        )
    passphrase = _new_passphrase(plain=False)
    if not passphrase:
        raise WalletError("no passphrase was given; nothing was changed", hint=_PASSPHRASES)
    rewrite_key_file(place, found, passphrase)
    click.echo(f"encrypted: {place}")
    text = "without the passphrase nobody can read it, you included; keep a backup of both"
    click.echo(folded("note:      ", text))


@wallet.command(epilog="\b\nExample:\n  decloud-trainer wallet decrypt")
@click.pass_context
def decrypt(ctx: click.Context) -> None:
    """Put an encrypted key file into the Solana CLI's form again, in its place."""
    from decloud_trainer.chain.wallet import rewrite_key_file

    found, place = _key_file(ctx)
    if not found.encrypted:
        raise WalletError(f"{place} isn't encrypted")
    rewrite_key_file(place, _wallet(ctx), "")
    click.echo(f"not encrypted any more: {place}")


@wallet.command(
    epilog="\b\nExamples:\n  decloud-trainer wallet passphrase\n"
    "  decloud-trainer wallet passphrase --new-file ~/.new-passphrase"
)
@click.option("--new-file", type=click.Path(), help="Take the new one from this file.")
@click.pass_context
def passphrase(ctx: click.Context, new_file: str | None) -> None:
    """Change the passphrase of an encrypted wallet.

    Backups keep the one that they were made with.
    """
    from decloud_trainer.chain.passphrases import new_passphrase, read_passphrase_file
    from decloud_trainer.chain.wallet import rewrite_key_file

    found, place = _key_file(ctx)
    if not found.encrypted:
        raise WalletError(f"{place} isn't encrypted", hint="decloud-trainer wallet encrypt")
    unlocked = _wallet(ctx)
    chosen = read_passphrase_file(Path(new_file)) if new_file else new_passphrase({})
    if not chosen:
        raise WalletError("no new passphrase was given; nothing was changed", hint="--new-file")
    rewrite_key_file(place, unlocked, chosen)
    click.echo(f"the passphrase is changed: {place}")
    if (file := settings_file.load().settings.passphrase_file) and file != new_file:
        click.echo(folded("note:      ", f"{file} still has the former one: put the new one there"))


@wallet.command(
    epilog="\b\nExamples:\n  decloud-trainer wallet export\n"
    "  decloud-trainer wallet export --json --yes > backup.json"
)
@click.option("--base58", "form", flag_value="base58", default=True, help="As base58 text.")
@click.option("--json", "form", flag_value="json", help="As the Solana CLI's list of numbers.")
@click.option("--yes", is_flag=True, help="Don't ask; needed where nobody can be asked.")
@click.pass_context
def export(ctx: click.Context, form: Literal["base58", "json"], yes: bool) -> None:
    """Print the wallet's secret key, for a backup or another program.

    Whoever sees it can take everything that the wallet holds.
    """
    from decloud_trainer.chain.wallet import exported

    found = _wallet(ctx)
    warning = f"the secret key of {found.pubkey}: whoever sees it can take all that it holds"
    click.echo(folded("warning: ", warning), err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise WalletError(
                "nobody is there to confirm that a secret key is printed",
                hint="add --yes if this is what you want",
            )
        click.confirm("Print it?", abort=True, err=True)
    click.echo(exported(found, form))


def _known(ctx: click.Context) -> FoundWallet:
    """Looking needs no passphrase."""
    from decloud_trainer.services import known_wallet

    return known_wallet(settings_file.load().settings, ctx.obj["keypair"])


def _key_file(ctx: click.Context) -> tuple[FoundWallet, Path]:
    """The wallet and the file that it is in.

    Raises:
        WalletError: it isn't in a file.
    """
    found = _known(ctx)
    if not found.source.startswith(("file ", "option ")):
        raise WalletError(
            f"the key comes from the {found.source}: only a key file can be encrypted",
            hint="`decloud-trainer wallet import` stores a key in a file",
        )
    return found, Path(ctx.obj["keypair"] or settings_file.load().settings.keypair_path)


def _new_passphrase(plain: bool) -> str:
    """For a key that is about to be written; empty: none."""
    from decloud_trainer.chain.passphrases import new_passphrase

    return (
        "" if plain else new_passphrase(os.environ, settings_file.load().settings.passphrase_file)
    )


def _wallet(ctx: click.Context) -> Wallet:
    from decloud_trainer.services import wallet_of

    return wallet_of(settings_file.load().settings, ctx.obj["keypair"])


def _funds(pubkey: str) -> Funds:
    from decloud_trainer.cli.funds import funds_of

    return funds_of(settings_file.load().settings, pubkey)


def _place(path: str | None) -> Path:
    if path is None:
        make_private_dir(home_dir())
        return new_wallet_path()
    return Path(path).expanduser().absolute()


def _typed_key() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Private key (not shown)", hide_input=True))
    return sys.stdin.read(MAX_INPUT_CHARS)


def _use(ctx: click.Context, made: Wallet, place: Path, as_json: bool) -> None:
    """Have the settings name the file; say so, or which key still comes before it."""
    before = settings_file.load().settings.keypair_path
    settings_file.update({"keypair_path": str(place)})
    if as_json:
        used = _known(ctx).pubkey == made.pubkey
        print_json({"address": made.pubkey, "path": str(place), "used": used})
        return
    click.echo(f"Address: {made.pubkey}")
    click.echo(f"File:    {place}")
    if Path(before).expanduser() != place and Path(before).expanduser().exists():
        click.echo(folded("note:    ", f"the wallet before was {before}; that file stays"))
    used_now = _known(ctx)
    if used_now.pubkey != made.pubkey:
        text = (
            f"{used_now.source} comes first, so the wallet that is used is still {used_now.pubkey}"
        )
        click.echo(folded("note:    ", text))
