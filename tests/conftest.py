"""Guards for all tests: no home folder, no keys from the environment, no other machine."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

import pytest

SECRETS = (
    "DECLOUD_PRIVATE_KEY",
    "SOLANA_PRIVATE_KEY",
    "PINATA_API_KEY",
    "PINATA_SECRET_KEY",
    "PINATA_JWT",
    "KUBO_TOKEN",
    "PINNING_API_TOKEN",
)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a home of its own and no secrets in its environment."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name in SECRETS or name.startswith("DECLOUD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DECLOUD_HOME", str(home / "decloud"))
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
def loopback_only() -> Any:
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
