"""The chain's clock: deadlines are in its time, which may differ from this machine's.

Between two measurements time is taken from a clock that nobody sets and that goes on while the
machine sleeps, so neither a correction of this machine's clock nor a suspended laptop moves a
deadline.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from solders.pubkey import Pubkey

from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.errors import NetworkError, RpcError

log = logging.getLogger(__name__)

CLOCK_SYSVAR = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
_UNIX_TIME_AT = 32  # behind slot, epoch start, epoch and leader schedule epoch
REFRESH_S = 30.0
# How often it is looked whether the clock was set or the machine has slept, and from when on a
# difference is that and not a busy machine.
LOOK_S, JUMP_S = 5.0, 10.0


def elapsed_s() -> float:
    """Seconds of a clock that can't be set and, where the system has one, goes on in a sleep."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class ChainClock:
    """Unix seconds on chain, as last measured and counted on from there.

    The chain's time has a resolution of a second and lags by about one slot.

    Args:
        local: unix seconds by this machine's clock.
        elapsed: see `elapsed_s`.
    """

    def __init__(
        self,
        rpc: Rpc,
        *,
        local: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = elapsed_s,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rpc = rpc
        self._local = local
        self._elapsed = elapsed
        self._sleep = sleep
        self._at, self._since = local(), elapsed()

    def now(self) -> float:
        return self._at + self._elapsed() - self._since

    def to_local(self, chain_time: float) -> float:
        """When, by this machine's clock, it is `chain_time` on chain."""
        return self._local() + chain_time - self.now()

    async def refresh(self) -> None:
        """Measure. Raises RpcError."""
        account = await self._rpc.account(CLOCK_SYSVAR)
        if account is None or len(account.data) < _UNIX_TIME_AT + 8:
            raise RpcError("the endpoint doesn't serve the chain's clock")
        chain_time = int.from_bytes(account.data[_UNIX_TIME_AT:][:8], "little", signed=True)
        local, self._since = self._local(), self._elapsed()
        # Within the clock's own resolution and lag, this machine's clock is the better one.
        self._at = local if abs(chain_time - local) < 3 else float(chain_time)

    async def keep_refreshing(self, on_jump: Callable[[], object] = lambda: None) -> None:
        """For ever; an endpoint that doesn't answer leaves the last measurement in use.

        Args:
            on_jump: called when this machine has slept, or its clock was set.
        """
        next_time = self._elapsed() + REFRESH_S
        while True:
            pause = min(LOOK_S, REFRESH_S)
            before = self._local(), self._elapsed()
            await self._sleep(pause)
            local_s, slept_s = self._local() - before[0], self._elapsed() - before[1]
            jumped = max(abs(local_s - pause), abs(slept_s - pause)) > JUMP_S
            if jumped:
                log.warning(
                    "%s: connecting anew, reading everything again",
                    f"this machine has slept for {slept_s - pause:.0f} s"
                    if slept_s - pause > JUMP_S
                    else f"this machine's clock has jumped by {local_s - pause:+.0f} s",
                )
                on_jump()
            if jumped or self._elapsed() >= next_time:
                await self._try_refresh()
                next_time = self._elapsed() + REFRESH_S

    async def _try_refresh(self) -> None:
        try:
            await self.refresh()
        except NetworkError as error:
            log.info("the chain's clock can't be read: %s", error)
