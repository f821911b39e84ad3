"""Finds the rounds that can be joined, at a cost that doesn't grow with those that are over.

At first the server filters: a round's status stands behind its model's CID, so there is one query
for each usual length of a CID and each wanted status. From then on one small call tells all: the
program's counter says which rounds are new, and the open ones are read by their ids. The listing
is repeated at long intervals, in case the counter or an answer was wrong.

Rounds whose CIDs have other lengths are rare, and no filter finds them: at the first listing the
lengths in the newest `LOOK_BACK` rounds are read, four bytes each.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from solders.pubkey import Pubkey

from decloud_trainer.chain import v1
from decloud_trainer.chain.rpc import Account, Rpc
from decloud_trainer.errors import LayoutError, RpcError
from decloud_trainer.rounds.model import Round, RoundStatus

log = logging.getLogger(__name__)

OPEN: Final = (RoundStatus.WAITING_VALIDATOR, RoundStatus.WAITING_TRAINERS)
LOOK_BACK: Final = 500
RELIST_S: Final = 3600.0

_CID_LENGTH_AT: Final = (48, 4)  # offset and size, in a round's account
Decode = Callable[[Account], Round | None]


class OpenRounds:
    """The open rounds of one program, read again and again.

    Args:
        decode: the round in an account; None for one that can't be read.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        rpc: Rpc,
        program: Pubkey,
        decode: Decode,
        *,
        relist_s: float = RELIST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rpc = rpc
        self._program = program
        self._decode = decode
        self._relist_s = relist_s
        self._clock = clock
        self._next_list: float | None = None
        self._looked_back = False
        self._count: int | None = None
        # Ids that were open when last read, and new ones that no endpoint has shown yet.
        self._ids: set[int] = set()

    async def read(self) -> list[Round]:
        """All open rounds, in no order. Raises RpcError."""
        now = self._clock()
        if self._next_list is None or self._count is None or now >= self._next_list:
            found, unseen = await self._list()
            self._next_list = now + self._relist_s
        else:
            found, unseen = await self._follow(self._count)
        opened = [round_ for round_ in found if round_.status in OPEN]
        self._ids = {round_.id for round_ in opened} | unseen
        return opened

    async def with_status(self, statuses: Iterable[RoundStatus]) -> list[Account]:
        """Accounts of rounds with these statuses and CIDs of the usual lengths."""
        return [
            account
            for length in v1.CID_LENGTHS
            for status in statuses
            for account in await self._rpc.program_accounts(
                self._program, v1.round_filters(status=status, cid_length=length)
            )
        ]

    async def unusual(self) -> list[Account]:
        """Accounts of the newest rounds whose CIDs have another length, whatever their status."""
        count = await self._read_count()
        if not count:
            return []
        ids = range(max(0, count - LOOK_BACK), count)
        slices = await self._rpc.accounts(self._addresses(ids), data_slice=_CID_LENGTH_AT)
        strange = [
            number
            for number, part in zip(ids, slices, strict=True)
            if part is not None and int.from_bytes(part.data, "little") not in v1.CID_LENGTHS
        ]
        found = await self._rpc.accounts(self._addresses(strange))
        return [account for account in found if account is not None]

    async def _list(self) -> tuple[list[Round], set[int]]:
        # The counter first: what is posted between the two calls is new at the next look.
        self._count = await self._read_count()
        accounts = await self.with_status(OPEN)
        known = self._ids
        if not self._looked_back:
            try:
                accounts += await self.unusual()
                self._looked_back = True
            except RpcError as error:  # the usual rounds go on without
                log.warning("could not look for rounds with unusual CIDs: %s", error)
        found = {round_.id: round_ for round_ in self._decoded(accounts)}
        others = await self._rpc.accounts(self._addresses(known - set(found)))
        return [*found.values(), *self._decoded(others)], set()

    async def _follow(self, count: int) -> tuple[list[Round], set[int]]:
        ids = sorted(self._ids)
        counter, _ = v1.counter_address(self._program)
        told, *accounts = await self._rpc.accounts([counter, *self._addresses(ids)])
        now = self._counted(told) or count
        # An older answer has a smaller count. Never more new ones than a listing would look at.
        new = range(max(count, now - LOOK_BACK), now)
        accounts += await self._rpc.accounts(self._addresses(new))
        self._count = max(count, now)
        pairs = zip([*ids, *new], accounts, strict=True)
        unseen = {number for number, account in pairs if account is None}
        return self._decoded(accounts), unseen

    async def _read_count(self) -> int | None:
        return self._counted(await self._rpc.account(v1.counter_address(self._program)[0]))

    def _counted(self, account: Account | None) -> int | None:
        """How many rounds were posted; None where there is no counter that we can read."""
        if account is None or account.owner != self._program:
            return None
        try:
            return v1.decode_counter(account.data, program=self._program)
        except LayoutError as error:
            log.debug("the counter can't be read: %s", error)
            return None

    def _addresses(self, ids: Iterable[int]) -> list[Pubkey]:
        return [v1.round_address(number, self._program)[0] for number in ids]

    def _decoded(self, accounts: Iterable[Account | None]) -> list[Round]:
        decoded = (self._decode(account) for account in accounts if account is not None)
        return [round_ for round_ in decoded if round_ is not None]
