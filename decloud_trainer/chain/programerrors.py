"""What the numbers mean that a program refuses an instruction with, and what to do."""

from __future__ import annotations

from decloud_trainer.chain.codec import Idl
from decloud_trainer.errors import ProgramError

_HINTS = {
    "InvalidCid": "Pin the file with a service that returns a usual CID: 46 to 64 characters.",
    "ZeroReward": "Post the round with a reward above zero.",
    "InvalidRoundId": "Read the round counter again and use its present value.",
    "CannotCancel": "A validator has taken the round, so it runs its course.",
    "RoundNotWaitingValidator": "Leave the round: another validator has it, or it is over.",
    "ValidatorDeadlinePassed": "Leave the round: check_round returns the reward to its creator.",
    "RoundNotWaitingTrainers": "Leave the round: joining is over, or has not begun.",
    "NotValidator": "Use the wallet that took the round as its validator.",
    "NoTrainers": "Wait until a trainer has joined.",
    "JoinDeadlinePassed": "Leave the round: it can't be joined any more and nothing was spent.",
    "MaxTrainersReached": "Leave the round: all places are taken and nothing was spent.",
    "RoundNotTraining": "Read the round again: submitting is not open yet, or no longer.",
    "SubmitDeadlinePassed": "The work came too late for this round; give the next ones more time.",
    "AlreadySubmitted": "Nothing to do: the first submission counts and can't be changed.",
    "RoundNotCompleted": "Wait until the validator has completed the round, then claim again.",
    "NotSubmitted": "There is nothing to claim: this wallet submitted nothing to the round.",
    "RewardAlreadyClaimed": "Nothing to do: the reward has been paid.",
    "NoContribution": "There is nothing to claim: the validator found no contribution.",
    "FeeAlreadyClaimed": "Nothing to do: the fee has been paid.",
    "InvalidContributionSum": "Make the contributions sum to 10000.",
    "RoundNotValidating": "Read the round again: its scoring has not begun, or is over.",
    "InvalidTreasury": "Check the program id and the generation: the treasury is another one.",
    "CannotAbort": "The round is not in a state that its validator can give up.",
    "InvalidCreator": "Read the round again and pass its own creator.",
}

_GENERATION = "Check the generation setting: the program expects other {}."

# Of the system program (0, 1) and of the framework that the program is written with.
_FRAMEWORK = {
    0: (
        "AlreadyInUse",
        "the account to be made exists already",
        "Nothing to do: this wallet has joined the round before; read its submission.",
    ),
    1: (
        "InsufficientLamports",
        "the wallet can't pay for it",
        "Put SOL into the wallet: rent, fees and, for a creator, the reward are due.",
    ),
    101: (
        "InstructionFallbackNotFound",
        "the program doesn't know the instruction",
        _GENERATION.format("instructions"),
    ),
    102: (
        "InstructionDidNotDeserialize",
        "the program can't read the arguments",
        _GENERATION.format("arguments"),
    ),
    2001: (
        "ConstraintHasOne",
        "an account names another owner than the one passed",
        "Use the wallet that the round or the submission names.",
    ),
    2006: (
        "ConstraintSeeds",
        "an account is not at the address that the program derives",
        "Check the program id: addresses are derived from it.",
    ),
    3002: (
        "AccountDiscriminatorMismatch",
        "an account is of another kind",
        _GENERATION.format("accounts"),
    ),
    3003: (
        "AccountDidNotDeserialize",
        "the program can't read an account, probably an older one",
        "Leave the round: this version of the program can't serve it.",
    ),
    3005: (
        "AccountNotEnoughKeys",
        "the program expects more accounts",
        "Set the generation to v1.1 or v1.2: v1.0's account lists are shorter.",
    ),
    3007: (
        "AccountOwnedByWrongProgram",
        "an account belongs to another program",
        "Check the program id and the network.",
    ),
    3010: (
        "AccountNotSigner",
        "a signature is missing, or the accounts are in another order",
        _GENERATION.format("accounts"),
    ),
    3012: (
        "AccountNotInitialized",
        "an account does not exist",
        "Check the round's id, and that this wallet has joined it.",
    ),
    4100: (
        "DeclaredProgramIdMismatch",
        "the program was built for another address",
        "Check the program id.",
    ),
}


def program_error(number: int, generation: str) -> ProgramError:
    """The error of that number; the same number means different things in other generations.

    A number that neither the generation nor the framework has gives one named ``Unknown``.
    """
    own = Idl.load(generation).errors.get(number)
    if own is not None:
        name, text, hint = own.name, own.message, _HINTS[own.name]
    elif number in _FRAMEWORK:
        name, text, hint = _FRAMEWORK[number]
    else:
        name, text = "Unknown", f"a {generation} program has no error of that number"
        hint = "Check the generation setting and the program id."
    text = text[0].lower() + text[1:]
    return ProgramError(
        f"the program refused: {text} ({name}, {number})", name=name, number=number, hint=hint
    )
