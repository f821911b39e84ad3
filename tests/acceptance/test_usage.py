"""Help, exit codes and settings, as scripts and people meet them."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from terminal import COMMAND, here, run

from decloud_trainer.cli.main import cli


def pages(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The words of every command, and whether it has commands below it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        is_group = isinstance(command, click.Group)
        yield (*before, name), is_group
        if is_group:
            yield from pages(command, *before, name)


PAGES = list(pages(cli))


@pytest.mark.parametrize(("words", "is_group"), PAGES, ids=[" ".join(words) for words, _ in PAGES])
def test_every_command_has_help_with_an_example(
    words: tuple[str, ...], is_group: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--help explains every command, shows how it is called, and fits 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(cli, [*words, "--help"], prog_name="decloud-trainer")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Usage: decloud-trainer " + " ".join(words))
    if not is_group:  # its commands have theirs
        assert f"  decloud-trainer {' '.join(words)}" in done.output.partition("Example")[2]
    assert max(map(len, done.output.splitlines())) <= 80


def test_help_is_there_at_once() -> None:
    """--help of a real process, which costs the processor no longer than a blink."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run("-h")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    assert done.code == 0
    assert "decloud-trainer demo" in done.out


def test_usage_is_checked_before_anything_happens(own_home: Path) -> None:
    """Wrong words give exit code 2, say what is wrong, and write nothing."""
    for words, complaint in {
        ("nothing",): "No such command",
        ("start", "--nope"): "No such option",
        ("join", "abc"): "'abc'",
        ("start", "--epochs", "0"): "must be a whole number",
        ("start", "--network", "moon"): "must be one of",
        ("start", "--preset", "nope"): "presets: ",
        ("start", "--min-reward", "1", "--max-reward", "0.5"): "max_reward is below min_reward",
        ("list", "--status", "bogus"): "statuses: ",
        ("config", "--set", "epoch=3"): "did you mean epochs?",
        ("config", "--set", "epochs"): "KEY=VALUE",
        ("config", "--add-mapping", "custom"): "FROM:TO",
        ("config", "--set", "private_key=abc"): "no Solana key",
        ("config", "--set", "keypair_path=~nobody-at-all/id.json"): "a user who isn't here",
        ("setup", "--non-interactive", "--wallet", "key"): "--secrets-stdin",
        ("start",): "No private key found",
        ("demo", "--competitors", "bob"): "'bob'",
        ("demo", "--reward", "0.00001"): "pays only from 0.01 SOL on",
        ("localnet", "airdrop", "x"): "decloud-trainer localnet up",
        ("localnet", "up", "--generation", "v9"): "v9",
    }.items():
        done = here(*words)
        assert (done.code, done.out) == (2, ""), words
        assert complaint in done.err, words
    assert not (own_home / "decloud" / "config.json").exists()


def test_keys_on_standard_input_are_texts(own_home: Path) -> None:
    """A key that isn't in quotes is refused, with how to write it; nothing is written or shown."""
    for secrets in ('{"private_key": [171, 205, 239]}', '{"pinata_jwt": null}', "[" * 60_000):
        done = run("setup", "--secrets-stdin", "--network", "localnet", stdin=secrets)
        assert (done.code, done.out) == (2, "")
        assert "standard input must be" in done.err or "text in quotes" in done.err
        assert "171" not in done.err
    assert not (own_home / "decloud" / "config.json").exists()


def test_an_unreachable_network_is_an_expected_failure() -> None:
    """Exit code 1, in words, with a hint and without a traceback."""
    here("config", "--set", "network=localnet", "--set", "rpc_url=http://127.0.0.1:9")
    done = here("list")
    assert done.code == 1
    assert done.err.startswith("error: 127.0.0.1")
    assert "hint: check rpc_url and the network" in done.err
    assert "Traceback" not in done.err


def test_settings_by_command(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are set, shown with their source, taken from presets, and reset with a backup."""
    home = own_home / "decloud"
    assert here("config", "--set", "epochs=3", "--set", "datasets=Fashion-MNIST,cifar10").code == 0
    assert here("config", "--add-mapping", "custom:digits").code == 0
    monkeypatch.setenv("PINATA_JWT", "very.secret.jwt")
    shown = here("config", "--show", "--json")
    monkeypatch.delenv("PINATA_JWT")
    assert "very.secret.jwt" not in shown.out
    assert shown.json["settings"]["pinata_jwt"] == "(set)"
    assert shown.json["sources"]["pinata_jwt"] == "environment PINATA_JWT"
    assert shown.json["settings"]["datasets"] == ["fashionmnist", "cifar10"]
    assert shown.json["settings"]["dataset_mappings"] == {"custom": "digits"}
    assert shown.json["sources"]["epochs"] == "file"
    assert "No private key found" in shown.json["wallet_problem"]

    assert "mnist-only" in here("config", "--preset", "list").out
    assert here("config", "--preset", "mnist-only").code == 0
    values = here.json("config", "--show")["settings"]
    assert values["preset"] == "mnist-only"
    assert values["datasets"] == ["mnist", "fashionmnist", "emnist", "kmnist"]
    assert values["epochs"] == 1

    refused = here("config", "--set", "min_reward=2", "--set", "max_reward=1")
    assert refused.code == 2
    assert here.json("config", "--show")["settings"]["min_reward"] == 0

    told = here("config", "--set", "pinata_jwt=-", stdin="very.secret.jwt\n")
    assert (told.code, told.err) == (0, "")
    assert json.loads((home / "config.json").read_bytes())["pinata_jwt"] == "very.secret.jwt"
    assert "shell's history" in here("config", "--set", "pinata_jwt=abc").err

    assert here("config", "--reset").code == 130, "nobody said yes"
    assert here("config", "--reset", "--yes").code == 0
    assert not (home / "config.json").exists()
    assert (home / "config.json.backup").stat().st_mode & 0o777 == 0o600


def test_a_folder_of_data_is_looked_at_before_it_is_taken() -> None:
    """--add-path tells what lies there, and refuses a folder without a dataset."""
    digits = Path(__file__).parents[2] / "decloud_trainer" / "data" / "digits"
    added = here("config", "--add-path", f"mnist:{digits}")
    assert added.code == 0
    assert "1,347 training and 450 test samples of images of 8x8, 10 classes" in added.err
    refused = here("config", "--add-path", "mnist:/nowhere")
    assert refused.code == 1
    assert "Dataset not found: /nowhere" in refused.err
    assert here.json("config", "--show")["settings"]["dataset_paths"] == {"mnist": str(digits)}


def test_output_fits_where_it_goes() -> None:
    """A reader that goes early is no failure; without UTF-8 or a terminal there are no signs."""
    reader, writer = os.pipe()
    os.close(reader)
    piped = subprocess.run(
        [*COMMAND, "config", "--show"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (piped.returncode, piped.stderr) == (0, "")
    latin = subprocess.run(
        [*COMMAND, "config", "--preset", "list"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert latin.stdout.isascii()
