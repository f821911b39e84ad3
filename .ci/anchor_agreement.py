"""anchorpy as a second opinion: does it agree with our codec, to the byte?

Runs in an environment of its own that has anchorpy, base58 and this package without its other
dependencies. For every generation: every instruction (bytes and account list, both directions),
every account and every event, each with several random values. Prints a summary; exit code 1 on
the first disagreement.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import anchorpy
from solana.rpc.async_api import AsyncClient
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from decloud_trainer.chain import v1
from decloud_trainer.chain.anchor import anchor_program
from decloud_trainer.chain.codec import GENERATIONS, Idl, Variant

ROUNDS = 25
TEXTS = ("", "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o", "bafkrei" + "a" * 52, "é✓🜁" * 5)


class Disagreement(Exception):
    pass


def expect_equal(ours: object, theirs: object, what: str) -> None:
    if ours != theirs:
        raise Disagreement(f"{what}:\n  ours    {ours!r}\n  anchorpy {theirs!r}")


def random_int(kind: str, random_: random.Random) -> int:
    bits = int(kind[1:])
    low, high = (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return random_.choice([low, high, random_.randint(low, high), random_.randint(0, 127)])


def random_value(idl: Idl, kind: Any, random_: random.Random) -> Any:
    match kind:
        case "bool":
            return random_.random() < 0.5
        case "string":
            return random_.choice(TEXTS)
        case "pubkey":
            return str(Pubkey(random_.randbytes(32)))
        case {"vec": item}:
            return [random_value(idl, item, random_) for _ in range(random_.randint(0, 10))]
        case {"defined": {"name": "TrainerResult" as name}}:
            return random_struct(idl, name, random_)
        case {"defined": {"name": name}}:
            return idl.variant(name, random_.randrange(len(idl.variants(name))))
    return random_int(kind, random_)


def random_struct(idl: Idl, name: str, random_: random.Random) -> dict[str, Any]:
    return {n: random_value(idl, kind, random_) for n, kind in idl.fields(name)}


def to_anchorpy(program: Any, kind: Any, value: Any) -> Any:
    match kind:
        case "pubkey":
            return Pubkey.from_string(value)
        case {"vec": item}:
            return [to_anchorpy(program, item, one) for one in value]
        case {"defined": {"name": "TrainerResult"}}:
            # A dict: anchorpy's own dataclass can't hold a public key of solders 0.26, which
            # deepcopy refuses.
            return {**value, "trainer": Pubkey.from_string(value["trainer"])}
        case {"defined": {"name": name}}:
            return getattr(program.type[name], value.name)()
    return value


def from_anchorpy(value: Any) -> Any:
    """What anchorpy decoded, as our codec has it."""
    if isinstance(value, Pubkey):
        return str(value)
    if isinstance(value, list):
        return [from_anchorpy(one) for one in value]
    if hasattr(value, "index") and hasattr(type(value), "getitem"):
        return Variant(value.index, type(value).__name__)
    if hasattr(value, "items"):
        return {n: from_anchorpy(one) for n, one in value.items() if not n.startswith("_")}
    if hasattr(value, "__dataclass_fields__"):
        return {n: from_anchorpy(getattr(value, n)) for n in value.__dataclass_fields__}
    return value


def structs_agree(
    idl: Idl,
    program: Any,
    names: list[str],
    encode: Callable[[str, dict[str, Any]], bytes],
    theirs: Callable[[bytes], Any],
    their_encode: Callable[[str, dict[str, Any]], bytes],
    random_: random.Random,
) -> int:
    for name in names:
        for _ in range(ROUNDS):
            values = random_struct(idl, name, random_)
            data = encode(name, values)
            converted = {n: to_anchorpy(program, k, values[n]) for n, k in idl.fields(name)}
            expect_equal(data, their_encode(name, converted), f"{name}, encoded")
            decoded = theirs(data)
            expect_equal((name, values), (decoded.name, from_anchorpy(decoded.data)), name)
    return len(names) * ROUNDS


def accounts_agree(idl: Idl, program: Any, random_: random.Random) -> int:
    coder = program.coder.accounts

    def their_encode(name: str, values: dict[str, Any]) -> bytes:
        return bytes(coder.build(anchorpy.NamedInstruction(name=name, data=values)))

    names = list(idl.accounts)
    for name in names:
        data = idl.encode_account(name, random_struct(idl, name, random_))
        padded = data + bytes(40)
        expect_equal(idl.decode_account(name, padded), from_anchorpy(coder.decode(padded)), name)
    return structs_agree(
        idl, program, names, idl.encode_account, coder.parse, their_encode, random_
    )


def events_agree(idl: Idl, program: Any, random_: random.Random) -> int:
    coder = program.coder.events

    def their_encode(name: str, values: dict[str, Any]) -> bytes:
        # anchorpy has no encoder for events: its discriminator and its layout are what it has.
        discriminator = next(d for d, event in coder.discriminators.items() if event == name)
        return bytes(discriminator + coder.layouts[name].build(values))

    return structs_agree(
        idl, program, list(idl.events), idl.encode_event, coder.parse, their_encode, random_
    )


def instructions_agree(idl: Idl, program: Any, random_: random.Random) -> int:
    for name, layout in idl.instructions.items():
        for _ in range(ROUNDS):
            args = {n: random_value(idl, kind, random_) for n, kind in layout.fields}
            data = idl.encode_instruction(name, args)
            accounts = {
                a.name: None
                if a.optional and random_.random() < 0.5
                else Pubkey(random_.randbytes(32))
                for a in layout.accounts
            }
            built = program.instruction[name](
                *(to_anchorpy(program, kind, args[n]) for n, kind in layout.fields),
                ctx=anchorpy.Context(accounts=accounts),
            )
            expect_equal(data, bytes(built.data), f"{name}, encoded")
            expected = [
                (accounts[a.name], a.signer, a.writable)
                if accounts[a.name]
                else (program.program_id, False, False)
                for a in layout.accounts
            ]
            metas = [(m.pubkey, m.is_signer, m.is_writable) for m in built.accounts]
            expect_equal(expected, metas, f"{name}, accounts")
            decoded = program.coder.instruction.parse(data)
            expect_equal((name, args), (decoded.name, from_anchorpy(decoded.data)), name)
            expect_equal((name, args), idl.decode_instruction(data), f"{name}, decoded")
    return len(idl.instructions) * ROUNDS


def builders_agree(program: Any, generation: str, random_: random.Random) -> int:
    """The trainer's three instructions, as the client builds them."""
    for _ in range(ROUNDS):
        trainer, referrer = Pubkey(random_.randbytes(32)), Pubkey(random_.randbytes(32))
        round_id, cid = random_.getrandbits(64), random_.choice(TEXTS)
        accounts: dict[str, Any] = {
            "round": v1.round_address(round_id)[0],
            "submission": v1.submission_address(round_id, trainer)[0],
            "vault": v1.vault_address(round_id)[0],
            "treasury": v1.TREASURY,
            "referrer": None if generation == "v1.0" else random_.choice([None, referrer]),
            "trainer": trainer,
            "system_program": v1.SYSTEM_PROGRAM,
        }
        theirs = anchorpy.Context(accounts=accounts)
        build = program.instruction
        expect_equal(
            v1.join_round(round_id, trainer), build["join_round"](round_id, ctx=theirs), "join"
        )
        expect_equal(
            v1.submit_gradients(round_id, cid, trainer),
            build["submit_gradients"](round_id, cid, ctx=theirs),
            "submit",
        )
        claim = v1.claim_reward(
            round_id, trainer, generation=generation, referrer=accounts["referrer"]
        )
        expect_equal(claim, build["claim_reward"](round_id, ctx=theirs), "claim")
    return 3 * ROUNDS


def main() -> int:
    provider = anchorpy.Provider(AsyncClient("http://127.0.0.1:1"), anchorpy.Wallet(Keypair()))
    print(
        f"anchorpy {version('anchorpy')}, solana {version('solana')}, solders {version('solders')}"
    )
    for generation in GENERATIONS:
        random_ = random.Random(generation)
        idl = Idl.load(generation)
        program = anchor_program(provider, generation)
        try:
            instructions = instructions_agree(idl, program, random_)
            builders = builders_agree(program, generation, random_)
            accounts = accounts_agree(idl, program, random_)
            events = events_agree(idl, program, random_)
            errors = {e.code: (e.name, e.msg) for e in program.idl.errors}
            ours = {e.number: (e.name, e.message) for e in idl.errors.values()}
            expect_equal(ours, errors, "errors")
        except Disagreement as error:
            print(f"{generation}: DISAGREE about {error}")
            return 1
        print(
            f"{generation}: agree on {len(idl.instructions)} instructions ({instructions} values,"
            f" {builders} built), {len(idl.accounts)} accounts ({accounts} values),"
            f" {len(idl.events)} events ({events} values), {len(errors)} errors"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
