"""Where the accounts of the v1 program are."""

from __future__ import annotations

from typing import TypeAlias

from solders.pubkey import Pubkey

from decloud_trainer.errors import SettingsError

Key: TypeAlias = Pubkey | str
"""A public key, or its base58 text."""

PROGRAM_ID = Pubkey.from_string("HvQ8c3BBCsibJpH74UDXbvqEidJymzFYyGjNjRn7MYwC")
TREASURY = Pubkey.from_string("FzuCxi65QyFXAGbHcXB28RXqyBZSZ5KXLQxeofx1P9K2")
SYSTEM_PROGRAM = Pubkey.from_string("11111111111111111111111111111111")


def as_pubkey(key: Key) -> Pubkey:
    """Raises SettingsError for text that is no public key."""
    if isinstance(key, Pubkey):
        return key
    try:
        return Pubkey.from_string(key)
    except ValueError as error:
        raise SettingsError(f"{key!r} is no public key") from error


def le8(number: int) -> bytes:
    """A round id as the program writes it into seeds. Raises SettingsError outside of u64."""
    try:
        return number.to_bytes(8, "little")
    except OverflowError as error:
        raise SettingsError(f"{number} is no round id: ids are 0 to 2^64 - 1") from error


def counter_address(program: Key = PROGRAM_ID) -> tuple[Pubkey, int]:
    """The round counter's address and bump."""
    return _find([b"round_counter"], program)


def round_address(round_id: int, program: Key = PROGRAM_ID) -> tuple[Pubkey, int]:
    """A round's address and bump."""
    return _find([b"round", le8(round_id)], program)


def vault_address(round_id: int, program: Key = PROGRAM_ID) -> tuple[Pubkey, int]:
    """Address and bump of the account that holds a round's lamports."""
    return _find([b"vault", le8(round_id)], program)


def submission_address(
    round_id: int, trainer: Key, program: Key = PROGRAM_ID
) -> tuple[Pubkey, int]:
    """Address and bump of a trainer's own account in a round."""
    return _find([b"submission", le8(round_id), bytes(as_pubkey(trainer))], program)


def _find(seeds: list[bytes], program: Key) -> tuple[Pubkey, int]:
    return Pubkey.find_program_address(seeds, as_pubkey(program))
