"""A number from the chain becomes a name and advice."""

from __future__ import annotations

import pytest

from decloud_trainer.chain import v1
from decloud_trainer.chain.codec import GENERATIONS, Idl
from decloud_trainer.errors import ChainError

FRAMEWORK = {
    0: "AlreadyInUse",
    1: "InsufficientLamports",
    101: "InstructionFallbackNotFound",
    102: "InstructionDidNotDeserialize",
    2001: "ConstraintHasOne",
    2006: "ConstraintSeeds",
    3002: "AccountDiscriminatorMismatch",
    3003: "AccountDidNotDeserialize",
    3005: "AccountNotEnoughKeys",
    3007: "AccountOwnedByWrongProgram",
    3010: "AccountNotSigner",
    3012: "AccountNotInitialized",
    4100: "DeclaredProgramIdMismatch",
}


def test_an_error_says_what_happened_and_what_to_do() -> None:
    """Message, name, number and a sentence for the user."""
    error = v1.program_error(6009, "v1.2")
    assert isinstance(error, ChainError)
    assert (error.name, error.number) == ("JoinDeadlinePassed", 6009)
    assert error.message == (
        "the program refused: the time for joining is over (JoinDeadlinePassed, 6009)"
    )
    assert "can't be joined any more" in error.hint
    assert not error.retryable


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_error_has_advice(generation: str) -> None:
    """No number that the program or its framework can return is left without a sentence."""
    for number in [*Idl.load(generation).errors, *FRAMEWORK]:
        error = v1.program_error(number, generation)
        assert error.number == number
        assert error.name != "Unknown"
        assert error.hint.endswith(".")
        assert error.name in error.message


@pytest.mark.parametrize(("number", "name"), FRAMEWORK.items())
def test_errors_below_the_program_have_names(number: int, name: str) -> None:
    """Errors of the framework and of the system program are the same in all generations."""
    assert {v1.program_error(number, g).name for g in GENERATIONS} == {name}


@pytest.mark.parametrize(
    ("number", "generation", "name"),
    [
        (6020, "v1.0", "RoundNotValidating"),
        (6021, "v1.0", "Unknown"),
        (6021, "v1.1", "InvalidTreasury"),
        (6022, "v1.1", "Unknown"),
        (6023, "v1.2", "InvalidCreator"),
        (6024, "v1.2", "Unknown"),
        (-1, "v1.2", "Unknown"),
        (2**64, "v1.2", "Unknown"),
    ],
)
def test_a_number_is_read_with_its_generation(number: int, generation: str, name: str) -> None:
    """A number that a generation doesn't have is shown as unknown."""
    error = v1.program_error(number, generation)
    assert (error.name, error.number) == (name, number)
    assert str(number) in error.message
