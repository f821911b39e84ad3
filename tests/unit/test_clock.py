"""The chain's clock: deadlines are in its time, this machine's may be off."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from localchain import until

from decloud_trainer.chain import clock as clock_module
from decloud_trainer.chain.clock import CLOCK_SYSVAR, ChainClock
from decloud_trainer.chain.rpc import Account
from decloud_trainer.errors import RpcError


class Node:
    """Serves the clock's account, as its time stands."""

    def __init__(self, unix_time: int | None) -> None:
        self.unix_time = unix_time
        self.asked = 0
        self.fails = False

    async def account(self, address: Any) -> Account | None:
        self.asked += 1
        if self.fails:
            raise RpcError("no answer")
        if self.unix_time is None:
            return None
        data = bytes(32) + self.unix_time.to_bytes(8, "little", signed=True)
        return Account(address, CLOCK_SYSVAR, 1, data)


def chain_clock(node: Node, local: float = 1000.0) -> ChainClock:
    return ChainClock(node, local=lambda: local)  # type: ignore[arg-type]


async def test_a_chain_that_is_ahead_or_behind_is_followed() -> None:
    """Now is the chain's; a deadline of its time is turned into one of this machine."""
    for unix_time in (5000, 10):
        clock = chain_clock(Node(unix_time))
        assert clock.now() == 1000.0
        await clock.refresh()
        assert clock.now() == unix_time
        assert clock.to_local(unix_time + 60) == 1060.0


@pytest.mark.parametrize("unix_time", [998, 1000, 1002])
async def test_what_is_within_the_clocks_resolution_is_no_offset(unix_time: int) -> None:
    """The chain counts whole seconds and lags a little: this machine is more exact then."""
    clock = chain_clock(Node(unix_time))
    await clock.refresh()
    assert clock.now() == 1000.0


async def test_an_endpoint_without_a_clock_is_an_error() -> None:
    """Nothing is guessed from half an account."""
    with pytest.raises(RpcError, match="doesn't serve the chain's clock"):
        await chain_clock(Node(None)).refresh()


async def test_a_lost_endpoint_leaves_the_last_offset_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It goes on measuring, and follows a clock that was moved."""
    monkeypatch.setattr(clock_module, "REFRESH_S", 0.01)
    node = Node(5000)
    clock = chain_clock(node)
    await clock.refresh()
    node.fails = True
    task = asyncio.create_task(clock.keep_refreshing())
    await until(lambda: node.asked >= 4)
    assert clock.now() == 5000
    node.fails, node.unix_time = False, 9000
    await until(lambda: clock.now() == 9000)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
