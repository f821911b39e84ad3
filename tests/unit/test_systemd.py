"""What systemd hears of the daemon."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from decloud_trainer.cli.systemd import announced, send, watchdog_s


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The address as NOTIFY_SOCKET has it, and systemd's end of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        if request.param == "path":
            address = str(tmp_path / "notify")
            end.bind(address)
        else:
            address = f"@decloud-test-{os.getpid()}"
            end.bind("\0" + address[1:])
        end.settimeout(5)
        yield address, end


async def test_ready_alive_and_stopping(listener: tuple[str, socket.socket]) -> None:
    """In that order, with pings at half the time that systemd allows."""
    address, end = listener
    environ = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "40000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    async with announced("listening", environ):
        await asyncio.sleep(0.1)
    heard = []
    while not heard or heard[-1] != "STOPPING=1":
        heard.append(end.recv(1000).decode())
    assert heard[0] == "READY=1\nSTATUS=listening"
    assert heard[1:-1] == ["WATCHDOG=1"] * len(heard[1:-1])
    assert 3 <= len(heard[1:-1]) <= 6


async def test_stopping_is_told_after_a_failure(listener: tuple[str, socket.socket]) -> None:
    """The error itself goes on."""
    address, end = listener
    with pytest.raises(ZeroDivisionError):
        async with announced("x", {"NOTIFY_SOCKET": address}):
            raise ZeroDivisionError
    assert [end.recv(100), end.recv(100)] == [b"READY=1\nSTATUS=x", b"STOPPING=1"]


async def test_without_systemd_nothing_happens() -> None:
    """Nor with an address that isn't a local one."""
    async with announced("x", {}):
        pass
    async with announced("x", {"NOTIFY_SOCKET": "vsock:2:3", "WATCHDOG_USEC": "1000000"}):
        pass


def test_a_socket_that_is_gone_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged."""
    send(str(tmp_path / "nobody"), "READY=1")
    assert "systemd can't be told 'READY=1'" in caplog.text


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "180000000"}, 90.0),
        ({"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_the_watchdog_is_ours_or_not(environ: dict[str, str], seconds: float) -> None:
    """A child that inherited another process's watchdog leaves it alone."""
    assert watchdog_s(environ) == seconds
