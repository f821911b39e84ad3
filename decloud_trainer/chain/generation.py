"""Which v1 generation a program is: set by the user, or found out by simulation.

A simulation needs no signature and changes nothing. An ``abort_round`` that the program doesn't
know (101) makes it v1.0 or v1.1. Those two differ only in the accounts of payouts, which shows in
a claim: v1.0 takes v1.1's treasury for the trainer and misses its signature (3010), v1.1 finds
v1.0's list too short (3005).
"""

from __future__ import annotations

import logging
from typing import Final

from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import Message
from solders.pubkey import Pubkey

from decloud_trainer.chain import v1
from decloud_trainer.chain.failures import custom_number, is_instruction_error, reason
from decloud_trainer.chain.rpc import Failure, Rpc
from decloud_trainer.errors import SettingsError

log = logging.getLogger(__name__)

AUTO: Final = "auto"
SETTINGS: Final = (AUTO, *v1.GENERATIONS)

_NO_ROUND: Final = 2**64 - 1
_UNKNOWN_INSTRUCTION: Final = 101
_WRONG_GENERATION: Final = frozenset({_UNKNOWN_INSTRUCTION, 3005, 3010})
# Numbers that the framework gives before the program's own code has run.
_BEFORE_THE_PROGRAM: Final = range(100, 5000)


class Generation:
    """The generation of one program, found out once and remembered.

    Args:
        payer: the wallet that simulated transactions name; it needs a little SOL.
        setting: one of SETTINGS.
        referrer: named in payouts from v1.1 on; it gets half of the platform fee.
    """

    def __init__(
        self,
        rpc: Rpc,
        payer: str,
        *,
        setting: str = AUTO,
        program: Pubkey = v1.PROGRAM_ID,
        referrer: str | None = None,
    ) -> None:
        if setting not in SETTINGS:
            raise SettingsError(
                f"{setting!r} is no generation of the network",
                hint=f"set generation to one of {', '.join(SETTINGS)}",
            )
        self._rpc = rpc
        self._payer = v1.as_pubkey(payer)
        self._program = program
        self._referrer = referrer
        self._setting = setting
        self._candidates: tuple[str, ...] = () if setting == AUTO else (setting,)

    async def describe(self) -> str:
        """For display: ``v1.2 (set)``, ``v1.2 (detected by simulation)``, or both that are left.

        Raises:
            ChainError: it can't be found out, and why (no such program; no SOL to simulate with).
        """
        how = "set" if self._setting != AUTO else "detected by simulation"
        candidates = await self._candidate_generations()
        if len(candidates) > 1:
            how = "by simulation; the first claim tells which"
        return f"{' or '.join(candidates)} ({how})"

    async def claim_reward(self, round_id: int) -> Instruction:
        """The claim with the account list that this program takes.

        Raises:
            ChainError: it can't be found out, or the program refuses either list.
        """
        candidates = await self._candidate_generations()
        if len(candidates) > 1:
            self._candidates = candidates = (await self._tell_apart(round_id),)
            log.info("the program is %s (detected by simulating a claim)", candidates[0])
        return self._claim(round_id, candidates[0])

    def reconsider(self, number: int | None) -> None:
        """Called with the number of a refusal: forgets a detected generation that it disproves."""
        if self._setting == AUTO and number in _WRONG_GENERATION:
            self._candidates = ()

    async def _candidate_generations(self) -> tuple[str, ...]:
        if not self._candidates:
            probe = v1.abort_round(_NO_ROUND, self._payer, self._payer, program=self._program)
            failure = await self._simulate(probe)
            if failure is not None and not is_instruction_error(failure.error):
                raise reason(failure).as_error()
            unknown = failure is not None and custom_number(failure.error) == _UNKNOWN_INSTRUCTION
            self._candidates = ("v1.0", "v1.1") if unknown else ("v1.2",)
        return self._candidates

    async def _tell_apart(self, round_id: int) -> str:
        failure = await self._simulate(self._claim(round_id, "v1.1"))
        if _reached_the_program(failure):
            return "v1.1"
        if _reached_the_program(await self._simulate(self._claim(round_id, "v1.0"))):
            return "v1.0"
        assert failure is not None
        raise reason(failure).as_error()

    def _claim(self, round_id: int, generation: str) -> Instruction:
        return v1.claim_reward(
            round_id,
            self._payer,
            generation=generation,
            referrer=None if generation == "v1.0" else self._referrer,
            program=self._program,
        )

    async def _simulate(self, instruction: Instruction) -> Failure | None:
        message = Message.new_with_blockhash([instruction], self._payer, Hash.default())
        return await self._rpc.simulate(message)


def _reached_the_program(failure: Failure | None) -> bool:
    """Were the accounts accepted, whatever came after?"""
    if failure is None:
        return True
    if is_instruction_error(failure.error):
        return custom_number(failure.error) not in _BEFORE_THE_PROGRAM
    return reason(failure).name == "InsufficientFundsForRent"  # checked after the program has run
