"""The service files: what systemd and launchd read."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from decloud_trainer.cli.units import NAME, Daemon, launchd_agent, systemd_unit


def daemon(tmp_path: Path, **changes: object) -> Daemon:
    values: dict[str, object] = {
        "command": (sys.executable, "-P", "-m", "decloud_trainer", "start"),
        "folders": (tmp_path / "home", tmp_path / "with blank %h"),
        "log": tmp_path / "service.log",
        "environment": {"DECLOUD_HOME": str(tmp_path / 'a "b" %h')},
        "unset": ("DECLOUD_PRIVATE_KEY", "PINATA_JWT"),
    }
    return Daemon(**(values | changes))  # type: ignore[arg-type]


def lines(text: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here"
)
@pytest.mark.parametrize("changes", [{}, {"sandbox": False}, {"memory_max": "4G", "nice": 19}])
def test_systemd_finds_nothing_wrong(tmp_path: Path, changes: dict[str, object]) -> None:
    """`systemd-analyze verify` has no word to say about the unit, in any of its forms."""
    file = tmp_path / NAME
    file.write_text(systemd_unit(daemon(tmp_path, **changes)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(file)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_is_hardened(tmp_path: Path) -> None:
    """It is watched, comes back, gives way, can't gain rights, and writes to its folders alone."""
    text = systemd_unit(daemon(tmp_path))
    expected = {
        "Type": "notify",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "2 4",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "read-only",
        "Nice": "10",
        "UMask": "0077",
        "LimitCORE": "0",
        "OOMPolicy": "continue",
    }
    assert {key: lines(text, key) for key in expected} == {k: [v] for k, v in expected.items()}
    assert lines(text, "WatchdogSec")
    assert lines(text, "MemoryMax") == []
    (folders,) = lines(text, "ReadWritePaths")
    assert folders == f'{tmp_path}/home "{tmp_path}/with blank %%h"'


def test_without_a_sandbox_the_rest_of_the_hardening_stays(tmp_path: Path) -> None:
    """Only what needs user namespaces is left out."""
    text = systemd_unit(daemon(tmp_path, sandbox=False, memory_max="4G"))
    assert lines(text, "ProtectSystem") == []
    assert lines(text, "ReadWritePaths") == []
    assert lines(text, "NoNewPrivileges") == ["yes"]
    assert lines(text, "MemoryMax") == ["4G"]


def test_words_survive_systemds_quoting(tmp_path: Path) -> None:
    """Blanks, quotes, percent and dollar signs of paths mean themselves."""
    text = systemd_unit(daemon(tmp_path, command=("/opt/my app/python", "$HOME", "100%", 'a"b')))
    assert lines(text, "ExecStart") == ['"/opt/my app/python" $$HOME 100%% "a\\"b"']
    quoted = str(tmp_path / 'a \\"b\\" %%h')
    assert f'"DECLOUD_HOME={quoted}"' in lines(text, "Environment")


def test_keys_of_the_session_are_shut_out(tmp_path: Path) -> None:
    """The variables that could hold a key are unset, by systemd and by launchd."""
    assert lines(systemd_unit(daemon(tmp_path)), "UnsetEnvironment") == [
        "DECLOUD_PRIVATE_KEY PINATA_JWT"
    ]
    words = plistlib.loads(launchd_agent(daemon(tmp_path)).encode())["ProgramArguments"]
    assert words[:5] == ["/usr/bin/env", "-u", "DECLOUD_PRIVATE_KEY", "-u", "PINATA_JWT"]


def test_the_launchd_agent_comes_back_after_failures(tmp_path: Path) -> None:
    """A valid property list that starts the same command, with its home."""
    agent = plistlib.loads(launchd_agent(daemon(tmp_path, nice=5)).encode())
    assert agent["ProgramArguments"][-5:] == [
        *(sys.executable, "-P", "-m", "decloud_trainer", "start")
    ]
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["EnvironmentVariables"]["DECLOUD_HOME"] == str(tmp_path / 'a "b" %h')
    assert (agent["Nice"], agent["Umask"]) == (5, 0o077)
