"""The fault switchboard: what the local network is to do wrong, for how often or how long."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from decloud_trainer.errors import SettingsError

NAMES = {
    "rpc_429": "the RPC server answers 429 Too Many Requests",
    "rpc_timeout": "the RPC server accepts requests and never answers",
    "rpc_lost_answer": "the RPC server does what is asked and never answers",
    "rpc_503": "the RPC server answers 503 Service Unavailable",
    "rpc_truncated": "the RPC server's answers break off in the middle",
    "rpc_wrong_id": "the RPC server's answers bear another request's id",
    "rpc_stale": "the RPC server answers from slots long past",
    "rpc_forked_away": "the RPC server accepts transactions and loses them",
    "ws_drop": "WebSocket connections are cut, new ones right away",
    "ws_half_open": "WebSocket connections stay open and fall silent",
    "ws_lose_event": "WebSocket notifications get lost",
    "ws_lose_some": "three in ten WebSocket notifications get lost",
    "ws_repeat": "WebSocket notifications come twice",
    "ws_reorder": "WebSocket notifications swap places in pairs",
    "gateway_wrong_bytes": "the IPFS gateway serves bytes that the CID doesn't name",
    "pin_down": "the pin service answers 503 Service Unavailable",
    "pin_lost": "the pin service takes uploads and keeps nothing",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that is on.

    Attributes:
        left: how often it will still strike; None = no limit.
        until: when it ends, on the switchboard's own clock; None = when it is switched off.
    """

    left: int | None
    until: float | None


class Faults:
    """Which faults are on. Servers ask; a person or a test switches.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._on: dict[str, Fault] = {}
        self._watchers: list[Callable[[str], None]] = []

    def switch(
        self,
        name: str,
        *,
        on: bool = True,
        count: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Switch a fault on, for the next `count` times or for `seconds` or until told, or off.

        Raises:
            SettingsError: there is no such fault, or a count or duration is negative.
        """
        if name not in NAMES:
            raise SettingsError(
                f"there is no fault called {name!r}", hint=f"choose one of {', '.join(NAMES)}"
            )
        if (count is not None and count < 0) or (seconds is not None and not seconds >= 0):
            raise SettingsError(f"the count and the seconds of the fault {name} can't be negative")
        if on:
            until = None if seconds is None else self._clock() + seconds
            self._on[name] = Fault(count, until)
        else:
            self._on.pop(name, None)
        for watcher in tuple(self._watchers):
            watcher(name)

    def is_on(self, name: str) -> bool:
        """Whether it would strike now; nothing is counted."""
        fault = self._on.get(name)
        if fault is None:
            return False
        over = fault.until is not None and self._clock() >= fault.until
        if over or (fault.left is not None and fault.left <= 0):
            del self._on[name]
            return False
        return True

    def take(self, name: str) -> bool:
        """Whether it strikes now; if so, that counts as one time."""
        if not self.is_on(name):
            return False
        fault = self._on[name]
        if fault.left is not None:
            self._on[name] = Fault(fault.left - 1, fault.until)
        return True

    def active(self) -> dict[str, dict[str, float | int | None]]:
        """All faults that are on, with what is left of them, for people and scripts."""
        now = self._clock()
        return {
            name: {
                "count": self._on[name].left,
                "seconds": None if (until := self._on[name].until) is None else until - now,
            }
            for name in tuple(self._on)
            if self.is_on(name)
        }

    def watch(self, watcher: Callable[[str], None]) -> Callable[[], None]:
        """Have `watcher(name)` called at each switching; the answer ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)
