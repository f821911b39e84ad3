"""The one place where transactions are signed, and what has to be true before.

1. The bytes do what the action means and nothing else (`chain.vetting`).
2. The accounts of the program look like those that this version knows, now and after the
   transaction. A program that was upgraded to another layout is read no further than it decodes,
   and is never written to.
3. A simulation takes no more out of the wallet than the fee and, for a join, the rent of our
   submission's account, and leaves that as it should be: joined, handed in with our CID, claimed.
   A transfer takes what it says, and brings it to an account that holds nothing but lamports.
4. The ceilings of the settings hold (`rounds.spending`), for the day also over restarts, since what
   was spent stands in the journal.

A transaction whose simulation fails is let through: it is sent with preflight, where it fails for
the same reason and costs nothing, and the steps know what each reason means. Even executed, a
failing one takes no more than its fee.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import Transaction

from decloud_trainer.chain import v1
from decloud_trainer.chain.rpc import Account, Failure, Rpc
from decloud_trainer.chain.v1_accounts import SUBMISSION_BYTES
from decloud_trainer.chain.vetting import Wanted, checked_fee
from decloud_trainer.chain.wallet import Wallet
from decloud_trainer.errors import LayoutError, SpendingRefused
from decloud_trainer.money import format_sol
from decloud_trainer.rounds.model import Action, ActionKind, Submission
from decloud_trainer.rounds.spending import NO_CEILINGS, Ceilings, Purchase, Spent, against

# A balance and a simulation may come from different endpoints, or be separated by another
# transaction of ours: what doesn't fit is looked at again before it is refused.
_LOOKS: Final = 3
_LOOK_AGAIN_S: Final = 0.4
# So long a signed transaction counts before it must be in the journal; it is never sent otherwise.
_RECORDED_WITHIN_S: Final = 120.0
# A join pays the rent of our submission's account, whatever room the program gives it: at most
# so much.
_MOST_SUBMISSION_BYTES: Final = 1024

Past = Callable[[int, float], Awaitable[Sequence[Spent]]]
"""What was spent for this round, and for any since that time (unix seconds)."""


async def _nothing(round_id: int, since: float) -> Sequence[Spent]:
    return ()


@dataclass(frozen=True, slots=True)
class Book:
    """Where the guard looks up what was spent.

    Attributes:
        clock: unix seconds, as `past` has them.
    """

    past: Past = _nothing
    clock: Callable[[], float] = time.time


NO_BOOK: Final = Book()


class Guard:
    """Signs for one wallet and one v1 program.

    Args:
        referrer: the account that a claim may name as one.
    """

    def __init__(
        self,
        rpc: Rpc,
        wallet: Wallet,
        *,
        program: Pubkey = v1.PROGRAM_ID,
        referrer: str | None = None,
        ceilings: Ceilings = NO_CEILINGS,
        book: Book = NO_BOOK,
    ) -> None:
        self._rpc = rpc
        self._wallet = wallet
        me = v1.as_pubkey(wallet.pubkey)
        named = None if referrer is None else v1.as_pubkey(referrer)
        cold = None if ceilings.cold is None else v1.as_pubkey(ceilings.cold.address)
        self._wanted = Wanted(me, program, named, cold)
        self._ceilings = ceilings
        self._book = book
        self._rents: dict[int, int] = {}
        self._signed: dict[str, Spent] = {}
        self._one_at_a_time = asyncio.Lock()

    async def sign(
        self, action: Action, instructions: Sequence[Instruction]
    ) -> tuple[Transaction, int]:
        """The signed transaction for the action, and the last block height that accepts it.

        Raises:
            SpendingRefused: a guard stands against it; nothing was signed.
            NetworkError: an endpoint could not be asked.
        """
        me = self._wanted.wallet
        draft = Message.new_with_blockhash(list(instructions), me, Hash.default())
        fee = checked_fee(draft, action, self._wanted)
        (blockhash, last_valid_height), (balance, cost) = await asyncio.gather(
            self._rpc.latest_blockhash(), self._cost(action, draft, fee)
        )
        message = Message.new_with_blockhash(list(instructions), me, blockhash)
        checked_fee(message, action, self._wanted)
        purchase = Purchase(action.kind, action.round_id, cost, balance)
        async with self._one_at_a_time:
            await self._check_ceilings(action, purchase, fee)
            signature = Signature.from_bytes(self._wallet.sign(bytes(message)))
            if action.kind is not ActionKind.TRANSFER:  # that is no spending
                now = self._book.clock()
                self._signed[str(signature)] = Spent(
                    str(signature), action.round_id, action.kind, now, max(cost, 0)
                )
        return Transaction.populate(message, [signature]), last_valid_height

    async def _check_ceilings(self, action: Action, purchase: Purchase, fee: int) -> None:
        now = self._book.clock()
        past = await self._book.past(purchase.round_id, now - 24 * 3600.0)
        known = {spent.signature for spent in past}
        self._signed = {
            signature: spent
            for signature, spent in self._signed.items()
            if signature not in known and spent.at > now - _RECORDED_WITHIN_S
        }
        if purchase.kind is ActionKind.TRANSFER:
            # Signed, and not yet recorded: so it isn't sent, and the balance doesn't show it.
            coming = sum(spent.lamports or 0 for spent in self._signed.values())
            purchase = replace(purchase, balance_lamports=purchase.balance_lamports - coming)
        reason = against(
            purchase,
            self._ceilings,
            [*past, *self._signed.values()],
            now=now,
            join_cost=fee + await self._rent_of(SUBMISSION_BYTES),
        )
        if reason:
            raise SpendingRefused(
                f"not signed, to {action}: {reason}",
                hint="`decloud-trainer config --show` shows the ceilings",
            )

    async def _rent_of(self, size: int) -> int:
        if size not in self._rents:
            self._rents[size] = await self._rpc.rent(size)
        return self._rents[size]

    async def _cost(self, action: Action, draft: Message, fee: int) -> tuple[int, int]:
        """The wallet's balance, and what the transaction would take of it, in lamports.

        Where the simulation fails, that is what it usually costs."""
        look = 1
        while True:
            try:
                return await self._look(action, draft, fee)
            except SpendingRefused:
                if look == _LOOKS:
                    raise
            await asyncio.sleep(_LOOK_AGAIN_S * look)
            look += 1

    async def _look(self, action: Action, draft: Message, fee: int) -> tuple[int, int]:
        if action.kind is ActionKind.TRANSFER:
            return await self._look_at_transfer(action, draft, fee)
        me, program = self._wanted.wallet, self._wanted.program
        round_address = v1.round_address(action.round_id, program)[0]
        submission_address = v1.submission_address(action.round_id, me, program)[0]
        before, after = await asyncio.gather(
            self._rpc.accounts([me, round_address, submission_address]),
            self._rpc.simulated(draft, [me, round_address, submission_address]),
        )
        balance = before[0].lamports if before[0] is not None else 0
        self._check_layouts(before)
        joins = action.kind is ActionKind.JOIN
        if isinstance(after, Failure):
            return balance, fee + (await self._rent_of(SUBMISSION_BYTES) if joins else 0)
        self._check_layouts(after)
        self._check_effect(action, after[2])
        room = len(after[2].data) if after[2] is not None else 0
        most = fee + (await self._rent_of(room) if joins else 0)
        cost = balance - (after[0].lamports if after[0] is not None else 0)
        if cost > most:
            raise SpendingRefused(
                f"not signed, to {action}: a simulation takes {format_sol(cost)} out of the "
                f"wallet, and not {format_sol(most)} at most",
                hint="the program, or the endpoint, isn't what it was; nothing was spent",
            )
        return balance, cost

    async def _look_at_transfer(self, action: Action, draft: Message, fee: int) -> tuple[int, int]:
        me, cold = self._wanted.wallet, self._wanted.cold
        assert cold is not None, "the bytes were checked"
        before, after = await asyncio.gather(
            self._rpc.accounts([me, cold]), self._rpc.simulated(draft, [me, cold])
        )
        balance = before[0].lamports if before[0] is not None else 0
        there = before[1]
        if there is not None and (there.owner != v1.SYSTEM_PROGRAM or there.data):
            raise SpendingRefused(
                f"not signed, to {action}: that address belongs to the program {there.owner}, "
                "and what is sent there might be lost",
                hint="set cold_address to a wallet's own address, not a token account's",
            )
        if there is None and not cold.is_on_curve():
            raise SpendingRefused(
                f"not signed, to {action}: nobody can have a key of that address, and nothing is "
                "there; most likely it was mistyped",
                hint="check cold_address; if it is a multisig's vault, send a little there first",
            )
        most = action.lamports + fee
        if isinstance(after, Failure):
            return balance, most
        cost = balance - (after[0].lamports if after[0] is not None else 0)
        arrived = (after[1].lamports if after[1] is not None else 0) - (
            there.lamports if there is not None else 0
        )
        if cost > most or arrived != action.lamports:
            raise SpendingRefused(
                f"not signed, to {action}: a simulation takes {format_sol(cost)} out of the "
                f"wallet, and {format_sol(arrived)} arrive",
                hint="the endpoint isn't what it was; nothing was sent",
            )
        return balance, cost

    def _check_layouts(self, accounts: Sequence[Account | None]) -> None:
        """The round's and our submission's accounts, where they are, are as this version knows."""
        _, round_, submission = accounts
        program = self._wanted.program
        try:
            if round_ is not None and round_.owner == program:
                v1.decode_round(round_.data, address=round_.address, program=program)
            self._submission(submission)
        except LayoutError as error:
            raise SpendingRefused(
                f"not signed: the program's accounts aren't laid out as this version knows them "
                f"({error.message})",
                hint="the program was upgraded: update decloud-trainer; until then it only reads",
            ) from error

    def _submission(self, account: Account | None) -> Submission | None:
        program = self._wanted.program
        if account is None or account.owner != program:
            return None
        found = v1.decode_submission(account.data, address=account.address, program=program)
        if len(account.data) > _MOST_SUBMISSION_BYTES:
            raise LayoutError(f"a submission has {len(account.data)} bytes")
        return found

    def _check_effect(self, action: Action, account: Account | None) -> None:
        found = self._submission(account)
        done = (
            found is not None
            and {
                ActionKind.JOIN: found.trainer == self._wallet.pubkey and not found.reward_claimed,
                ActionKind.SUBMIT: found.submitted and found.gradient_cid == action.cid,
                ActionKind.CLAIM: found.reward_claimed,
            }[action.kind]
        )
        if not done:
            raise SpendingRefused(
                f"not signed: a simulated {action.kind.value} of round {action.round_id} doesn't "
                "leave our submission as it should be",
                hint="the program isn't the one that this version knows; nothing was spent",
            )
