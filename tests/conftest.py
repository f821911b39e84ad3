"""Guards for all tests: no home folder, no keys from the environment, no other machine."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decloud_trainer.settings import TABLE

# Wallets' and services' keys, and what would lead out of a test's own home.
SECRETS = {name for row in TABLE.values() for name in row.setting.env}
PLACES = ("DECLOUD_", "XDG_", "AWS_")


def pytest_configure() -> None:
    """Ctrl-C means something to the commands that are tested, however the tests were started."""
    # A shell without job control has its background programs ignore it, and their children, too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def give_home(patch: pytest.MonkeyPatch, home: Path) -> None:
    """From now on everybody lives there."""
    for name in list(os.environ):
        if name in SECRETS or name.startswith(PLACES):
            patch.delenv(name)
    patch.setenv("HOME", str(home))
    patch.setenv("DECLOUD_HOME", str(home / "decloud"))


@pytest.fixture(autouse=True, scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is shared by several tests has a home of ours, too."""
    with pytest.MonkeyPatch.context() as patch:
        give_home(patch, tmp_path_factory.mktemp("home-of-all"))
        yield


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a home of its own and no secrets in its environment."""
    home = tmp_path_factory.mktemp("home")
    give_home(monkeypatch, home)
    return home


def _is_loopback(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # a UNIX socket
    host = str(address[0])
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(autouse=True, scope="session")
def loopback_only() -> Iterator[None]:
    """A connection to any other machine fails the test that tries it."""
    real = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}

    def guard(name: str) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            if not _is_loopback(address):
                pytest.fail(f"a test tried to reach {address}", pytrace=True)
            return real[name](self, address)

        return connect

    for name in real:
        setattr(socket.socket, name, guard(name))
    yield
    for name, method in real.items():
        setattr(socket.socket, name, method)
