"""Drives the system's own keeper of background services: systemd's user manager, or launchd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from decloud_trainer.cli.units import LABEL, NAME, Daemon, launchd_agent, systemd_unit
from decloud_trainer.errors import DecloudError
from decloud_trainer.files import write_atomic

_TIMEOUT_S = 60
BY_HAND = (
    "without a service: nohup decloud-trainer start > trainer.log 2>&1 &   "
    "(`decloud-trainer service install --print` shows the file, for another machine)"
)


class Manager(Protocol):
    """Every method but `text` and `file` raises DecloudError when the system's keeper can't be
    reached, or refuses."""

    @property
    def file(self) -> Path: ...

    def text(self, daemon: Daemon) -> str: ...

    def check(self) -> None:
        """Can it be reached?"""
        ...

    def install(self, daemon: Daemon, *, start: bool) -> list[str]:
        """Write the file and (re)start the daemon; sentences that the user should read."""
        ...

    def uninstall(self) -> None: ...

    def state(self) -> Mapping[str, str]:
        """Facts by name, the first of them ``state``, which is ``running`` when it is."""
        ...

    def logs(self, lines: int, *, follow: bool) -> int:
        """Show its latest output; the exit code of the program that did."""
        ...


def manager_of(platform: str, log: Path) -> Manager:
    """The keeper of this kind of system; `log` is where the daemon writes under launchd."""
    if platform == "linux":
        return Systemd()
    if platform == "darwin":
        return Launchd(log)
    raise DecloudError(f"services on {platform} are not supported", hint=BY_HAND)


class Systemd:
    @property
    def file(self) -> Path:
        home = os.environ.get("XDG_CONFIG_HOME")
        return (Path(home) if home else Path.home() / ".config") / "systemd" / "user" / NAME

    def text(self, daemon: Daemon) -> str:
        return systemd_unit(daemon)

    def check(self) -> None:
        try:
            _run("systemctl", "--user", "show-environment")
        except DecloudError as error:
            raise DecloudError(
                f"systemd's user manager can't be reached here: {error.message}",
                hint="log in directly (not with su or sudo) on a machine that runs systemd; "
                + BY_HAND,
            ) from error

    def install(self, daemon: Daemon, *, start: bool) -> list[str]:
        _write(self.file, self.text(daemon))
        notes = self._verified()
        _run("systemctl", "--user", "daemon-reload")
        if start:
            _run("systemctl", "--user", "enable", NAME)
            # Without waiting: a start that needs the network may take minutes.
            _run("systemctl", "--user", "restart", "--no-block", NAME)
        return notes + _linger_note()

    def _verified(self) -> list[str]:
        if shutil.which("systemd-analyze") is None:
            return []
        done = _call("systemd-analyze", "verify", "--user", str(self.file))
        return [line for line in done.stderr.splitlines() if str(self.file) in line]

    def uninstall(self) -> None:
        _run("systemctl", "--user", "disable", "--now", NAME)
        self.file.unlink(missing_ok=True)
        _run("systemctl", "--user", "daemon-reload")

    def state(self) -> Mapping[str, str]:
        names = "ActiveState SubState MainPID ActiveEnterTimestamp NRestarts Result ExecMainStatus"
        wanted = ",".join(names.split())
        shown = _run("systemctl", "--user", "show", NAME, f"--property={wanted}")
        found = dict(line.partition("=")[::2] for line in shown.splitlines())
        facts = {
            "state": found.get("SubState", "unknown"),
            "since": found.get("ActiveEnterTimestamp", ""),
            "pid": found.get("MainPID", "0"),
            "restarts": found.get("NRestarts", "0"),
        }
        if found.get("ActiveState") != "active":
            facts["result"] = found.get("Result", "")
            facts["exit_status"] = found.get("ExecMainStatus", "")
            if found.get("ExecMainStatus") in ("217", "226"):
                facts["hint"] = "no sandbox here: decloud-trainer service install --no-sandbox"
        return {name: value for name, value in facts.items() if value not in ("", "0")}

    def logs(self, lines: int, *, follow: bool) -> int:
        words = ["journalctl", "--user", "--unit", NAME, f"--lines={lines}"]
        return _show(*words, *(["--follow"] if follow else ["--no-pager"]))


class Launchd:
    def __init__(self, log: Path) -> None:
        self._log = log
        self._domain = f"gui/{os.getuid()}"

    @property
    def file(self) -> Path:
        return Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"

    def text(self, daemon: Daemon) -> str:
        return launchd_agent(daemon)

    def check(self) -> None:
        _run("launchctl", "print", self._domain)

    def install(self, daemon: Daemon, *, start: bool) -> list[str]:
        _call("launchctl", "bootout", f"{self._domain}/{LABEL}")  # of an earlier installation
        _write(self.file, self.text(daemon))
        if start:
            _run("launchctl", "bootstrap", self._domain, str(self.file))
        return []

    def uninstall(self) -> None:
        _call("launchctl", "bootout", f"{self._domain}/{LABEL}")  # may not be loaded
        self.file.unlink(missing_ok=True)

    def state(self) -> Mapping[str, str]:
        shown = _run("launchctl", "print", f"{self._domain}/{LABEL}")
        pairs = (line.strip().partition(" = ") for line in shown.splitlines())
        found = {name: value for name, sign, value in pairs if sign}
        wanted = ("state", "pid", "runs", "last exit code")
        return {name: found[name] for name in wanted if name in found}

    def logs(self, lines: int, *, follow: bool) -> int:
        return _show("tail", "-n", str(lines), *(["-f"] if follow else []), str(self._log))


def _linger_note() -> list[str]:
    """A user's services end with the last session unless the user lingers."""
    user = os.environ.get("USER") or str(os.getuid())
    try:
        lingers = _run("loginctl", "show-user", user, "--property=Linger", "--value").strip()
    except DecloudError:
        return []
    note = f"it ends when you log out; to keep it running: loginctl enable-linger {user}"
    return [note] if lingers == "no" else []


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, text.encode())
    except OSError as error:
        raise DecloudError(f"can't write {file}: {error.strerror}") from error


def _run(*words: str) -> str:
    """The program's output.

    Raises:
        DecloudError: it isn't installed, or failed; with its last words.
    """
    done = _call(*words)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        what = said[-1] if said else f"exit code {done.returncode}"
        raise DecloudError(f"{' '.join(words[:3])}: {what}")
    return done.stdout


def _call(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [_tool(words[0]), *words[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DecloudError(f"{words[0]} has not answered in {_TIMEOUT_S} s") from error


def _show(*words: str) -> int:
    sys.stdout.flush()
    return subprocess.run([_tool(words[0]), *words[1:]], check=False).returncode


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise DecloudError(f"{name} is not installed", hint=BY_HAND)
    return path
