"""The files that run the daemon in the background: a systemd user unit, a launchd agent."""

from __future__ import annotations

import plistlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NAME = "decloud-trainer.service"
LABEL = "org.decloud.trainer"


@dataclass(frozen=True, slots=True)
class Daemon:
    """What is to run, and what it may do.

    Attributes:
        command: its words.
        environment: variables that it needs; never a secret.
        unset: variables that it must not see, whatever the session has: the keys' ones.
        credentials: name to file: what systemd reads for it and nobody else's process sees.
        folders: what it writes to; everything else is read-only for it.
        nice: how far it gives way to other programs, 0 to 19.
        memory_max: e.g. ``4G``; empty for no limit.
        sandbox: whether to use what needs unprivileged user namespaces.
        log: where launchd puts its output.
    """

    command: Sequence[str]
    folders: Sequence[Path]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    unset: Sequence[str] = ()
    credentials: Mapping[str, Path] = field(default_factory=dict)
    nice: int = 10
    memory_max: str = ""
    sandbox: bool = True


def systemd_unit(daemon: Daemon) -> str:
    """The user unit's text."""
    environment = [f"{name}={value}" for name, value in daemon.environment.items()]
    sections = [
        _UNIT,
        "[Service]",
        _LIFE,
        f"ExecStart={_command(daemon.command)}",
        *(f"Environment={_quoted(line)}" for line in ["PYTHONUNBUFFERED=1", *environment]),
        # The keys come from the configuration, which is readable by its owner alone; a unit's
        # environment can be read by every program of the session.
        f"UnsetEnvironment={' '.join(daemon.unset)}",
        *(
            f"LoadCredential={name}:{_quoted(str(path))}"
            for name, path in daemon.credentials.items()
        ),
        f"\n{_MANNERS}\nNice={daemon.nice}",
        *([f"MemoryMax={daemon.memory_max}"] if daemon.memory_max else []),
        f"\n{_HARDENING}",
    ]
    if daemon.sandbox:
        folders = " ".join(_quoted(str(folder)) for folder in daemon.folders)
        sections += [f"\n{_SANDBOX}", f"ReadWritePaths={folders}"]
    return "\n".join([*sections, "", _INSTALL, ""])


_UNIT = """\
# Written by `decloud-trainer service install`, which overwrites it; make changes with
# `systemctl --user edit decloud-trainer`.
[Unit]
Description=DECLOUD trainer
# Never give up: an endpoint that is away for days comes back.
StartLimitIntervalSec=0
"""

_LIFE = """\
Type=notify
NotifyAccess=main
# Started when the wallet, the network and the program have been looked at.
TimeoutStartSec=180
WatchdogSec=180
Restart=on-failure
RestartSec=30
# Wrong settings and damaged data don't mend themselves.
RestartPreventExitStatus=2 4
# SIGTERM to the daemon alone, which ends its children; whatever is left is killed.
KillMode=mixed
TimeoutStopSec=60"""

_MANNERS = """\
# A training child that takes too much memory is ended, not the daemon.
OOMPolicy=continue
IOSchedulingClass=best-effort
IOSchedulingPriority=7
LimitCORE=0
UMask=0077"""

_HARDENING = """\
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native"""

_SANDBOX = """\
# For a user's unit these need user namespaces; without them the service ends with status
# 226/NAMESPACE or 217/USER: then install it with --no-sandbox.
PrivateUsers=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes"""

_INSTALL = """\
[Install]
WantedBy=default.target"""


def _command(words: Sequence[str]) -> str:
    # In a command, unlike elsewhere, $ begins a variable.
    return " ".join(_quoted(word).replace("$", "$$") for word in words)


def _quoted(text: str) -> str:
    """A word as systemd reads it: quotes and backslashes escaped, % doubled."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if any(c in escaped for c in " \t'\"\\;") else escaped


def launchd_agent(daemon: Daemon) -> str:
    """The property list's text."""
    words = list(daemon.command)
    if daemon.unset:
        words = ["/usr/bin/env", *(w for name in daemon.unset for w in ("-u", name)), *words]
    agent = {
        "Label": LABEL,
        "ProgramArguments": words,
        "EnvironmentVariables": {"PYTHONUNBUFFERED": "1", **daemon.environment},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 30,
        "ExitTimeOut": 60,
        "ProcessType": "Background",
        "Nice": daemon.nice,
        "Umask": 0o077,
        "SoftResourceLimits": {"Core": 0},
        "StandardOutPath": str(daemon.log),
        "StandardErrorPath": str(daemon.log),
    }
    return plistlib.dumps(agent, sort_keys=False).decode()
