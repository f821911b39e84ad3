"""What a shell offers at TAB, asked as the shells ask it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal import run

from decloud_trainer import config
from decloud_trainer.cli.main import COMMANDS, main
from decloud_trainer.rounds.entry import RowKey
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import Dataset, Round, RoundStatus
from decloud_trainer.settings import TABLE

NAME = "_DECLOUD_TRAINER_COMPLETE"


Offered = Callable[..., list[str]]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Offered:
    """The words that are offered for the last of these."""

    def ask(*words: str) -> list[str]:
        monkeypatch.setenv(NAME, "bash_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["decloud-trainer", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main([])
        out, errors = capsys.readouterr()
        assert errors == ""
        return [line.partition(",")[2] for line in out.splitlines() if line]

    return ask


def keep_round(journal: Journal, number: int) -> None:
    seen = Round(
        *(number, "creator", "cid", Dataset(98, "Custom"), 1, RoundStatus.TRAINING, 2, None),
        *(0, 0, 0, 0, 0, 0, 1, 0),
    )
    journal.saw(RowKey("genesis", "program", "wallet", number), seen)


def test_commands_and_options(offered: Offered) -> None:
    """Every command, the commands below it, and their options."""
    assert set(COMMANDS) <= set(offered(""))
    assert offered("wal") == ["wallet"]
    assert offered("wallet", "") == [
        "balance",
        "decrypt",
        "encrypt",
        "export",
        "import",
        "new",
        "passphrase",
        "show",
    ]
    assert "--min-reward" in offered("start", "--m")
    assert "--keypair" in offered("--k")


def test_settings(offered: Offered) -> None:
    """Keys; with --set also the values of settings that have few."""
    assert set(offered("config", "--get", "")) == set(TABLE)
    assert offered("config", "--unset", "max_b") == ["max_batches"]
    assert offered("config", "--set", "ep") == ["epochs="]
    assert offered("config", "--set", "network=dev") == ["network=devnet"]
    assert offered("config", "--set", "auto_train=") == ["auto_train=true", "auto_train=false"]
    assert "datasets=mnist,fashionmnist" in offered("config", "--set", "datasets=mnist,fash")
    assert offered("config", "--set", "epochs=") == []


def test_presets_and_datasets(offered: Offered) -> None:
    """Presets, the user's own ones among them; all datasets of the network, one or in a list."""
    assert main(["config", "--preset", "save", "evenings"]) == 0
    config.update({"dataset_mappings": {"custom": "digits"}, "dataset_paths": {"mine": "/mine"}})
    assert offered("start", "--preset", "image") == ["image-all", "image-small"]
    assert offered("config", "--preset", "s") == ["save"]
    assert "evenings" in offered("config", "--preset", "")
    assert offered("start", "--dataset", "cifar10,fash") == ["cifar10,fashionmnist"]
    assert offered("start", "--dataset", "mnist,mn") == ["mnist,mnli"], "mnist is there already"
    assert "mine" in offered("datasets", "check", "mi")
    assert offered("config", "--remove-mapping", "") == ["custom"]
    assert offered("config", "--remove-path", "") == ["mine"]
    assert "custom:digits" in offered("config", "--add-mapping", "custom:dig")


@pytest.mark.parametrize("command", ["join", "train", "claim", "status", "explain"])
def test_rounds(command: str, offered: Offered, own_home: Path) -> None:
    """Those that the journal knows, the latest first; none without a journal, which isn't made."""
    path = own_home / "decloud" / "journal.sqlite"
    assert offered(command, "") == []
    assert not path.exists()
    journal = Journal(path)
    for number in (7, 41, 42):
        keep_round(journal, number)
    journal.close()
    assert offered(command, "4") == ["42", "41"]


def test_trouble_offers_nothing_and_says_nothing(offered: Offered, own_home: Path) -> None:
    """A broken file is no reason to disturb somebody who types."""
    home = own_home / "decloud"
    home.mkdir()
    (home / "journal.sqlite").write_text("no database " * 100)
    (home / "config.json").write_text("{")
    assert offered("join", "") == []
    assert offered("config", "--remove-path", "") == []
    assert "mnist" in offered("start", "--dataset", "mnis")


def test_it_works_in_a_real_bash() -> None:
    """The script that is printed for bash completes in one; those for others name theirs."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    script = run("completion", "bash")
    assert (script.code, script.err) == (0, "")
    asked = "COMP_WORDS=(decloud-trainer wal); COMP_CWORD=1; _decloud_trainer_completion"
    done = subprocess.run(
        [bash, "-c", f"{script.out}\n{asked} decloud-trainer; echo ${{COMPREPLY[@]}}"],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "wallet", done.stderr
    assert "#compdef decloud-trainer" in run("completion", "zsh").out
    assert "complete --no-files --command decloud-trainer" in run("completion", "fish").out


def test_nothing_heavy_is_imported_for_it() -> None:
    """TAB answers at once: no torch, no Solana, no command that isn't asked about."""
    code = (
        "import sys, contextlib, io\n"
        "from decloud_trainer.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main([])\n"
        "heavy = ['torch', 'solders', 'solana', 'aiohttp', 'requests', 'numpy', 'rich']\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    for words, count in (("decloud-trainer ", 1), ("decloud-trainer status ", 2)):
        asked = {NAME: "zsh_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **asked},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "[]"
