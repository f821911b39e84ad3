"""The program as an anchorpy `Program`, for those who write their own tools with anchorpy.

anchorpy (0.21) reads only the IDL format that Anchor wrote before 0.30; `legacy_idl` exports ours
into it. anchorpy itself is an extra of the package, best installed in an environment of its own:
it holds solana-py and solders at older releases. Nothing else here needs it.

    provider = anchorpy.Provider(connection, anchorpy.Wallet(keypair))
    program = anchor_program(provider, "v1.2")
    await program.rpc["join_round"](7, ctx=anchorpy.Context(accounts={...}))
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from decloud_trainer.chain.codec import Idl, InstructionLayout
from decloud_trainer.chain.v1_addresses import PROGRAM_ID, Key, as_pubkey
from decloud_trainer.errors import SettingsError


def anchor_program(provider: Any, generation: str, program_id: Key = PROGRAM_ID) -> Any:
    """The program as an `anchorpy.Program`; `provider` is an `anchorpy.Provider`.

    Every account of an instruction has to be named; None stands for an optional one that is
    absent. Structs among the arguments are passed as dicts. Raises SettingsError without anchorpy.
    """
    try:
        import anchorpy
    except ImportError as error:
        raise SettingsError(
            "anchorpy is not installed",
            hint="In an environment of its own: pip install 'decloud-trainer[anchor]'",
        ) from error
    legacy = anchorpy.Idl.from_json(json.dumps(legacy_idl(generation, program_id)))
    program = anchorpy.Program(legacy, as_pubkey(program_id), provider)
    for name, layout in Idl.load(generation).instructions.items():
        if any(account.optional for account in layout.accounts):
            # anchorpy knows no absent accounts. All its ways to an instruction ask this one
            # function for the list.
            function = program.instruction[name]
            function.accounts = functools.partial(
                _accounts_or_none, layout, function.accounts, program.program_id
            )
    return program


def _accounts_or_none(
    layout: InstructionLayout,
    original: Callable[[dict[str, Any]], list[AccountMeta]],
    program_id: Pubkey,
    accounts: Mapping[str, Any],
) -> list[AccountMeta]:
    """The list with None as Anchor wants it: the program's own id, read-only."""
    nobody = AccountMeta(program_id, is_signer=False, is_writable=False)
    absent = [a.optional and accounts[a.name] in (None, program_id) for a in layout.accounts]
    names = (a.name for a in layout.accounts)
    given = {n: program_id if a else accounts[n] for n, a in zip(names, absent, strict=True)}
    return [nobody if a else m for m, a in zip(original(given), absent, strict=True)]


def legacy_idl(generation: str, program_id: Key = PROGRAM_ID) -> dict[str, Any]:
    """Our IDL in the format before Anchor 0.30.

    Discriminators, fixed addresses and seeds are left out: the old format derives the first from
    the names, has no second, and anchorpy makes no use of the third.
    """
    idl = Idl.load(generation).raw
    types = {entry["name"]: _legacy_type_definition(entry) for entry in idl["types"]}
    accounts = [types.pop(account["name"]) for account in idl["accounts"]]
    events = [_legacy_event(types.pop(event["name"])) for event in idl["events"]]
    return {
        "version": idl["metadata"]["version"],
        "name": idl["metadata"]["name"],
        "instructions": [_legacy_instruction(entry) for entry in idl["instructions"]],
        "accounts": accounts,
        "types": list(types.values()),
        "events": events,
        "errors": list(idl["errors"]),
        "metadata": {"address": str(program_id)},
    }


def _legacy_instruction(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": _camel(entry["name"]),
        "docs": entry["docs"],
        "accounts": [_legacy_account(account) for account in entry["accounts"]],
        "args": [_legacy_field(field) for field in entry["args"]],
    }


def _legacy_account(entry: Mapping[str, Any]) -> dict[str, Any]:
    account = {
        "name": _camel(entry["name"]),
        "isMut": entry.get("writable", False),
        "isSigner": entry.get("signer", False),
    }
    if entry.get("optional"):
        account["isOptional"] = True
    for key in ("docs", "relations"):
        if key in entry:
            account[key] = entry[key]
    return account


def _legacy_type_definition(entry: Mapping[str, Any]) -> dict[str, Any]:
    definition = {key: entry[key] for key in ("name", "docs") if key in entry}
    kind = entry["type"]
    if kind["kind"] == "struct":
        kind = {"kind": "struct", "fields": [_legacy_field(field) for field in kind["fields"]]}
    return definition | {"type": kind}


def _legacy_event(definition: Mapping[str, Any]) -> dict[str, Any]:
    fields = [
        {"name": field["name"], "type": field["type"], "index": False}
        for field in definition["type"]["fields"]
    ]
    return {"name": definition["name"], "fields": fields}


def _legacy_field(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**entry, "name": _camel(entry["name"]), "type": _legacy_type(entry["type"])}


def _legacy_type(kind: Any) -> Any:
    match kind:
        case "pubkey":
            return "publicKey"
        case {"vec": item}:
            return {"vec": _legacy_type(item)}
        case {"defined": {"name": name}}:
            return {"defined": name}
    return kind


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
