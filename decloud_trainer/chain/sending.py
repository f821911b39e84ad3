"""Signs transactions and sees them through: the Sender port.

A transaction's signature is known before it is sent, and the chain accepts a signature once. So
the caller records the intent first, and whatever happens afterwards - a crash, a lost answer, a
cancellation - the question "did it land?" is answered by looking the signature up, and the same
bytes can be sent again without any risk of paying twice. A new transaction for the same purpose
is safe only after this one can't land any more: the chain, at *finalized*, is past its last block
height, and a node that has reached that point finds no such signature in its history.

Cancellation: `settle` goes on in a task of its own when its caller is cancelled, so that nothing
is cut off between the broadcast and knowing; the caller's cancellation waits for it, at most
`grace_s`. A second cancellation, or the end of the grace, stops it. The outcome is logged then
and not returned; since the intent is on disk, the next `settle(intent, fresh=False)` finds it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import Transaction

from decloud_trainer.chain import v1
from decloud_trainer.chain.failures import Reason, reason
from decloud_trainer.chain.fees import with_priority
from decloud_trainer.chain.generation import Generation
from decloud_trainer.chain.guard import Guard
from decloud_trainer.chain.rpc import SURELY_NOT_SENT, Failure, Rpc, Status
from decloud_trainer.chain.vetting import fee_of
from decloud_trainer.chain.wallet import Wallet
from decloud_trainer.errors import ChainError, NetworkError, RpcError
from decloud_trainer.faultpoints import reach
from decloud_trainer.rounds.model import Action, ActionKind, Intent, Outcome, OutcomeState

log = logging.getLogger(__name__)

MAX_TRANSACTION_BYTES: Final = 1232


@dataclass(frozen=True, slots=True)
class Pace:
    """How settling is paced, in seconds.

    Attributes:
        first_poll, max_poll: the pause between two looks at the status grows from one to the other.
        rebroadcast: between two broadcasts of the same bytes.
        patience: how long the endpoint may be of no use at all before the NetworkError is raised.
        amounts: how long to wait for a confirmed transaction's balances to be served.
        grace: how long a cancelled settle goes on.
    """

    first_poll: float = 0.3
    max_poll: float = 2.0
    rebroadcast: float = 2.0
    patience: float = 60.0
    amounts: float = 10.0
    grace: float = 8.0


class SolanaSender:
    """The Sender port for one wallet and one v1 program.

    Args:
        guard: what signs; without one, the checks alone and no ceilings.
        clock, sleep: monotonic seconds; only for pacing, never for deciding an outcome.
    """

    def __init__(
        self,
        rpc: Rpc,
        wallet: Wallet,
        generation: Generation,
        *,
        program: Pubkey = v1.PROGRAM_ID,
        guard: Guard | None = None,
        pace: Pace = Pace(),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rpc = rpc
        self._wallet = wallet
        self._generation = generation
        self._program = program
        self._guard = guard or Guard(rpc, wallet, program=program)
        self._pace = pace
        self._clock = clock
        self._sleep = sleep

    async def prepare(self, action: Action) -> Intent:
        """Sign a transaction with one instruction for the action, and those for its priority fee
        where the action allows one and others pay one; nothing is sent.

        Raises:
            NetworkError: no blockhash to be had.
            ChainError: the program's generation can't be found out, or refuses the claim.
            SpendingRefused: a guard stands against signing it.
            LayoutError: an argument that the wire format can't hold.
        """
        instruction = await self._instruction(action)
        payer = v1.as_pubkey(self._wallet.pubkey)
        instructions = await with_priority(self._rpc, instruction, payer, action.tip)
        transaction, last_valid_height = await self._guard.sign(action, instructions)
        raw = bytes(transaction)
        if len(raw) > MAX_TRANSACTION_BYTES:
            raise ChainError(f"the transaction for {action.kind.value} is too large")
        return Intent(action, str(transaction.signatures[0]), raw, last_valid_height)

    async def settle(self, intent: Intent, *, fresh: bool) -> Outcome:
        """Send, confirm and rebroadcast until the intent's fate is final.

        LANDED and an executed REJECTED are read at commitment `confirmed`. `fresh=True` promises
        that these bytes were never handed to any node: only then does a refusal at preflight
        prove that nothing was spent. See the module's text for cancellation.

        Raises:
            NetworkError: the endpoint was of no use for `Pace.patience`; settle again later with
                `fresh=False`.
        """
        task = asyncio.create_task(
            _Settling(self, intent, fresh).run(), name=f"settle {intent.signature[:8]}"
        )
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await self._see_through(task, intent)
            raise

    async def _see_through(self, task: asyncio.Task[Outcome], intent: Intent) -> None:
        """After a cancellation: wait for the task within the grace, log what came of it."""
        try:
            await asyncio.wait([task], timeout=self._pace.grace)
        finally:
            if not task.done():
                task.cancel()
                log.warning("%s: not settled yet; it is looked up later", _named(intent))
            elif not task.cancelled() and task.exception() is None:
                log.info("%s: %s", _named(intent), task.result().state.value)

    async def _instruction(self, action: Action) -> Instruction:
        trainer = self._wallet.pubkey
        if action.kind is ActionKind.JOIN:
            return v1.join_round(action.round_id, trainer, self._program)
        if action.kind is ActionKind.TRANSFER:
            return transfer(
                TransferParams(
                    from_pubkey=v1.as_pubkey(trainer),
                    to_pubkey=v1.as_pubkey(action.to),
                    lamports=action.lamports,
                )
            )
        if action.kind is ActionKind.SUBMIT:
            return v1.submit_gradients(action.round_id, action.cid, trainer, program=self._program)
        return await self._generation.claim_reward(action.round_id)


class _Settling:
    """One run of `settle`.

    `accepted` says that a node took the bytes for broadcast, so that later broadcasts go without
    preflight. `may_be_out` says that some node may have them; until it is set, a refusal at
    preflight is final.
    """

    def __init__(self, sender: SolanaSender, intent: Intent, fresh: bool) -> None:
        self._rpc = sender._rpc
        self._generation = sender._generation
        self._payer = sender._wallet.pubkey
        self._pace = sender._pace
        self._clock = sender._clock
        self._sleep = sender._sleep
        self._intent = intent
        self._accepted = False
        self._may_be_out = not fresh
        self._unknown_blockhash = 0
        self._refusal: Reason | None = None
        self._last_answer = self._next_broadcast = sender._clock()
        self._next_height_check = self._last_answer + (self._pace.rebroadcast if fresh else 0)

    async def run(self) -> Outcome:
        pause = self._pace.first_poll
        while True:
            try:
                outcome = await self._look() or await self._broadcast()
            except NetworkError as error:
                if self._clock() - self._last_answer > self._pace.patience:
                    raise
                log.debug("%s: %s; going on", _named(self._intent), error)
            else:
                if outcome is not None:
                    return outcome
            await self._sleep(pause)
            pause = min(pause * 1.3, self._pace.max_poll)

    async def _look(self) -> Outcome | None:
        """The outcome if the chain has one by now."""
        if not self._may_be_out:
            return None
        signature = self._intent.signature
        _, status = await self._rpc.signature_status(signature, search_history=False)
        self._last_answer = self._clock()
        if status is not None:
            return await self._executed(status)
        if self._clock() < self._next_height_check:
            return None
        self._next_height_check = self._clock() + self._pace.rebroadcast
        last = self._intent.last_valid_height
        if (await self._rpc.finalized()).height <= last:
            return None
        found = await self._rpc.has_expired(signature, last)
        if isinstance(found, Status):
            return await self._executed(found)
        return self._expired() if found else None

    async def _broadcast(self) -> Outcome | None:
        """Hand the bytes to the node, when it is time; an outcome if they certainly are not out."""
        if self._clock() < self._next_broadcast:
            return None
        self._next_broadcast = self._clock() + self._pace.rebroadcast
        try:
            reach(f"send.{self._intent.action.kind.value}.sending")
            failure = await self._rpc.send(self._intent.raw, preflight=not self._accepted)
            reach(f"send.{self._intent.action.kind.value}.sent")
        except RpcError as error:
            self._may_be_out |= error.code not in SURELY_NOT_SENT
            raise
        self._last_answer = self._clock()
        if failure is None or failure.error == "AlreadyProcessed":
            self._accepted = self._may_be_out = True
            return None
        why = reason(failure)
        # That the blockhash is too old by now says less than what was said before.
        if self._refusal is None or failure.error != "BlockhashNotFound":
            self._refusal = why
        if self._may_be_out:
            return None
        if failure.error == "BlockhashNotFound" and self._unknown_blockhash < 2:
            self._unknown_blockhash += 1  # a node that is a little behind, most likely
            return None
        if failure.error == "BlockhashNotFound":
            return self._expired()
        return self._rejected(why)

    def _expired(self) -> Outcome:
        refusal = self._refusal
        return Outcome(
            OutcomeState.EXPIRED,
            error_name=refusal.name if refusal else "",
            error_number=refusal.number if refusal else None,
            error=refusal.sentence if refusal else "",
        )

    def _rejected(self, why: Reason) -> Outcome:
        self._generation.reconsider(why.number)
        return Outcome(
            OutcomeState.REJECTED,
            error_name=why.name,
            error_number=why.number,
            error=why.sentence,
        )

    async def _executed(self, status: Status) -> Outcome:
        fee, change = await self._amounts()
        if status.error is None:
            outcome = Outcome(OutcomeState.LANDED)
        else:
            outcome = self._rejected(reason(Failure(status.error)))
        return replace(outcome, slot=status.slot, fee_lamports=fee, wallet_change_lamports=change)

    async def _amounts(self) -> tuple[int, int]:
        """Fee and change of the wallet, in lamports, from the transaction's own record.

        An endpoint that keeps no history never serves the record. Then the fee alone is known,
        from the signed bytes, and a warning is logged.
        """
        deadline = self._clock() + self._pace.amounts
        while True:
            try:
                record = await self._rpc.transaction(self._intent.signature)
            except RpcError as error:
                log.debug("%s: %s", _named(self._intent), error)
                record = None
            if record is not None:
                return _fee_and_change(record, self._payer)
            if self._clock() >= deadline:
                break
            await self._sleep(self._pace.first_poll)
        log.warning(
            "%s was executed, but the endpoint doesn't serve its record: only its fee is booked",
            _named(self._intent),
        )
        fee = fee_of(Transaction.from_bytes(self._intent.raw).message)
        return fee, -fee


def _fee_and_change(record: Mapping[str, Any], payer: str) -> tuple[int, int]:
    """Lamports: what the network charged, and the payer's balance after minus before."""
    try:
        meta = record["meta"]
        index = record["transaction"]["message"]["accountKeys"].index(payer)
        change = int(meta["postBalances"][index]) - int(meta["preBalances"][index])
        return int(meta["fee"]), change
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise RpcError("the endpoint sent a transaction record without our balances") from error


def _named(intent: Intent) -> str:
    return f"{intent.action} ({intent.signature})"
