"""Reads of a v1 program by one wallet: the Chain port.

Reads stay small. Rounds are found by filters on the server: the status stands behind the model's
CID, so there is one query for each usual length of a CID and each wanted status. CIDs of other
lengths are rare; a scan that fetches four bytes per round finds those, at long intervals.

Nothing that an endpoint sends is taken as it is: owner, layout, stored bumps and the address that
belongs to the stored id must fit. One account that doesn't is skipped, and logged once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from solders.pubkey import Pubkey

from decloud_trainer.chain import v1
from decloud_trainer.chain.rpc import Account, Rpc
from decloud_trainer.chain.sending import FEE_PER_SIGNATURE_LAMPORTS
from decloud_trainer.errors import LayoutError, RpcError
from decloud_trainer.rounds.model import Costs, Round, RoundStatus, Submission

log = logging.getLogger(__name__)

OPEN: Final = (RoundStatus.WAITING_VALIDATOR, RoundStatus.WAITING_TRAINERS)
SUBMISSION_BYTES: Final = 121
"""What a submission's account has room for: the rent depends on it."""

_CID_LENGTH_AT: Final = (48, 4)  # offset and size, in a round's account
_MAX_LOGGED: Final = 1000


class SolanaChain:
    """The Chain port for one wallet and one v1 program.

    Args:
        trainer: the wallet's public key, base58.
        scan_interval_s: between two scans for open rounds with CIDs of unusual lengths.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        rpc: Rpc,
        trainer: str,
        *,
        program: Pubkey = v1.PROGRAM_ID,
        scan_interval_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rpc = rpc
        self._trainer = v1.as_pubkey(trainer)
        self._program = program
        self._scan_interval_s = scan_interval_s
        self._clock = clock
        self._next_scan: float | None = None
        self._unusual: set[Pubkey] = set()
        self._over: set[Pubkey] = set()
        self._logged: set[Pubkey] = set()
        self._costs: Costs | None = None

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
        return await self.rounds_with(*OPEN)

    async def rounds_with(self, *statuses: RoundStatus) -> list[Round]:
        """Rounds of these statuses; all rounds there are if none is given. Sorted by id."""
        if statuses:
            accounts = [
                account
                for length in v1.CID_LENGTHS
                for status in statuses
                for account in await self._rpc.program_accounts(
                    self._program, v1.round_filters(status=status, cid_length=length)
                )
            ]
            accounts += await self._unusual_rounds()
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

    async def submissions(self) -> list[Submission]:
        accounts = await self._rpc.program_accounts(
            self._program, v1.submission_filters(self._trainer)
        )
        found = []
        for account in accounts:
            try:
                found.append(self._decode_submission(account))
            except LayoutError as error:
                self._log_once(account.address, error)
        return sorted(found, key=lambda submission: submission.round_id)

    async def balance(self) -> int:
        return await self._rpc.balance(self._trainer)

    async def costs(self) -> Costs:
        """Rent as the chain computes it; the fee is the base fee, since no other is offered."""
        if self._costs is None:
            rent = await self._rpc.rent(SUBMISSION_BYTES)
            self._costs = Costs(join_rent_lamports=rent, fee_lamports=FEE_PER_SIGNATURE_LAMPORTS)
        return self._costs

    def readable_round(self, account: Account) -> Round | None:
        """The round in an account that came from elsewhere; None, and a log line, if it is none."""
        try:
            return self._decode_round(account)
        except LayoutError as error:
            self._log_once(account.address, error)
            return None

    async def _unusual_rounds(self) -> list[Account]:
        """Rounds with CIDs of other lengths that were not over when last seen.

        Their ids come from the scan, their accounts are read anew each time.
        """
        now = self._clock()
        if self._next_scan is None or now >= self._next_scan:
            self._next_scan = now + self._scan_interval_s
            try:
                await self._scan()
            except RpcError as error:  # large for some endpoints; the usual rounds go on without
                log.warning("could not look for rounds with unusual CIDs: %s", error)
        accounts = await self._rpc.accounts(sorted(self._unusual, key=str))
        present = [account for account in accounts if account is not None]
        over = {
            account.address
            for account in present
            if (round_ := self.readable_round(account)) is None or round_.status.is_over
        }
        self._over |= over
        self._unusual -= over
        return present

    async def _scan(self) -> None:
        slices = await self._rpc.program_accounts(
            self._program, v1.round_filters(), data_slice=_CID_LENGTH_AT
        )
        self._unusual = {
            part.address
            for part in slices
            if int.from_bytes(part.data, "little") not in v1.CID_LENGTHS
        } - self._over

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
