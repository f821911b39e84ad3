"""Failures in a node's words."""

from __future__ import annotations

import pytest
from solders.transaction_status import (
    InstructionErrorCustom,
    InstructionErrorFieldless,
    TransactionErrorFieldless,
    TransactionErrorInstructionError,
)

from decloud_trainer.localnet.failures import failure, sentence


def test_the_json_form_is_a_nodes() -> None:
    """Clients find the program's number where every Solana node puts it."""
    custom = TransactionErrorInstructionError(2, InstructionErrorCustom(6009))
    missing = TransactionErrorInstructionError(
        0, InstructionErrorFieldless.MissingRequiredSignature
    )
    assert failure(custom) == {"InstructionError": [2, {"Custom": 6009}]}
    assert failure(missing) == {"InstructionError": [0, "MissingRequiredSignature"]}
    assert failure(TransactionErrorFieldless.BlockhashNotFound) == "BlockhashNotFound"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            {"InstructionError": [2, {"Custom": 6009}]},
            "Error processing Instruction 2: custom program error: 0x1779",
        ),
        (
            {"InstructionError": [0, "MissingRequiredSignature"]},
            "Error processing Instruction 0: missing required signature for instruction",
        ),
        (
            {"InsufficientFundsForRent": {"account_index": 1}},
            "Transaction results in an account (1) with insufficient funds for rent",
        ),
        ("BlockhashNotFound", "Blockhash not found"),
        ("AlreadyProcessed", "This transaction has already been processed"),
        ("WouldExceedMaxBlockCostLimit", "Would exceed max block cost limit"),
    ],
)
def test_the_sentence_is_a_nodes(found: object, words: str) -> None:
    """The words are those that people know from the real network; rare ones stay readable."""
    assert sentence(found) == words  # type: ignore[arg-type]
