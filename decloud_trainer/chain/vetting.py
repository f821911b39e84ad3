"""What a transaction would do, read from the very bytes that are to be signed.

Nothing here trusts the code that built them: the instruction is decoded again, and each account is
derived again from what the action means. Only the network's join, submission and claim for this
wallet pass, beside them a compute budget whose priority fee is no higher than the action allows;
and a plain transfer to the user's cold address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from solders.instruction import CompiledInstruction
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from decloud_trainer.chain import v1
from decloud_trainer.chain.codec import Idl, InstructionLayout
from decloud_trainer.chain.rpc import MAX_UNITS
from decloud_trainer.errors import LayoutError, SpendingRefused
from decloud_trainer.rounds.model import Action, ActionKind

FEE_PER_SIGNATURE_LAMPORTS: Final = 5000
COMPUTE_BUDGET: Final = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
_UNIT_LIMIT, _UNIT_PRICE = 2, 3  # the first byte of its instructions that we know
_NAMES: Final = {
    ActionKind.JOIN: "join_round",
    ActionKind.SUBMIT: "submit_gradients",
    ActionKind.CLAIM: "claim_reward",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """For whom a transaction may be signed.

    Attributes:
        referrer: the only account besides the treasury that a claim may name as one.
        cold: the only one that lamports may be transferred to; None: none may.
    """

    wallet: Pubkey
    program: Pubkey
    referrer: Pubkey | None = None
    cold: Pubkey | None = None


def checked_fee(message: Message, action: Action, wanted: Wanted) -> int:
    """The fee in lamports, at most, of a transaction that does the action and nothing else.

    Raises:
        SpendingRefused: it would do anything else.
    """
    header, keys = message.header, message.account_keys
    if header.num_required_signatures != 1 or keys[0] != wanted.wallet:
        raise _refused(action, "it isn't signed and paid by this wallet alone")
    transfers = action.kind is ActionKind.TRANSFER
    called = v1.SYSTEM_PROGRAM if transfers else wanted.program
    ours: list[CompiledInstruction] = []
    budget: dict[int, int] = {}
    for instruction in message.instructions:
        program = keys[instruction.program_id_index]
        if program == called:
            ours.append(instruction)
        elif program == COMPUTE_BUDGET:
            _note_budget(bytes(instruction.data), bytes(instruction.accounts), budget, action)
        else:
            raise _refused(action, f"it calls the foreign program {program}")
    if len(ours) != 1:
        raise _refused(action, f"it has {len(ours)} instructions of the program {called}")
    if transfers:
        _check_transfer(message, ours[0], action, wanted)
    else:
        _check_instruction(message, ours[0], action, wanted)
    priority = _priority(budget)
    if priority > action.tip.most_lamports:
        raise _refused(action, f"its priority fee is {priority} lamports")
    return FEE_PER_SIGNATURE_LAMPORTS + priority


def fee_of(message: Message) -> int:
    """The fee in lamports, at most, of a transaction that was signed here once."""
    budget = {
        instruction.data[0]: int.from_bytes(bytes(instruction.data)[1:], "little")
        for instruction in message.instructions
        if message.account_keys[instruction.program_id_index] == COMPUTE_BUDGET
    }
    return FEE_PER_SIGNATURE_LAMPORTS + _priority(budget)


def _priority(budget: Mapping[int, int]) -> int:
    """Lamports, from the first bytes of compute budget instructions and their values."""
    units = budget.get(_UNIT_LIMIT, MAX_UNITS)
    return -(-units * budget.get(_UNIT_PRICE, 0) // 1_000_000)


def _note_budget(data: bytes, accounts: bytes, budget: dict[int, int], action: Action) -> None:
    kind, size = data[:1], {_UNIT_LIMIT: 5, _UNIT_PRICE: 9}.get(data[0] if data else -1)
    if accounts or len(data) != size or kind[0] in budget:
        raise _refused(action, "it has an unknown instruction about its compute budget")
    budget[kind[0]] = int.from_bytes(data[1:], "little")


def _check_instruction(
    message: Message, instruction: CompiledInstruction, action: Action, wanted: Wanted
) -> None:
    name, args = _decoded(bytes(instruction.data), action)
    expected: dict[str, Any] = {"round_id": action.round_id}
    if action.kind is ActionKind.SUBMIT:
        expected["gradient_cid"] = action.cid
    if name != _NAMES[action.kind] or args != expected:
        raise _refused(action, f"it would do {name} with {args}")
    given = [message.account_keys[index] for index in bytes(instruction.accounts)]
    writable = _writable(message)
    layouts = [Idl.load(generation).instructions[name] for generation in v1.GENERATIONS]
    if not any(_fits(layout, given, writable, action, wanted) for layout in layouts):
        raise _refused(action, "its accounts aren't those that it needs")


def _check_transfer(
    message: Message, instruction: CompiledInstruction, action: Action, wanted: Wanted
) -> None:
    """It moves the action's lamports from the wallet to the cold address."""
    if wanted.cold is None or wanted.cold == wanted.wallet or action.to != str(wanted.cold):
        raise _refused(action, "that isn't the cold address")
    if action.lamports <= 0:
        raise _refused(action, "it would move nothing")
    expected = transfer(
        TransferParams(from_pubkey=wanted.wallet, to_pubkey=wanted.cold, lamports=action.lamports)
    )
    given = [message.account_keys[index] for index in bytes(instruction.accounts)]
    fits = given == [meta.pubkey for meta in expected.accounts]
    if not fits or bytes(instruction.data) != bytes(expected.data):
        raise _refused(action, "it would move something else")


def _writable(message: Message) -> set[Pubkey]:
    """Signers come first, and in both parts the read-only ones last."""
    header, keys = message.header, message.account_keys
    signed = header.num_required_signatures
    return {
        *keys[: signed - header.num_readonly_signed_accounts],
        *keys[signed : len(keys) - header.num_readonly_unsigned_accounts],
    }


def _decoded(data: bytes, action: Action) -> tuple[str, dict[str, Any]]:
    try:
        return Idl.load(v1.GENERATIONS[-1]).decode_instruction(data)
    except LayoutError as error:
        raise _refused(action, "it has an unknown instruction of the network's program") from error


def _fits(
    layout: InstructionLayout,
    given: list[Pubkey],
    writable: set[Pubkey],
    action: Action,
    wanted: Wanted,
) -> bool:
    """Whether these are the accounts of that layout; none may be written to beyond it."""
    if len(given) != len(layout.accounts):
        return False
    derived = _accounts(action, wanted)
    for account, key in zip(layout.accounts, given, strict=True):
        absent = account.optional and key == wanted.program
        if not absent and key != derived.get(account.name):
            return False
        may_write = (account.writable and not absent) or key == wanted.wallet
        if key in writable and not may_write:
            return False
    return True


def _accounts(action: Action, wanted: Wanted) -> dict[str, Pubkey | None]:
    number, program = action.round_id, wanted.program
    return {
        "round": v1.round_address(number, program)[0],
        "vault": v1.vault_address(number, program)[0],
        "submission": v1.submission_address(number, wanted.wallet, program)[0],
        "trainer": wanted.wallet,
        "treasury": v1.TREASURY,
        "referrer": wanted.referrer,
        "system_program": v1.SYSTEM_PROGRAM,
    }


def _refused(action: Action, why: str) -> SpendingRefused:
    return SpendingRefused(
        f"not signed: the transaction to {action} is not what it should be: {why}",
        hint="this is a defect, or the program's files were changed; nothing was spent",
    )
