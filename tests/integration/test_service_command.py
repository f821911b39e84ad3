"""``service``, with programs in place of systemd's that note what they are asked.

A user manager can't be started in a container, so what systemd does with the unit is tested by
`systemd-analyze verify` elsewhere, and what the daemon tells it by a socket.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import base58
import pytest
from click.testing import CliRunner, Result
from solders.keypair import Keypair

from decloud_trainer.cli import service as service_module
from decloud_trainer.cli.service import service
from decloud_trainer.config import update
from decloud_trainer.errors import AlreadyRunning, DecloudError, SettingsError, WalletError
from decloud_trainer.files import home_dir, make_private_dir, single_instance

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")

# Notes its words; answers `show` with the file `state`, and fails when told to.
TOOL = """\
#!/bin/sh
echo "${0##*/} $*" >> "$NOTES"
case "$*" in
  *show-environment*) [ -e "$NOTES.nobus" ] && { echo "Failed to connect to bus" >&2; exit 1; } ;;
  *"show decloud"*) cat "$NOTES.state" ;;
  *Linger*) echo no ;;
  verify*) echo "$3:7: Unknown key" >&2 ;;
  --user\\ --unit*) echo "a line of the log" ;;
esac
exit 0
"""


class Tools:
    """The noted calls, and what the tools are to answer."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "notes"
        self.notes.write_text("")

    @property
    def calls(self) -> list[str]:
        return self.notes.read_text().splitlines()

    def answer_state(self, **state: str) -> None:
        lines = "".join(f"{name}={value}\n" for name, value in state.items())
        self.notes.with_name("notes.state").write_text(lines)

    def lose_bus(self) -> None:
        self.notes.with_name("notes.nobus").touch()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    found = Tools(tmp_path)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("systemctl", "systemd-analyze", "loginctl", "journalctl"):
        (folder / name).write_text(TOOL)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("NOTES", str(found.notes))
    monkeypatch.setenv("USER", "alice")
    found.answer_state(ActiveState="active", SubState="running", MainPID="4711", NRestarts="0")
    return found


@pytest.fixture
def unit(own_home: Path) -> Path:
    return own_home / ".config" / "systemd" / "user" / "decloud-trainer.service"


@pytest.fixture
def key() -> str:
    """A configured private key, base58."""
    secret = base58.b58encode(bytes(Keypair())).decode()
    update({"private_key": secret, "network": "localnet"})
    return secret


def run(*words: str) -> Result:
    return CliRunner().invoke(service, words)


def test_install_writes_checks_and_starts(tools: Tools, unit: Path, key: str) -> None:
    """The unit is in place, systemd's complaints and the log-out note are passed on, no secret is
    in the file, and the folders that it may write to exist."""
    done = run("install", "--memory-max", "6G", "--nice", "15")
    assert done.exit_code == 0, done.exception
    text = unit.read_text()
    for line in ("MemoryMax=6G", "Nice=15", f"Environment=DECLOUD_HOME={home_dir()}"):
        assert line in text.splitlines()
    assert key not in text
    assert "UnsetEnvironment=DECLOUD_PRIVATE_KEY SOLANA_PRIVATE_KEY PINATA_API_KEY" in text
    (writable,) = [line for line in text.splitlines() if line.startswith("ReadWritePaths=")]
    for folder in writable.partition("=")[2].split():
        assert Path(folder).is_dir()
    assert tools.calls == [
        "systemctl --user show-environment",
        f"systemd-analyze verify --user {unit}",
        "systemctl --user daemon-reload",
        "systemctl --user enable decloud-trainer.service",
        "systemctl --user restart --no-block decloud-trainer.service",
        "loginctl show-user alice --property=Linger --value",
    ]
    assert f"{unit}:7: Unknown key" in done.output
    assert "loginctl enable-linger alice" in done.output
    assert "next: decloud-trainer service status" in done.output


@pytest.mark.parametrize("option", ["--print", "--dry-run"])
def test_print_changes_nothing(tools: Tools, unit: Path, option: str) -> None:
    """Not even a configuration is needed."""
    done = run("install", option)
    assert done.exit_code == 0
    assert done.output.startswith("# Written by")
    assert "ProtectSystem=strict" in done.output
    assert not unit.exists()
    assert tools.calls == []
    assert not home_dir().exists()


def test_without_a_user_manager_it_is_explained(tools: Tools, unit: Path, key: str) -> None:
    """As in a container or after `su`: what to do instead is said, nothing is written."""
    tools.lose_bus()
    done = run("install")
    assert isinstance(done.exception, DecloudError)
    assert "Failed to connect to bus" in done.exception.message
    assert "nohup decloud-trainer start" in done.exception.hint
    assert not unit.exists()


def test_without_systemd_it_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    """As on a system with another service manager."""
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("install")
    assert isinstance(done.exception, DecloudError)
    assert "systemctl is not installed" in done.exception.message
    monkeypatch.setattr(service_module.sys, "platform", "win32")
    done = run("install")
    assert isinstance(done.exception, DecloudError)
    assert "services on win32 are not supported" in done.exception.message


def test_keys_must_be_where_the_service_finds_them(
    tools: Tools, unit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a wallet, or with a key in this session's environment, nothing is installed."""
    assert isinstance(run("install").exception, WalletError)
    secret = base58.b58encode(bytes(Keypair())).decode()
    monkeypatch.setenv("DECLOUD_PRIVATE_KEY", secret)
    refused = run("install").exception
    assert isinstance(refused, SettingsError)
    assert "environment DECLOUD_PRIVATE_KEY, which the service doesn't see" in refused.message
    assert secret not in refused.message + refused.hint
    assert not unit.exists()


def test_a_daemon_by_hand_is_in_the_way(tools: Tools, unit: Path, key: str) -> None:
    """The service would fail at its lock each half minute."""
    with single_instance(make_private_dir(home_dir()) / "daemon.lock", "a daemon"):
        assert isinstance(run("install").exception, AlreadyRunning)
        assert not unit.exists()
        assert run("install", "--no-start").exit_code == 0
        assert run("install").exit_code == 0  # now it is the service that runs
    assert "restart" in " ".join(tools.calls)


def test_status_tells_a_running_service_from_a_failed_one(
    tools: Tools, unit: Path, key: str
) -> None:
    """Exit code 0 only while it runs; a missing sandbox is explained."""
    missing = run("status")
    assert isinstance(missing.exception, DecloudError)
    assert missing.exception.hint == "decloud-trainer service install"
    run("install")
    done = run("status", "--json")
    shown = json.loads(done.output)
    assert (shown["state"], shown["pid"]) == ("running", "4711")
    assert CliRunner().invoke(service, ["status"], standalone_mode=False).return_value == 0
    tools.answer_state(
        ActiveState="failed", SubState="failed", Result="exit-code", ExecMainStatus="226"
    )
    done = CliRunner().invoke(service, ["status"], standalone_mode=False)
    assert done.return_value == 1
    assert "--no-sandbox" in done.output


def test_logs_come_from_the_journal(
    tools: Tools, key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the number of lines asked for."""
    run("install")
    run("logs", "-n", "7")
    assert "a line of the log" in capfd.readouterr().out
    wanted = "--user --unit decloud-trainer.service --lines=7 --no-pager"
    assert tools.calls[-1] == f"journalctl {wanted}"


def test_uninstall_stops_and_removes(tools: Tools, unit: Path, key: str) -> None:
    """The configuration with the key stays."""
    run("install")
    done = run("uninstall")
    assert done.exit_code == 0
    assert not unit.exists()
    assert tools.calls[-2:] == [
        "systemctl --user disable --now decloud-trainer.service",
        "systemctl --user daemon-reload",
    ]
    assert (home_dir() / "config.json").exists()
    assert isinstance(run("uninstall").exception, DecloudError)


@pytest.mark.parametrize("size", ["4 G", "lots", "0G", "-1", "4G; rm"])
def test_amounts_of_memory_are_checked(size: str) -> None:
    """What systemd wouldn't read, or more than a number, is wrong usage."""
    assert run("install", "--print", "--memory-max", size).exit_code == 2


def test_the_environment_of_the_session_stays_out(
    monkeypatch: pytest.MonkeyPatch, tools: Tools
) -> None:
    """Only variables that move folders are passed on."""
    monkeypatch.setenv("HTTPS_PROXY", "http://me:password@proxy:3128")
    monkeypatch.setenv("PINATA_JWT", "a-secret-jwt")
    text = run("install", "--print").output
    assert "password" not in text
    assert "a-secret-jwt" not in text
    assert os.environ["DECLOUD_HOME"] in text
