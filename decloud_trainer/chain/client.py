"""Reads of a v1 program by one wallet: the Chain port.

Reads stay small, however many rounds are over: see openrounds.py.

Nothing that an endpoint sends is taken as it is: owner, layout, stored bumps and the address that
belongs to the stored id must fit. One account that doesn't is skipped, and logged once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from solders.pubkey import Pubkey

from decloud_trainer.chain import v1
from decloud_trainer.chain.fees import USUAL_UNITS, lamports_of, price_at
from decloud_trainer.chain.openrounds import OpenRounds
from decloud_trainer.chain.rpc import Account, Rpc
from decloud_trainer.chain.v1_accounts import SUBMISSION_BYTES
from decloud_trainer.chain.vetting import FEE_PER_SIGNATURE_LAMPORTS
from decloud_trainer.errors import LayoutError, NetworkError
from decloud_trainer.rounds.model import Costs, Round, RoundStatus, Submission
from decloud_trainer.rounds.prospects import CALM

log = logging.getLogger(__name__)


_MAX_LOGGED: Final = 1000
# What others pay is asked again after so long.
_PRICED_S: Final = 20.0
# The round's accounts that its transactions write to.
_WRITTEN: Final = (v1.round_address, v1.vault_address)


class SolanaChain:
    """The Chain port for one wallet and one v1 program.

    Args:
        trainer: the wallet's public key, base58.
    """

    def __init__(
        self,
        rpc: Rpc,
        trainer: str,
        *,
        program: Pubkey = v1.PROGRAM_ID,
    ) -> None:
        self._rpc = rpc
        self._trainer = v1.as_pubkey(trainer)
        self._program = program
        self._opened = OpenRounds(rpc, program, self.readable_round)
        self._logged: set[Pubkey] = set()
        self._costs: Costs | None = None
        self._priced = (0.0, -1, 0)  # when, for which round, lamports

    async def round(self, round_id: int) -> Round | None:
        address, _ = v1.round_address(round_id, self._program)
        account = await self._rpc.account(address)
        return None if account is None or _is_plain(account) else self._decode_round(account)

    async def rounds(self, round_ids: Iterable[int]) -> list[Round]:
        """The rounds of these ids that exist, in one call for each hundred."""
        addresses = [v1.round_address(number, self._program)[0] for number in round_ids]
        found = await self._rpc.accounts(addresses)
        return self._readable(account for account in found if account is not None)

    async def open_rounds(self) -> list[Round]:
        return sorted(await self._opened.read(), key=lambda round_: round_.id)

    async def rounds_with(self, *statuses: RoundStatus) -> list[Round]:
        """Rounds of these statuses; all rounds there are if none is given. Sorted by id."""
        if statuses:
            accounts = await self._opened.with_status(statuses)
            accounts += await self._opened.unusual()
        else:
            accounts = await self._rpc.program_accounts(self._program, v1.round_filters())
        found = {round_.id: round_ for round_ in self._readable(accounts)}
        return [found[n] for n in sorted(found) if not statuses or found[n].status in statuses]

    async def submission(self, round_id: int) -> Submission | None:
        address, _ = v1.submission_address(round_id, self._trainer, self._program)
        account = await self._rpc.account(address)
        if account is None or _is_plain(account):
            return None
        return self._decode_submission(account)

    async def submissions(self, *, unclaimed: bool = False) -> list[Submission]:
        wanted = [[v1.submission_filters(self._trainer)]]
        if unclaimed:
            # What was claimed over the years isn't even sent. Nothing is missed that is submitted
            # meanwhile: it is read again, later, with the length that its CID then has.
            none, *lengths = (
                v1.submission_filters(self._trainer, claimed=False, cid_length=length)
                for length in v1.SUBMITTED_LENGTHS
            )
            wanted = [[none], lengths]
        found: dict[int, Submission] = {}
        for together in wanted:
            asked = (self._rpc.program_accounts(self._program, filters) for filters in together)
            for account in itertools.chain.from_iterable(await asyncio.gather(*asked)):
                try:
                    submission = self._decode_submission(account)
                except LayoutError as error:
                    self._log_once(account.address, error)
                    continue
                found[submission.round_id] = submission
        return [found[number] for number in sorted(found)]

    async def genesis_hash(self) -> str:
        return await self._rpc.genesis_hash()

    async def balance(self, *, since_slot: int = 0) -> int:
        return await self._rpc.balance(self._trainer, since_slot=since_slot)

    async def costs(self, round_id: int | None = None) -> Costs:
        """Rent as the chain computes it, and the base fee; for a round the priority fee that the
        middle one of recent transactions on its accounts would have paid for ours."""
        if self._costs is None:
            rent = await self._rpc.rent(SUBMISSION_BYTES)
            self._costs = Costs(join_rent_lamports=rent, fee_lamports=FEE_PER_SIGNATURE_LAMPORTS)
        if round_id is None:
            return self._costs
        return replace(self._costs, priority_lamports=await self._priority(round_id))

    async def _priority(self, round_id: int) -> int:
        asked, number, lamports = self._priced
        now = time.monotonic()
        if number == round_id and now < asked + _PRICED_S:
            return lamports
        written = [derive(round_id, self._program)[0] for derive in _WRITTEN]
        try:
            price = price_at(await self._rpc.recent_priority(written), CALM)
        except NetworkError as error:
            log.info("what others pay for priority can't be asked: %s", error)
            price = 0
        lamports = lamports_of(price, USUAL_UNITS)
        self._priced = now, round_id, lamports
        return lamports

    def readable_round(self, account: Account) -> Round | None:
        """The round in an account that came from elsewhere; None, and a log line, if it is none."""
        try:
            return self._decode_round(account)
        except LayoutError as error:
            self._log_once(account.address, error)
            return None

    def _readable(self, accounts: Iterable[Account]) -> list[Round]:
        decoded = (self.readable_round(account) for account in accounts)
        return [round_ for round_ in decoded if round_ is not None]

    def _decode_round(self, account: Account) -> Round:
        self._check_owner(account)
        return v1.decode_round(account.data, address=account.address, program=self._program)

    def _decode_submission(self, account: Account) -> Submission:
        self._check_owner(account)
        submission = v1.decode_submission(
            account.data, address=account.address, program=self._program
        )
        if submission.trainer != str(self._trainer):
            raise LayoutError(f"the submission at {account.address} is another trainer's")
        return submission

    def _check_owner(self, account: Account) -> None:
        if account.owner != self._program:
            raise LayoutError(
                f"the account {account.address} belongs to {account.owner}, "
                f"not to the program {self._program}",
                hint="check program_id and network",
            )

    def _log_once(self, address: Pubkey, error: LayoutError) -> None:
        if address not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add(address)
            log.warning("skipped the account %s: %s", address, error)


def _is_plain(account: Account) -> bool:
    """An address that somebody sent lamports to, with nothing of a program in it."""
    return account.owner == v1.SYSTEM_PROGRAM and not account.data
