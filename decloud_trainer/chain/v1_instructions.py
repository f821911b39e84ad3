"""One builder per instruction of the v1 program.

Order and flags of the accounts come from the IDL, and so do the addresses that it knows (derived
ones and the system program); a builder passes the rest by name. Instructions whose account list
differs between the generations take `generation`; the others are equal in all that have them.
Keys may be given as text. Raises SettingsError for a key or a generation that is none, and
LayoutError for an argument that the wire format can't hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from decloud_trainer.chain.codec import AccountLayout, Idl
from decloud_trainer.chain.v1_addresses import (
    PROGRAM_ID,
    TREASURY,
    Key,
    as_pubkey,
    submission_address,
)
from decloud_trainer.errors import LayoutError, SettingsError

_NEWEST = "v1.2"


def initialize(authority: Key, program: Key = PROGRAM_ID) -> Instruction:
    """Make the round counter, once per program."""
    return _build("initialize", {}, {"authority": authority}, program)


def create_round(
    round_id: int,
    model_cid: str,
    dataset_index: int,
    reward_lamports: int,
    creator: Key,
    program: Key = PROGRAM_ID,
) -> Instruction:
    """Post a round; `round_id` is the counter's present value."""
    dataset = Idl.load(_NEWEST).variant("Dataset", dataset_index)
    if dataset.name is None:
        raise LayoutError(f"the program knows no dataset of index {dataset_index}")
    args = {
        "round_id": round_id,
        "model_cid": model_cid,
        "dataset": dataset,
        "reward_amount": reward_lamports,
    }
    return _build("create_round", args, {"creator": creator}, program)


def cancel_round(round_id: int, creator: Key, program: Key = PROGRAM_ID) -> Instruction:
    """Withdraw an own round that no validator has taken."""
    return _build("cancel_round", {"round_id": round_id}, {"creator": creator}, program)


def claim_round(round_id: int, validator: Key, program: Key = PROGRAM_ID) -> Instruction:
    """Take a round as its validator."""
    return _build("claim_round", {"round_id": round_id}, {"validator": validator}, program)


def join_round(round_id: int, trainer: Key, program: Key = PROGRAM_ID) -> Instruction:
    """Take a trainer's place; the trainer pays the rent of its submission account."""
    return _build("join_round", {"round_id": round_id}, {"trainer": trainer}, program)


def start_training(
    round_id: int, baseline_score: int, validator: Key, program: Key = PROGRAM_ID
) -> Instruction:
    """End the joining; `baseline_score` is in hundredths of a percent."""
    args = {"round_id": round_id, "baseline_score": baseline_score}
    return _build("start_training", args, {"validator": validator}, program)


def submit_gradients(
    round_id: int, cid: str, trainer: Key, program: Key = PROGRAM_ID
) -> Instruction:
    """Hand in the CID of the gradients; possible once."""
    args = {"round_id": round_id, "gradient_cid": cid}
    return _build("submit_gradients", args, {"trainer": trainer}, program)


def check_round(round_id: int, creator: Key, program: Key = PROGRAM_ID) -> Instruction:
    """Apply the round's time-outs; anyone may, `creator` is the round's."""
    return _build("check_round", {"round_id": round_id}, {"creator": creator}, program)


def set_contribution(
    round_id: int, trainer: Key, bps: int, validator: Key, program: Key = PROGRAM_ID
) -> Instruction:
    """Set a trainer's share of the pool in hundredths of a percent."""
    accounts = {
        "submission": submission_address(round_id, trainer, program)[0],
        "validator": validator,
    }
    args = {"round_id": round_id, "contribution_bps": bps}
    return _build("set_contribution", args, accounts, program)


def finalize_round(
    round_id: int,
    results: Sequence[tuple[Key, int]],
    validator: Key,
    program: Key = PROGRAM_ID,
) -> Instruction:
    """End the scoring with all shares at once: (trainer, bps) that sum to 10000."""
    shares = [{"trainer": str(trainer), "contribution_bps": bps} for trainer, bps in results]
    args = {"round_id": round_id, "results": shares}
    return _build("finalize_round", args, {"validator": validator}, program)


def abort_round(
    round_id: int, creator: Key, validator: Key, program: Key = PROGRAM_ID
) -> Instruction:
    """Give a round up as its validator; the reward goes back to `creator` (v1.2 alone)."""
    accounts = {"creator": creator, "validator": validator}
    return _build("abort_round", {"round_id": round_id}, accounts, program)


def complete_validation(
    round_id: int,
    validator: Key,
    *,
    generation: str,
    referrer: Key | None = None,
    program: Key = PROGRAM_ID,
) -> Instruction:
    """End the scoring and pay the validator's fee."""
    accounts = {"validator": validator, **_payout_accounts(generation, referrer)}
    args = {"round_id": round_id}
    return _build("complete_validation", args, accounts, program, generation)


def claim_validator_fee(
    round_id: int,
    validator: Key,
    *,
    generation: str,
    referrer: Key | None = None,
    program: Key = PROGRAM_ID,
) -> Instruction:
    """Collect the validator's fee, if completing did not pay it."""
    accounts = {"validator": validator, **_payout_accounts(generation, referrer)}
    args = {"round_id": round_id}
    return _build("claim_validator_fee", args, accounts, program, generation)


def claim_reward(
    round_id: int,
    trainer: Key,
    *,
    generation: str,
    referrer: Key | None = None,
    program: Key = PROGRAM_ID,
) -> Instruction:
    """Collect a trainer's share of a completed round."""
    accounts = {"trainer": trainer, **_payout_accounts(generation, referrer)}
    return _build("claim_reward", {"round_id": round_id}, accounts, program, generation)


def _payout_accounts(generation: str, referrer: Key | None) -> dict[str, Key]:
    """From v1.1 on a payout also names the treasury and, where there is one, a referrer."""
    if generation == "v1.0":
        if referrer is not None:
            raise SettingsError("a v1.0 program pays no referrers")
        return {}
    return {"treasury": TREASURY, **({} if referrer is None else {"referrer": referrer})}


def _build(
    name: str,
    args: Mapping[str, Any],
    accounts: Mapping[str, Key],
    program: Key,
    generation: str = _NEWEST,
) -> Instruction:
    idl = Idl.load(generation)
    data = idl.encode_instruction(name, args)
    program_id = as_pubkey(program)
    known = {account: as_pubkey(key) for account, key in accounts.items()}
    instruction = idl.instructions[name]
    seeds = {n: idl.encode_value(kind, args[n], n) for n, kind in instruction.fields}
    metas = [_meta(a, known, seeds, program_id) for a in instruction.accounts]
    return Instruction(program_id, data, metas)


def _meta(
    account: AccountLayout,
    known: Mapping[str, Pubkey],
    arguments: Mapping[str, bytes],
    program: Pubkey,
) -> AccountMeta:
    if account.name in known:
        return AccountMeta(known[account.name], account.signer, account.writable)
    if account.address is not None:
        return AccountMeta(as_pubkey(account.address), account.signer, account.writable)
    if account.seeds:
        seeds = [_seed(seed, known, arguments) for seed in account.seeds]
        derived, _ = Pubkey.find_program_address(seeds, program)
        return AccountMeta(derived, account.signer, account.writable)
    # What is left is an optional account without a value, which Anchor wants as the program
    # itself. (Every builder passes all others.)
    return AccountMeta(program, is_signer=False, is_writable=False)


def _seed(
    seed: Mapping[str, Any], known: Mapping[str, Pubkey], arguments: Mapping[str, bytes]
) -> bytes:
    if seed["kind"] == "const":
        return bytes(seed["value"])
    return arguments[seed["path"]] if seed["kind"] == "arg" else bytes(known[seed["path"]])
