"""Every way in which a transaction fails has a name and a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from decloud_trainer.chain.failures import INSUFFICIENT_FUNDS, reason
from decloud_trainer.chain.rpc import Failure
from decloud_trainer.errors import ChainError, InsufficientFunds, ProgramError


def instruction(error: Any) -> dict[str, Any]:
    return {"InstructionError": [0, error]}


@pytest.mark.parametrize(
    ("error", "name", "number", "kind"),
    [
        (instruction({"Custom": 6009}), "JoinDeadlinePassed", 6009, ProgramError),
        (instruction({"Custom": 0}), "AlreadyInUse", 0, ProgramError),
        (instruction({"Custom": 3012}), "AccountNotInitialized", 3012, ProgramError),
        (instruction({"Custom": 123456}), "Unknown", 123456, ProgramError),
        (instruction({"Custom": 1}), INSUFFICIENT_FUNDS, 1, InsufficientFunds),
        (instruction("InsufficientFunds"), INSUFFICIENT_FUNDS, None, InsufficientFunds),
        ("InsufficientFundsForFee", INSUFFICIENT_FUNDS, None, InsufficientFunds),
        ("AccountNotFound", INSUFFICIENT_FUNDS, None, InsufficientFunds),
        (
            {"InsufficientFundsForRent": {"account_index": 0}},
            INSUFFICIENT_FUNDS,
            None,
            InsufficientFunds,
        ),
        (
            {"InsufficientFundsForRent": {"account_index": 2}},
            "InsufficientFundsForRent",
            None,
            ChainError,
        ),
        (instruction({"BorshIoError": "x"}), "BorshIoError", None, ChainError),
        (instruction("ProgramFailedToComplete"), "ProgramFailedToComplete", None, ChainError),
        ("BlockhashNotFound", "BlockhashNotFound", None, ChainError),
    ],
)
def test_errors_have_a_name_a_number_and_a_class(
    error: Any, name: str, number: int | None, kind: type[ChainError]
) -> None:
    """Programs tell failures apart by name or number; the user gets a sentence."""
    found = reason(Failure(error))
    assert (found.name, found.number) == (name, number)
    assert type(found.as_error()) is kind
    assert len(found.sentence) > 10


@pytest.mark.parametrize("error", [None, 5, [], {}, {"InstructionError": 3}, instruction(None)])
def test_an_odd_error_is_still_a_reason(error: Any) -> None:
    """Whatever an endpoint calls an error, reading it never fails."""
    assert isinstance(reason(Failure(error)).as_error(), ChainError)


def test_dust_in_a_vault_is_said_to_pass() -> None:
    """A claim that can't go through yet tells the user that it will later."""
    found = reason(Failure({"InsufficientFundsForRent": {"account_index": 2}}))
    assert "try again later" in found.sentence
