"""What ``setup`` asks at a terminal or of a pipe. Nothing is written here."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer import presets
from decloud_trainer.cli.output import folded
from decloud_trainer.errors import DecloudError, SettingsError, WalletError
from decloud_trainer.files import absolute, new_wallet_path
from decloud_trainer.money import format_sol
from decloud_trainer.settings import NETWORKS, TABLE, Settings

WALLETS = ("cli", "create", "key", "keep")
# Words besides the names of presets.
AUTO, NONE = "auto", "none"


class _NumberedChoice(click.Choice):  # type: ignore[type-arg]  # generic from click 8.2 on
    """Takes a choice by its name, or by its number in the list from 1 on."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, str) and value.isdecimal() and 0 < int(value) <= len(self.choices):
            value = self.choices[int(value) - 1]
        return super().convert(value, param, ctx)


@dataclass(slots=True)
class Answers:
    """What is to become true once everything is answered.

    Attributes:
        settings: key -> value, each checked by itself.
        wallet: one of `WALLETS`; None: as it is.
        preset: its name, or `NONE`; None: as it is.
        key: a secret key that gets a keypair file; empty for none.
        passphrase: what a new file is encrypted under; empty: not at all; None: not asked yet.
    """

    settings: dict[str, Any]
    wallet: str | None
    preset: str | None
    key: str = field(default="", repr=False)
    passphrase: str | None = field(default=None, repr=False)


def ask_all(answers: Answers, now: Settings) -> None:
    """Ask what wasn't given.

    Raises:
        SettingsError: standard input is no terminal, and ended before the last question.
    """
    text = "Enter takes the value in [brackets]; Ctrl-C changes nothing."
    click.echo(folded("", f"DECLOUD trainer setup. {text}", indent=0) + "\n")
    try:
        click.echo(folded("1. Network: ", ", ".join(NETWORKS)))
        _ask(answers, "network", "   Network", now.network)
        _ask_wallet(answers, now)
        defaults = _ask_preset(answers, now)
        _ask_rounds(answers, defaults)
        _ask_pins(answers, now)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo()
        raise SettingsError(
            "standard input ended before the last question; nothing was changed",
            hint="`setup --non-interactive` takes options and the present values instead",
        ) from None


def _ask(answers: Answers, key: str, question: str, default: str) -> None:
    """Ask until the answer is one that the setting takes."""
    while key not in answers.settings:
        text = click.prompt(question, default=default)
        if key == "datasets" and text.strip().lower() == "any":
            text = ""
        try:
            settings_file.parse(key, text, "that")
        except SettingsError as error:
            click.echo(folded("   ", error.message.removeprefix("that: ")))
        else:
            answers.settings[key] = text


# The wallet


def solana_cli_path() -> Path:
    """Where the Solana CLI keeps its key unless told otherwise."""
    return Path(TABLE["keypair_path"].default).expanduser()


def _ask_wallet(answers: Answers, now: Settings) -> None:
    from decloud_trainer.chain.passphrases import new_passphrase

    kept = _present_wallet(now)
    standard = solana_cli_path()
    text = "A key's file is readable by you alone (mode 0600), and encrypted if you want."
    click.echo("\n" + folded("2. ", f"Wallet. {text}"))
    if answers.wallet is None:
        found = f" (found {standard})" if standard.exists() else ""
        click.echo(folded("   1  cli     ", f"a Solana CLI keypair file{found}"))
        click.echo(folded("   2  create  ", "a new wallet in the program's own folder"))
        click.echo(folded("   3  key     ", "import a private key (base58, or the JSON list)"))
        click.echo(folded("   4  keep    ", f"leave it as it is: {kept or 'there is none'}"))
    given = answers.wallet
    while True:
        choice = given or _wallet_choice(now, kept)
        if choice != "create" or new_wallet_path().exists() or _is_backup_promised():
            break
    answers.wallet = choice
    if choice == "cli" and "keypair_path" not in answers.settings:
        default = str(standard) if standard.exists() else now.keypair_path
        answers.settings["keypair_path"] = _ask_keypair_path(default)
    if choice == "key" and not answers.settings.get("private_key"):
        answers.key = _ask_key()
    if answers.key or (choice == "create" and not new_wallet_path().exists()):
        answers.passphrase = new_passphrase(os.environ, now.passphrase_file)


def _present_wallet(now: Settings) -> str:
    """The address of the wallet that would be used without any answer; empty for none."""
    from decloud_trainer.services import known_wallet

    try:
        return known_wallet(now, None).pubkey
    except WalletError:
        return ""


def _wallet_choice(now: Settings, kept: str) -> str:
    is_cli = not now.private_key and Path(now.keypair_path).expanduser() == solana_cli_path()
    default = "create" if not kept else "cli" if is_cli else "keep"
    return str(
        click.prompt(
            "   Choice", type=_NumberedChoice(WALLETS), default=default, show_choices=False
        )
    )


def _is_backup_promised() -> bool:
    click.echo(folded("   The new key will be in ", str(new_wallet_path()), indent=3))
    text = (
        "That file is the only key to what the wallet will hold: whoever has it can take "
        "everything, and nobody can restore it for you. Copy it to a safe place before you "
        "send money to the wallet."
    )
    click.echo(folded("   ", text))
    answer = click.prompt("   Type yes to confirm that you will back it up", default="no")
    return str(answer).strip().lower() in ("yes", "y")


def _ask_keypair_path(default: str) -> str:
    from decloud_trainer.chain.wallet import read_key_file

    while True:
        path = absolute(str(click.prompt("   Path", default=default)))
        try:
            read_key_file(Path(path))
        except WalletError as error:
            click.echo(folded("   ", error.message))
        else:
            return path


def _ask_key() -> str:
    """A key that is one; what was typed is never repeated."""
    from decloud_trainer.chain.wallet import load_wallet

    while True:
        text = hidden("   Private key (not shown)")
        try:
            found = load_wallet(environ={}, private_key=text)
        except SettingsError as error:
            click.echo(folded("   ", error.message.replace("the setting private_key", "that")))
        else:
            click.echo(folded("   The wallet is ", found.pubkey, indent=3))
            return text


def hidden(question: str) -> str:
    """An answer that isn't shown; from a pipe, which shows nothing, simply the next line."""
    return str(click.prompt(question, hide_input=sys.stdin.isatty()))


# Rounds and training


def _ask_preset(answers: Answers, now: Settings) -> Settings:
    """The settings that the next questions have as their defaults."""
    text = "Which rounds to take. A preset fills in the answers to come."
    click.echo("\n" + folded("3. ", text))
    if answers.preset is None:
        answers.preset = _preset_choice(answers, now)
    elif answers.preset == AUTO:
        answers.preset = fitting_preset(answers, now, is_measured=True)
    if answers.preset in (None, NONE):
        return now
    values = presets.load(answers.preset).values
    return settings_file.load(preset=(answers.preset, values)).settings


def _preset_choice(answers: Answers, now: Settings) -> str | None:
    """A preset's name or `NONE`; None for what is there already."""
    is_measured = answers.settings["network"] != "localnet" and click.confirm(
        "   Measure the training speed (3 s; Enter skips)?"
    )
    fitting = fitting_preset(answers, now, is_measured=is_measured)
    known = presets.names()
    width = max(map(len, known))
    for name in known:
        click.echo(folded(f"   {name:<{width}}  ", _description(name)))
    click.echo(folded(f"   {NONE:<{width}}  ", "the answers to come, as they are"))
    # Whoever has made choices without a preset, or since, keeps them.
    present = now.preset if now.preset in known else NONE
    default = present if settings_file.config_path().exists() else fitting
    choice = str(
        click.prompt(
            "   Preset", type=click.Choice([*known, NONE]), default=default, show_choices=False
        )
    )
    return None if choice == (now.preset or NONE) else choice


def _description(name: str) -> str:
    try:
        return presets.load(name).description
    except SettingsError as error:
        return error.message


def fitting_preset(answers: Answers, now: Settings, *, is_measured: bool) -> str:
    """The preset for what this machine can do, said with its reason; `NONE` if none fits."""
    from decloud_trainer.checks.machine import disk_check
    from decloud_trainer.checks.proposal import proposed_preset

    network = str(answers.settings.get("network", now.network))
    speed = _measured_speed(now) if is_measured else None
    disk = disk_check()
    found = proposed_preset(network, speed, int(disk.numbers["free_bytes"]))
    click.echo(folded("   Disk:    ", disk.text))
    click.echo(folded("   Fitting: ", f"{found.preset or 'no preset'} ({found.reason})"))
    return found.preset or NONE


def _measured_speed(now: Settings) -> float | None:
    from decloud_trainer.checks.machine import measure_device

    click.echo("   Measuring; about 3 s ...")
    try:
        found = asyncio.run(measure_device(now))
    except DecloudError as error:
        click.echo(folded("   Speed:   ", f"not measured: {error.message}"))
        return None
    speed = float(found["samples_per_s"])
    text = f"{found['device']}, {found['threads']} threads: {speed:,.0f} samples/s"
    click.echo(folded("   Speed:   ", text))
    return speed


def _ask_rounds(answers: Answers, defaults: Settings) -> None:
    _ask(
        answers,
        "datasets",
        "   Datasets, by comma (any: all trainable)",
        ",".join(defaults.datasets) or "any",
    )
    least = format_sol(defaults.min_reward_lamports).removesuffix(" SOL")
    most = format_sol(defaults.max_reward_lamports).removesuffix(" SOL")
    _ask(answers, "min_reward", "   Least reward in SOL", least)
    _ask(answers, "max_reward", "   Greatest reward in SOL (0: unlimited)", most)
    click.echo("\n4. Training")
    _ask(answers, "epochs", "   Epochs per round", str(defaults.epochs))
    parallel = str(defaults.max_concurrent_rounds)
    _ask(answers, "max_concurrent_rounds", "   Rounds at once", parallel)


# IPFS


def _ask_pins(answers: Answers, now: Settings) -> None:
    if answers.settings["network"] == "localnet":
        click.echo("\n5. IPFS: the local network has its own pin service")
        return
    text = "IPFS (Pinata), where gradients are uploaded: https://app.pinata.cloud/keys"
    click.echo("\n" + folded("5. ", text))
    pinata = now.pinata_jwt or (now.pinata_api_key and now.pinata_secret_key)
    known = pinata or now.kubo_api_url or now.pinning_api_url
    if known:
        click.echo("   A pin service is configured; skip keeps it.")
    choice = click.prompt(
        "   jwt, keys (API key and secret) or skip",
        type=click.Choice(["jwt", "keys", "skip"]),
        default="skip" if known else "jwt",
        show_choices=False,
    )
    if choice == "jwt":
        answers.settings["pinata_jwt"] = hidden("   JWT (not shown)")
    if choice == "keys":
        answers.settings["pinata_api_key"] = hidden("   API key (not shown)")
        answers.settings["pinata_secret_key"] = hidden("   API secret (not shown)")
