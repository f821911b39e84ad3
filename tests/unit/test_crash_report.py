"""An unexpected failure leaves a report that can be passed on."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from decloud_trainer.cli import crash, main
from decloud_trainer.cli.crash import command_name

SECRET = "sw0rdfish-and-more"


@pytest.fixture
def home(own_home: Path) -> Path:
    """A home whose configuration holds a secret."""
    folder = own_home / "decloud"
    folder.mkdir(mode=0o700)
    (folder / "config.json").write_text(json.dumps({"pinata_jwt": SECRET, "old_token": "t0ken-99"}))
    return folder


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """`version` with a defect."""

    def fail(*_: object, **__: object) -> None:
        local_secret = "only-in-a-variable"
        try:
            raise KeyError(f"jwt {SECRET} t0ken-99")
        except KeyError as error:
            raise ZeroDivisionError(len(local_secret) / 0 if local_secret else error) from error

    from decloud_trainer.cli import version

    monkeypatch.setattr(version.version, "callback", fail)


def reports(home: Path) -> list[Path]:
    return sorted((home / "logs").glob("crash-*.txt"))


@pytest.mark.usefixtures("broken")
def test_a_defect_is_told_and_reported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3; the report has the trace and the versions, and no secret in any form."""
    assert main.main(["version", "--json"]) == 3
    told = capsys.readouterr().err
    (report,) = reports(home)
    assert "unexpected error: ZeroDivisionError" in told
    assert str(report) in told
    assert report.stat().st_mode & 0o777 == 0o600
    text = report.read_text()
    assert "Command:  decloud-trainer version --json  (values are left out)" in text
    for part in ("KeyError", "ZeroDivisionError", "test_crash_report.py", "torch ", "python "):
        assert part in text
    for hidden in (SECRET, "t0ken-99", "only-in-a-variable", str(Path.home())):
        assert hidden not in text
    assert SECRET not in told


@pytest.mark.usefixtures("broken")
def test_verbose_shows_the_trace_without_secrets(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal's text is copied into issues as well."""
    assert main.main(["--verbose", "version"]) == 3
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert SECRET not in told


@pytest.mark.usefixtures("broken")
def test_an_unwritable_log_folder_hides_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The failure itself is told in any case."""
    (home / "logs").write_text("a file where the folder should be")
    assert main.main(["version"]) == 3
    assert "unexpected error: ZeroDivisionError" in capsys.readouterr().err


def test_old_reports_go(home: Path) -> None:
    """A failure that comes back each minute doesn't fill the disk."""
    logs = home / "logs"
    logs.mkdir()
    for number in range(crash.KEPT_REPORTS + 5):
        (logs / f"crash-20200101-{number:06}-1.txt").write_text("old")
    assert crash.tell_crash(ValueError("x"), ["list"], {"list"}, verbose=False) == 3
    kept = reports(home)
    assert len(kept) == crash.KEPT_REPORTS
    assert "ValueError" in kept[-1].read_text()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("config --set private_key=5Kd3NBUAd --show", "config --set --show"),
        ("--keypair /home/me/key.json start --min-reward 0.1", "--keypair start --min-reward"),
        ("wallet import 5Kd3NBUAdUnhyzenEwVLy", "wallet import"),
        ("service install --memory-max=4G", "service install --memory-max"),
        ("join 42", "join"),
        ("", ""),
    ],
)
def test_the_command_is_named_without_values(words: str, name: str) -> None:
    """Options have names that are public, and values that may not be."""
    assert command_name(words.split(), main.COMMANDS) == f"decloud-trainer {name}".strip()


def test_expected_failures_leave_no_report(home: Path) -> None:
    """They are told in words; a report would look like a defect."""
    assert main.main(["config", "--set", "epochs=none"]) == 2
    assert main.main(["no-such-command"]) == 2
    assert reports(home) == []


def test_every_command_has_help_and_an_example() -> None:
    """Each entry of the table leads to a command with help and an example."""
    context = click.Context(main.cli)
    for name in ("doctor", "service", "datasets", "device", "version"):
        command = main.cli.get_command(context, name)
        assert command is not None
        children = command.commands.values() if isinstance(command, click.Group) else [command]
        for child in children:
            assert child.help
            assert f"decloud-trainer {name}" in (child.epilog or "")
