"""What a transaction's error means: a name, the program's number where it is one, a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from decloud_trainer.chain.programerrors import program_error
from decloud_trainer.chain.rpc import Failure
from decloud_trainer.errors import ChainError, InsufficientFunds, ProgramError, plain

INSUFFICIENT_FUNDS: Final = "InsufficientFunds"
"""The one name for all ways in which a wallet can't pay."""

# The generations only added errors at the end, so the newest one's table reads all of them.
_TABLE: Final = "v1.2"
_CANT_PAY = "the wallet can't pay for this transaction"
_FUND_IT = "put SOL into the wallet"

_SENTENCES = {
    "AlreadyProcessed": "the chain has seen this transaction before",
    "BlockhashNotFound": "the transaction's blockhash is too old, or not known to the node yet",
    "InsufficientFundsForRent": "it would leave an account with less than its minimum balance; "
    "for a claim this passes when others have claimed from the round: try again later",
    "ProgramAccountNotFound": "there is no program at that address: check program_id and network",
    "InvalidProgramForExecution": "the account at that address is no program: check program_id",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a transaction did not succeed, for programs (name, number) and people (text)."""

    name: str
    number: int | None
    text: str
    hint: str = ""

    @property
    def sentence(self) -> str:
        return f"{self.text}. {self.hint}" if self.hint else self.text

    def as_error(self) -> ChainError:
        if self.name == INSUFFICIENT_FUNDS:
            return InsufficientFunds(self.text, hint=self.hint)
        if self.number is not None:
            return ProgramError(self.text, name=self.name, number=self.number, hint=self.hint)
        return ChainError(self.text, hint=self.hint)


def reason(failure: Failure) -> Reason:
    """The reason in a failure; never raises, whatever an endpoint sent."""
    number = custom_number(failure.error)
    name = _name(failure.error)
    if number == 1 or name in ("InsufficientFunds", "InsufficientFundsForFee", "AccountNotFound"):
        return Reason(INSUFFICIENT_FUNDS, number, _CANT_PAY, _FUND_IT)
    if number is not None:
        error = program_error(number, _TABLE)
        return Reason(error.name, number, error.message, error.hint)
    if name == "InsufficientFundsForRent" and _account_index(failure.error) == 0:
        return Reason(INSUFFICIENT_FUNDS, None, _CANT_PAY, _FUND_IT)
    return Reason(name, None, f"refused: {_SENTENCES.get(name, name)}")


def custom_number(error: Any) -> int | None:
    """The number in ``{"InstructionError": [index, {"Custom": number}]}``, else None."""
    inner = _instruction_error(error)
    number = inner.get("Custom") if isinstance(inner, dict) else None
    return number if type(number) is int else None


def is_instruction_error(error: Any) -> bool:
    """Did the transaction reach a program, which then refused it?"""
    return _instruction_error(error) is not None


def _instruction_error(error: Any) -> Any:
    pair = error.get("InstructionError") if isinstance(error, dict) else None
    return pair[1] if isinstance(pair, list) and len(pair) == 2 else None


def _name(error: Any) -> str:
    inner = _instruction_error(error)
    named = error if inner is None else inner
    if isinstance(named, dict) and named:
        named = next(iter(named))
    return plain(str(named)[:200])


def _account_index(error: Any) -> Any:
    inner = error.get("InsufficientFundsForRent") if isinstance(error, dict) else None
    return inner.get("account_index") if isinstance(inner, dict) else None
