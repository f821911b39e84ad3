"""A ledger in memory with the program on it, and one call per instruction.

Instruction data, addresses and account lists are written out here from the published contract,
so that these tests check the program without any of the package's own chain code.
"""

from __future__ import annotations

import base64
import os
import struct
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import Transaction

from decloud_trainer.localnet.program.image import FILES, Params, patch, program_image

# CI sets it to test the rebuilt program. Read at import: the tests' guards clean the environment.
PROGRAM_DIR = os.environ.get("PROGRAM_DIR_UNDER_TEST", "")

PROGRAM = Pubkey.from_string("HvQ8c3BBCsibJpH74UDXbvqEidJymzFYyGjNjRn7MYwC")
TREASURY = Pubkey.from_string("FzuCxi65QyFXAGbHcXB28RXqyBZSZ5KXLQxeofx1P9K2")
SYSTEM = Pubkey.default()
SOL = 1_000_000_000
START = 1_760_000_000
CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
CID_V0 = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"

# name: discriminator, accounts (w writable, s signer), straight from the contract (v1.2)
INSTRUCTIONS = {
    "initialize": ("afaf6d1f0d989bed", "round_counter:w authority:ws system:"),
    "create_round": ("e5daeca9e7508670", "round_counter:w round:w vault:w creator:ws system:"),
    "claim_round": ("b4491763bacd0ec8", "round:w validator:ws"),
    "join_round": ("bfde5619eaae9df9", "round:w submission:w trainer:ws system:"),
    "start_training": ("c8dc0b1bb3b473c0", "round:w validator:ws"),
    "submit_gradients": ("1c8b3fd1fbddef36", "round:w submission:w trainer:ws"),
    "check_round": ("951f46dd890522d8", "round:w vault:w creator:w system:"),
    "set_contribution": ("e5b117aef2b4b4f2", "round: submission:w validator:s"),
    "complete_validation": (
        "76fcfd313e15f38c",
        "round:w vault:w treasury:w referrer:w validator:ws system:",
    ),
    "finalize_round": ("efa0fe0bfe903594", "round:w validator:s"),
    "claim_validator_fee": (
        "106394573c39fa91",
        "round:w vault:w treasury:w referrer:w validator:ws system:",
    ),
    "claim_reward": (
        "955fb5f25e5a9ea2",
        "round: submission:w vault:w treasury:w referrer:w trainer:ws system:",
    ),
    "cancel_round": ("524686362e609408", "round:w vault:w creator:ws system:"),
    "abort_round": ("0fa52fc66ccf96d0", "round:w vault:w creator:w validator:ws system:"),
}

# name: fields as a struct format, with K for a key and S for a string
EVENTS = {
    "GradientsSubmitted": "QKSB",
    "RewardClaimed": "QKQQQ",
    "RoundAborted": "QKQ",
    "RoundCancelled": "Q",
    "RoundCreated": "QKSBQq",
    "RoundExpired": "QBQ",
    "RoundFinalized": "QQQR",
    "TrainerJoined": "QKB",
    "TrainingEnded": "QB",
    "TrainingStarted": "QIqB",
    "ValidationCompleted": "Q",
    "ValidatorClaimed": "QKq",
    "ValidatorFeeClaimed": "QKQQQ",
}
EVENTS_V1_0 = {**EVENTS, "RewardClaimed": "QKQ", "ValidatorFeeClaimed": "QKQ"}


def le8(value: int) -> bytes:
    return value.to_bytes(8, "little")


def string(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<I", len(raw)) + raw


def pda(*seeds: bytes) -> Pubkey:
    return Pubkey.find_program_address(list(seeds), PROGRAM)[0]


def counter_address() -> Pubkey:
    return pda(b"round_counter")


def round_address(round_id: int) -> Pubkey:
    return pda(b"round", le8(round_id))


def vault_address(round_id: int) -> Pubkey:
    return pda(b"vault", le8(round_id))


def submission_address(round_id: int, trainer: Pubkey) -> Pubkey:
    return pda(b"submission", le8(round_id), bytes(trainer))


def image(generation: str, params: Params) -> bytes:
    """The shipped program, or the rebuilt one that CI names."""
    if PROGRAM_DIR:
        return patch((Path(PROGRAM_DIR) / FILES[generation]).read_bytes(), params)
    return program_image(generation, params)


@dataclass(frozen=True)
class Outcome:
    """What a transaction did. `code` is the custom error, None for success or another error."""

    ok: bool
    code: int | None
    error: str
    logs: list[str]
    events: list[tuple[Any, ...]]
    units: int

    @property
    def lines(self) -> list[str]:
        """The program's plain log lines, without the instruction's name."""
        texts = [log.removeprefix("Program log: ") for log in self.logs if "Program log: " in log]
        return [text for text in texts if not text.startswith("Instruction: ")]


def read_event(data: bytes, layouts: dict[str, str]) -> tuple[Any, ...]:
    names = {sha256(f"event:{name}".encode()).digest()[:8]: name for name in layouts}
    name = names[data[:8]]
    fields: list[Any] = []
    at = 8
    for kind in layouts[name]:
        if kind == "K":
            fields.append(Pubkey.from_bytes(data[at : at + 32]))
            at += 32
        elif kind == "S":
            (size,) = struct.unpack_from("<I", data, at)
            fields.append(data[at + 4 : at + 4 + size].decode())
            at += 4 + size
        elif kind == "R":
            (count,) = struct.unpack_from("<I", data, at)
            rows = struct.iter_unpack("<32sH", data[at + 4 : at + 4 + 34 * count])
            fields.append([(Pubkey.from_bytes(key), bps) for key, bps in rows])
            at += 4 + 34 * count
        else:
            fields += struct.unpack_from(f"<{kind}", data, at)
            at += struct.calcsize(f"<{kind}")
    assert at == len(data), f"{name} is longer than its fields"
    return (name, *fields)


@dataclass(frozen=True)
class RoundState:
    """A round account, decoded by the published offsets and the hidden tail behind them."""

    id: int
    creator: Pubkey
    cid: str
    dataset: int
    reward: int
    status: int
    validator: Pubkey
    fee_bps: int
    baseline: int
    created_at: int
    validator_deadline: int
    join_deadline: int
    submit_deadline: int
    trainers: int
    submissions: int
    bump: int
    vault_bump: int
    fee_taken: bool
    validation_deadline: int


@dataclass(frozen=True)
class SubmissionState:
    round_id: int
    trainer: Pubkey
    cid: str
    submitted: bool
    bps: int
    claimed: bool
    bump: int


def read_round(data: bytes) -> RoundState:
    assert data[:8].hex() == "577fa533494e74ae"
    assert len(data) == 208
    (round_id,) = struct.unpack_from("<Q", data, 8)
    (size,) = struct.unpack_from("<I", data, 48)
    cid = data[52 : 52 + size].decode()
    fields = struct.unpack_from("<BQB32sHIqqqqBBBB", data, 52 + size)
    dataset, reward, status, validator, *rest = fields
    assert not any(data[136 + size : 200]), "the unused part of the account is zero"
    return RoundState(
        *(round_id, Pubkey.from_bytes(data[16:48]), cid, dataset, reward, status),
        *(Pubkey.from_bytes(validator), *rest),
        *(bool(data[200]), int.from_bytes(data[201:208], "little")),
    )


def read_submission(data: bytes) -> SubmissionState:
    assert data[:8].hex() == "3ac29f9e4b66b2c5"
    assert len(data) == 121
    (round_id,) = struct.unpack_from("<Q", data, 8)
    (size,) = struct.unpack_from("<I", data, 48)
    submitted, bps, claimed, bump = struct.unpack_from("<BHBB", data, 52 + size)
    cid = data[52 : 52 + size].decode()
    trainer = Pubkey.from_bytes(data[16:48])
    return SubmissionState(round_id, trainer, cid, bool(submitted), bps, bool(claimed), bump)


class World:
    """One ledger. Fees are paid by a wallet of their own, so actors' balances are exact."""

    def __init__(self, generation: str = "v1.2", params: Params | None = None) -> None:
        self.generation = generation
        self.params = params or Params()
        self.svm = LiteSVM().with_blockhash_check(False)
        self.svm.add_program(PROGRAM, image(generation, self.params))
        self.payer = self.wallet(1000 * SOL)
        self.authority = self.wallet()
        self.creator = self.wallet(1000 * SOL)
        self.validator = self.wallet()
        self.trainer = self.wallet()
        self.svm.airdrop(TREASURY, SOL)
        self.now = START

    # ---- the ledger ----

    @property
    def now(self) -> int:
        return self.svm.get_clock().unix_timestamp

    @now.setter
    def now(self, time: int) -> None:
        clock = self.svm.get_clock()
        clock.unix_timestamp = time
        self.svm.set_clock(clock)

    def wallet(self, lamports: int = 10 * SOL) -> Keypair:
        key = Keypair()
        if lamports:
            self.svm.airdrop(key.pubkey(), lamports)
        return key

    def balance(self, who: Pubkey | Keypair) -> int:
        return self.svm.get_balance(who.pubkey() if isinstance(who, Keypair) else who) or 0

    def data(self, address: Pubkey) -> bytes:
        account = self.svm.get_account(address)
        assert account is not None
        return bytes(account.data)

    def put(self, address: Pubkey, data: bytes, owner: Pubkey, lamports: int = SOL) -> None:
        self.svm.set_account(address, Account(lamports, data, owner))

    def round(self, round_id: int = 0) -> RoundState:
        return read_round(self.data(round_address(round_id)))

    def submission(self, trainer: Keypair | None = None, round_id: int = 0) -> SubmissionState:
        key = (trainer or self.trainer).pubkey()
        return read_submission(self.data(submission_address(round_id, key)))

    # ---- calls ----

    def metas(self, name: str, round_id: int = 0, **actors: Keypair | Pubkey) -> list[AccountMeta]:
        """The instruction's account list; `actors` replace what stands there by role."""
        roles: dict[str, Keypair | Pubkey] = {
            "round_counter": counter_address(),
            "round": round_address(round_id),
            "vault": vault_address(round_id),
            "authority": self.authority,
            "creator": self.creator,
            "validator": self.validator,
            "trainer": self.trainer,
            "treasury": TREASURY,
            "referrer": PROGRAM,
            "system": SYSTEM,
        } | actors
        if "submission" not in roles:
            trainer = roles["trainer"]
            key = trainer.pubkey() if isinstance(trainer, Keypair) else trainer
            roles["submission"] = submission_address(round_id, key)
        metas = []
        for entry in INSTRUCTIONS[name][1].split():
            role, flags = entry.split(":")
            if self.generation == "v1.0" and role in ("treasury", "referrer"):
                continue
            key = roles[role]
            address = key.pubkey() if isinstance(key, Keypair) else key
            none = role == "referrer" and address == PROGRAM
            metas.append(AccountMeta(address, "s" in flags, "w" in flags and not none))
        return metas

    def instruction(
        self, name: str, args: bytes | None = None, round_id: int = 0, **actors: Keypair | Pubkey
    ) -> Instruction:
        """`args` is everything behind the discriminator; None means the round's id alone."""
        if args is None:
            args = b"" if name == "initialize" else le8(round_id)
        data = bytes.fromhex(INSTRUCTIONS[name][0]) + args
        return Instruction(PROGRAM, data, self.metas(name, round_id, **actors))

    def send(self, *instructions: Instruction, signers: list[Keypair] | None = None) -> Outcome:
        known = [self.authority, self.creator, self.validator, self.trainer, *(signers or [])]
        needed = {m.pubkey for i in instructions for m in i.accounts if m.is_signer}
        keys = {key.pubkey(): key for key in known if key.pubkey() in needed}
        self.svm.expire_blockhash()
        hash_ = self.svm.latest_blockhash()
        message = Message.new_with_blockhash(list(instructions), self.payer.pubkey(), hash_)
        transaction = Transaction([self.payer, *keys.values()], message, hash_)
        result = self.svm.send_transaction(transaction)
        failed = hasattr(result, "meta")
        meta = result.meta() if failed else result
        inner = getattr(result.err(), "err", None) if failed else None
        logs = list(meta.logs())
        layouts = EVENTS_V1_0 if self.generation == "v1.0" else EVENTS
        events = [
            read_event(base64.b64decode(log.removeprefix("Program data: ")), layouts)
            for log in logs
            if log.startswith("Program data: ")
        ]
        return Outcome(
            ok=not failed,
            code=getattr(inner, "code", None),
            error=str(result.err()) if failed else "",
            logs=logs,
            events=events,
            units=meta.compute_units_consumed(),
        )

    def call(
        self, name: str, args: bytes | None = None, round_id: int = 0, **actors: Keypair | Pubkey
    ) -> Outcome:
        signers = [key for key in actors.values() if isinstance(key, Keypair)]
        return self.send(self.instruction(name, args, round_id, **actors), signers=signers)

    def must(
        self, name: str, args: bytes | None = None, round_id: int = 0, **actors: Any
    ) -> Outcome:
        outcome = self.call(name, args, round_id, **actors)
        assert outcome.ok, (name, outcome.error, outcome.logs)
        return outcome

    # ---- the stations of a round ----

    def create(
        self, reward: int = SOL, cid: str | bytes = CID, dataset: int = 98, round_id: int = 0
    ) -> Outcome:
        args = le8(round_id) + string(cid) + bytes([dataset]) + le8(reward)
        return self.call("create_round", args, round_id)

    def waiting_validator(self, reward: int = SOL) -> World:
        self.must("initialize")
        outcome = self.create(reward)
        assert outcome.ok, outcome
        return self

    def waiting_trainers(self, reward: int = SOL) -> World:
        self.waiting_validator(reward).must("claim_round")
        return self

    def training(self, *trainers: Keypair, reward: int = SOL) -> World:
        self.waiting_trainers(reward)
        for trainer in trainers or (self.trainer,):
            self.must("join_round", trainer=trainer)
        self.must("start_training", le8(0) + struct.pack("<I", 1234))
        return self

    def validating(self, *trainers: Keypair, reward: int = SOL) -> World:
        self.training(*trainers, reward=reward)
        for trainer in trainers or (self.trainer,):
            self.must("submit_gradients", le8(0) + string(CID), trainer=trainer)
        return self

    def set_bps(self, bps: int, trainer: Keypair | None = None) -> Outcome:
        key = (trainer or self.trainer).pubkey()
        args = le8(0) + struct.pack("<H", bps)
        return self.call("set_contribution", args, submission=submission_address(0, key))

    def completed(self, *shares: tuple[Keypair, int], reward: int = SOL) -> World:
        parts = shares or ((self.trainer, 10_000),)
        self.validating(*(trainer for trainer, _ in parts), reward=reward)
        for trainer, bps in parts:
            assert self.set_bps(bps, trainer).ok
        self.must("complete_validation")
        return self
