"""The chain's clock: deadlines are in its time, this machine's may be off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from localchain import until

from decloud_trainer.chain.clock import CLOCK_SYSVAR, ChainClock, elapsed_s
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


class Machine:
    """This machine's clocks and its sleeping, all driven."""

    def __init__(self) -> None:
        self.local = 1000.0
        self.elapsed = 50.0
        self.at_sleep: list[Callable[[], None]] = []

    def passes(self, seconds: float) -> None:
        self.local += seconds
        self.elapsed += seconds

    async def sleep(self, seconds: float) -> None:
        """Time passes, and what the test wants to happen meanwhile; then it waits for ever."""
        if not self.at_sleep:
            await asyncio.Event().wait()
        self.passes(seconds)
        self.at_sleep.pop(0)()


def chain_clock(node: Node, machine: Machine | None = None) -> ChainClock:
    machine = machine or Machine()
    return ChainClock(
        node,  # type: ignore[arg-type]
        local=lambda: machine.local,
        elapsed=lambda: machine.elapsed,
        sleep=machine.sleep,
    )


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


async def keep_refreshing(clock: ChainClock, machine: Machine) -> int:
    """Until the machine's script is over; how often a jump was told."""
    jumps: list[None] = []
    task = asyncio.create_task(clock.keep_refreshing(lambda: jumps.append(None)))
    await until(lambda: not machine.at_sleep)
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return len(jumps)


def nothing() -> None:
    pass


async def test_a_lost_endpoint_leaves_the_last_measurement_in_use() -> None:
    """It goes on measuring every half minute, and follows a clock that was moved."""
    machine, node = Machine(), Node(5000)
    clock = chain_clock(node, machine)
    await clock.refresh()
    node.fails = True
    machine.at_sleep = [nothing] * 6
    assert await keep_refreshing(clock, machine) == 0
    assert (clock.now(), node.asked) == (5030, 2)
    node.fails, node.unix_time = False, 9000
    machine.at_sleep = [nothing] * 6
    assert await keep_refreshing(clock, machine) == 0
    assert (clock.now(), node.asked) == (9000, 3)


@pytest.mark.parametrize("step", [-7200.0, 86400.0])
async def test_setting_this_machines_clock_moves_no_deadline(step: float) -> None:
    """The chain's time goes on, and a child's deadline is told in the clock as it is now."""
    machine, node = Machine(), Node(1000)
    clock = chain_clock(node, machine)
    await clock.refresh()
    machine.local += step
    assert clock.now() == 1000
    assert clock.to_local(1060) == machine.local + 60


async def test_a_sleep_of_the_machine_counts() -> None:
    """An hour in a closed laptop has passed on chain, too: at once, without asking anyone."""
    machine, node = Machine(), Node(1000)
    clock = chain_clock(node, machine)
    await clock.refresh()
    machine.passes(3600)
    assert clock.now() == 4600


def test_the_elapsed_clock_goes_on_in_a_sleep_where_there_is_one() -> None:
    """On Linux that is the boot time; it never goes back."""
    first = elapsed_s()
    assert 0 < first <= elapsed_s()


@pytest.mark.parametrize("what", ["slept", "set ahead", "set back"])
async def test_a_jump_is_noticed_and_everything_looked_at_again(what: str) -> None:
    """Once per jump: the watch is told, and the chain's clock is read at once."""
    machine, node = Machine(), Node(1000)
    clock = chain_clock(node, machine)
    await clock.refresh()

    def jump() -> None:
        machine.local += -3600 if what == "set back" else 3600
        machine.elapsed += 3600 if what == "slept" else 0

    machine.at_sleep = [nothing, jump, nothing]
    assert await keep_refreshing(clock, machine) == 1
    assert node.asked == 2


async def test_a_busy_machine_is_no_jump() -> None:
    """A few late seconds connect nothing anew."""
    machine, node = Machine(), Node(1000)
    clock = chain_clock(node, machine)
    machine.at_sleep = [lambda: machine.passes(6)] * 3
    assert await keep_refreshing(clock, machine) == 0
