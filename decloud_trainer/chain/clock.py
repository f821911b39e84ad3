"""The chain's clock: deadlines are in its time, which may differ from this machine's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from solders.pubkey import Pubkey

from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.errors import NetworkError, RpcError

log = logging.getLogger(__name__)

CLOCK_SYSVAR = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
_UNIX_TIME_AT = 32  # behind slot, epoch start, epoch and leader schedule epoch
REFRESH_S = 30.0


class ChainClock:
    """Unix seconds on chain, from this machine's clock and the last measured offset.

    The chain's time has a resolution of a second and lags by about one slot."""

    def __init__(self, rpc: Rpc, *, local: Callable[[], float] = time.time) -> None:
        self._rpc = rpc
        self._local = local
        self._offset = 0.0

    def now(self) -> float:
        return self._local() + self._offset

    def to_local(self, chain_time: float) -> float:
        """When, by this machine's clock, it is `chain_time` on chain."""
        return chain_time - self._offset

    async def refresh(self) -> None:
        """Measure the offset. Raises RpcError."""
        account = await self._rpc.account(CLOCK_SYSVAR)
        if account is None or len(account.data) < _UNIX_TIME_AT + 8:
            raise RpcError("the endpoint doesn't serve the chain's clock")
        chain_time = int.from_bytes(account.data[_UNIX_TIME_AT:][:8], "little", signed=True)
        offset = chain_time - self._local()
        # Within the clock's own resolution and lag, this machine's clock is the better one.
        self._offset = 0.0 if abs(offset) < 3 else offset

    async def keep_refreshing(self) -> None:
        """For ever; an endpoint that doesn't answer leaves the last offset in use."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except NetworkError as error:
                log.info("the chain's clock can't be read: %s", error)
