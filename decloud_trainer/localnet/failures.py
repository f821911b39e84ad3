"""Transaction failures as a node reports them: the JSON form and the sentence.

The JSON form is what clients parse (``{"InstructionError": [0, {"Custom": 6009}]}``); the
sentence is what follows "Transaction simulation failed: " in an error message.
"""

from __future__ import annotations

import json
import re
from typing import Any

from solders.transaction_status import TransactionErrorType, TransactionStatus

# A failure in JSON: a name, or an object with one name.
Failure = str | dict[str, Any]

BLOCKHASH_NOT_FOUND = "BlockhashNotFound"
ALREADY_PROCESSED = "AlreadyProcessed"

_TRANSACTION = {
    "AccountInUse": "Account in use",
    "AccountLoadedTwice": "Account loaded twice",
    "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
    "AddressLookupTableNotFound": "Transaction loads an address table account that doesn't exist",
    ALREADY_PROCESSED: "This transaction has already been processed",
    BLOCKHASH_NOT_FOUND: "Blockhash not found",
    "CallChainTooDeep": "Loader call chain is too deep",
    "InsufficientFundsForFee": "Insufficient funds for fee",
    "InvalidAccountForFee": "This account may not be used to pay transaction fees",
    "InvalidAccountIndex": "Transaction contains an invalid account reference",
    "InvalidProgramForExecution": "This program may not be used for executing instructions",
    "InvalidRentPayingAccount": "Transaction leaves an account with a lower balance than"
    " rent-exempt minimum",
    "ProgramAccountNotFound": "Attempt to load a program that does not exist",
    "SanitizeFailure": "Transaction failed to sanitize accounts offsets correctly",
    "SignatureFailure": "Transaction did not pass signature verification",
    "UnsupportedVersion": "Transaction version is unsupported",
}
_INSTRUCTION = {
    "AccountAlreadyInitialized": "instruction requires an uninitialized account",
    "AccountBorrowFailed": "instruction tries to borrow reference for an account which is already"
    " borrowed",
    "AccountDataTooSmall": "account data too small for instruction",
    "AccountNotExecutable": "instruction expected an executable account",
    "AccountNotRentExempt": "An account does not have enough lamports to be rent-exempt",
    "ArithmeticOverflow": "Program arithmetic overflowed",
    "CallDepth": "Cross-program invocation call depth too deep",
    "ComputationalBudgetExceeded": "Computational budget exceeded",
    "ExternalAccountDataModified": "instruction modified data of an account it does not own",
    "ExternalAccountLamportSpend": "instruction spent from the balance of an account it does not"
    " own",
    "GenericError": "generic instruction error",
    "IllegalOwner": "Provided owner is not allowed",
    "Immutable": "Account is immutable",
    "IncorrectAuthority": "Incorrect authority provided",
    "IncorrectProgramId": "incorrect program id for instruction",
    "InsufficientFunds": "insufficient funds for instruction",
    "InvalidAccountData": "invalid account data for instruction",
    "InvalidAccountOwner": "Invalid account owner",
    "InvalidArgument": "invalid program argument",
    "InvalidInstructionData": "invalid instruction data",
    "InvalidRealloc": "Failed to reallocate account data",
    "InvalidSeeds": "Provided seeds do not result in a valid address",
    "MaxSeedLengthExceeded": "Length of the seed is too long for address generation",
    "MissingAccount": "An account required by the instruction is missing",
    "MissingRequiredSignature": "missing required signature for instruction",
    "ModifiedProgramId": "instruction illegally modified the program id of an account",
    "NotEnoughAccountKeys": "insufficient account keys for instruction",
    "PrivilegeEscalation": "Cross-program invocation with unauthorized signer or writable account",
    "ProgramFailedToComplete": "Program failed to complete",
    "ReadonlyDataModified": "instruction modified data of a read-only account",
    "ReadonlyLamportChange": "instruction changed the balance of a read-only account",
    "ReentrancyNotAllowed": "Cross-program invocation reentrancy not allowed for this instruction",
    "UnbalancedInstruction": "sum of account balances before and after instruction do not match",
    "UninitializedAccount": "instruction requires an initialized account",
    "UnsupportedProgramId": "unsupported program id",
    "UnsupportedSysvar": "Unsupported sysvar",
}


def failure(error: TransactionErrorType) -> Failure:
    """The VM's error in a node's JSON form."""
    # solders knows that form only as a part of its response types.
    status = TransactionStatus(0, None, None, error, None)
    found: Failure = json.loads(status.to_json())["err"]
    return found


def sentence(found: Failure) -> str:
    """What a node writes for that failure; a rare one is told by its name in words."""
    if isinstance(found, str):
        return _TRANSACTION.get(found, _words(found))
    name, detail = next(iter(found.items()))
    if name == "InstructionError":
        return f"Error processing Instruction {detail[0]}: {_instruction_sentence(detail[1])}"
    if name == "InsufficientFundsForRent":
        index = detail["account_index"]
        return f"Transaction results in an account ({index}) with insufficient funds for rent"
    if name == "DuplicateInstruction":
        return f"Transaction contains a duplicate instruction ({detail}) that is not allowed"
    return f"{_words(name)}: {detail}"


def _instruction_sentence(error: str | dict[str, Any]) -> str:
    if isinstance(error, str):
        return _INSTRUCTION.get(error, _words(error))
    name, detail = next(iter(error.items()))
    if name == "Custom":
        return f"custom program error: {detail:#x}"
    return f"{_words(name)}: {detail}"


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize()
