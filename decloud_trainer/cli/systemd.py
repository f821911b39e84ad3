"""Tells systemd that the daemon is ready, alive, or stopping; without systemd it does nothing.

The protocol is a datagram of ``NAME=VALUE`` lines to the socket in ``NOTIFY_SOCKET``
(sd_notify(3)). The watchdog's pings come from the event loop, so a loop that hangs is restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def announced(
    status: str = "", environ: Mapping[str, str] = os.environ
) -> AsyncIterator[None]:
    """Ready on entering, pinging the watchdog inside, stopping on leaving."""
    address = environ.get("NOTIFY_SOCKET", "")
    interval_s = watchdog_s(environ)
    pings = asyncio.create_task(_ping(address, interval_s)) if address and interval_s else None
    send(address, f"READY=1\nSTATUS={status}")
    try:
        yield
    finally:
        if pings is not None:
            pings.cancel()
        send(address, "STOPPING=1")


def watchdog_s(environ: Mapping[str, str]) -> float:
    """How often to ping: half of what systemd allows; 0 if it doesn't watch this process."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2e6 if ours and microseconds.isdecimal() else 0.0


def send(address: str, message: str) -> None:
    """One datagram; a lost one is logged: systemd then acts as the unit says."""
    if not address.startswith(("/", "@")):
        return
    # An @ stands for the NUL byte of Linux's abstract addresses.
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(message.encode(), name)
    except OSError as error:
        log.warning("systemd can't be told %r: %s", message.partition("\n")[0], error.strerror)


async def _ping(address: str, interval_s: float) -> None:
    while True:
        send(address, "WATCHDOG=1")
        await asyncio.sleep(interval_s)
