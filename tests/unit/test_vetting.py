"""Nothing is signed but the network's join, submission and claim, exactly as they must be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from decloud_trainer.chain import v1
from decloud_trainer.chain.vetting import COMPUTE_BUDGET, Wanted, checked_fee
from decloud_trainer.errors import SpendingRefused
from decloud_trainer.rounds.model import Action, ActionKind, Tip

ME, THIEF, FRIEND = (Keypair.from_seed(bytes([n] * 32)).pubkey() for n in (1, 2, 3))
CID = "QmPZ9gcCEpqKTo6aq61g2nXGUhM4iCL3ewB6LDXZCtioEB"
JOIN = Action(ActionKind.JOIN, 42)
SUBMIT = Action(ActionKind.SUBMIT, 42, CID)
CLAIM = Action(ActionKind.CLAIM, 42)
WANTED = Wanted(ME, v1.PROGRAM_ID)


def fee(action: Action, *instructions: Instruction, payer: Pubkey = ME, wanted: Wanted = WANTED):
    message = Message.new_with_blockhash(list(instructions), payer, Hash.default())
    return checked_fee(message, action, wanted)


def budget(kind: int, value: int, size: int) -> Instruction:
    return Instruction(COMPUTE_BUDGET, bytes([kind]) + value.to_bytes(size, "little"), [])


def claim(generation: str, referrer: Pubkey | None = None) -> Instruction:
    return v1.claim_reward(42, ME, generation=generation, referrer=referrer)


def with_accounts(instruction: Instruction, accounts: Sequence[AccountMeta]) -> Instruction:
    return Instruction(instruction.program_id, bytes(instruction.data), list(accounts))


def test_what_we_send_passes() -> None:
    """Each action of each generation, with the base fee."""
    assert fee(JOIN, v1.join_round(42, ME)) == 5000
    assert fee(SUBMIT, v1.submit_gradients(42, CID, ME)) == 5000
    for generation in v1.GENERATIONS:
        assert fee(CLAIM, claim(generation)) == 5000
    friendly = Wanted(ME, v1.PROGRAM_ID, FRIEND)
    assert fee(CLAIM, claim("v1.2", FRIEND), wanted=friendly) == 5000


def test_a_priority_fee_counts() -> None:
    """Limit times price, rounded up; without a limit, the most that a transaction may take."""
    join = v1.join_round(42, ME)
    eager = Action(ActionKind.JOIN, 42, tip=Tip(1_400_000))
    assert fee(eager, budget(2, 100_000, 4), budget(3, 7, 8), join) == 5001
    assert fee(eager, budget(3, 10**6, 8), join) == 5000 + 1_400_000


def test_a_priority_fee_beyond_the_actions_limit_is_refused() -> None:
    """One lamport more than allowed, and any at all where none is."""
    join = v1.join_round(42, ME)
    for most, allowed in ((1, True), (0, False)):
        action = Action(ActionKind.JOIN, 42, tip=Tip(most))
        if allowed:
            assert fee(action, budget(2, 100_000, 4), budget(3, 7, 8), join) == 5001
            continue
        with pytest.raises(SpendingRefused, match="its priority fee is 1 lamports"):
            fee(action, budget(2, 100_000, 4), budget(3, 7, 8), join)


@pytest.mark.parametrize(
    ("what", "action", "instructions"),
    [
        ("another round", JOIN, [v1.join_round(43, ME)]),
        ("another CID", SUBMIT, [v1.submit_gradients(42, CID[:-1] + "C", ME)]),
        ("another action", JOIN, [v1.submit_gradients(42, CID, ME)]),
        ("a round of ours", JOIN, [v1.create_round(42, CID, 0, 10**9, ME)]),
        ("twice", JOIN, [v1.join_round(42, ME), v1.join_round(42, ME)]),
        ("nothing", JOIN, []),
        ("a referrer that nobody named", CLAIM, [claim("v1.2", THIEF)]),
        (
            "a transfer",
            JOIN,
            [transfer(TransferParams(from_pubkey=ME, to_pubkey=THIEF, lamports=1))],
        ),
        (
            "a transfer beside it",
            JOIN,
            [
                v1.join_round(42, ME),
                transfer(TransferParams(from_pubkey=ME, to_pubkey=THIEF, lamports=1)),
            ],
        ),
        ("another program", JOIN, [v1.join_round(42, ME, program=THIEF)]),
        ("an unknown instruction", JOIN, [Instruction(v1.PROGRAM_ID, b"12345678", [])]),
        ("a budget instruction of an unknown kind", JOIN, [budget(1, 1, 4), v1.join_round(42, ME)]),
        (
            "two prices",
            JOIN,
            [budget(3, 1, 8), budget(3, 2, 8), v1.join_round(42, ME)],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_refused(
    what: str, action: Action, instructions: list[Instruction]
) -> None:
    """Other programs, instructions, arguments and accounts: a defect anywhere can't spend."""
    with pytest.raises(SpendingRefused):
        fee(action, *instructions)


@pytest.mark.parametrize("action", [JOIN, SUBMIT, CLAIM], ids=lambda action: action.kind.value)
def test_every_account_is_derived_again(action: Action) -> None:
    """An exchanged, missing, additional or needlessly writable account is seen."""
    built = {
        ActionKind.JOIN: v1.join_round(42, ME),
        ActionKind.SUBMIT: v1.submit_gradients(42, CID, ME),
        ActionKind.CLAIM: claim("v1.2"),
    }[action.kind]
    accounts = list(built.accounts)
    for at, meta in enumerate(accounts):
        if meta.pubkey == ME:
            continue
        forged = list(accounts)
        forged[at] = AccountMeta(THIEF, meta.is_signer, meta.is_writable)
        with pytest.raises(SpendingRefused):
            fee(action, with_accounts(built, forged))
        if not meta.is_writable:
            forged[at] = AccountMeta(meta.pubkey, meta.is_signer, is_writable=True)
            with pytest.raises(SpendingRefused):
                fee(action, with_accounts(built, forged))
    for wrong in (accounts[:-1], [*accounts, AccountMeta(THIEF, False, True)]):
        with pytest.raises(SpendingRefused):
            fee(action, with_accounts(built, wrong))


def test_nobody_else_pays_or_signs() -> None:
    """One signature, ours."""
    with pytest.raises(SpendingRefused, match="signed and paid"):
        fee(JOIN, v1.join_round(42, ME), payer=THIEF)
    built = v1.join_round(42, ME)
    forged = with_accounts(
        built, [AccountMeta(m.pubkey, True, m.is_writable) for m in built.accounts]
    )
    with pytest.raises(SpendingRefused, match="signed and paid"):
        fee(JOIN, forged)
