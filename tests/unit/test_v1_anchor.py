"""The export for anchorpy. Whether anchorpy agrees is tested where it is installed, in CI."""

from __future__ import annotations

import sys

import pytest

from decloud_trainer.chain.anchor import anchor_program, legacy_idl
from decloud_trainer.chain.codec import GENERATIONS, Idl
from decloud_trainer.errors import SettingsError


def test_without_anchorpy_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is an extra, for an environment of its own."""
    monkeypatch.setitem(sys.modules, "anchorpy", None)
    with pytest.raises(SettingsError, match="anchorpy is not installed") as caught:
        anchor_program(None, "v1.2")
    assert "pip install 'decloud-trainer[anchor]'" in caught.value.hint
    assert "environment of its own" in caught.value.hint


def test_an_instruction_in_the_older_format() -> None:
    """Names in camel case, flags spelled isMut and isSigner, types in the older spelling."""
    instructions = {i["name"]: i for i in legacy_idl("v1.2")["instructions"]}
    claim = instructions["claimReward"]
    assert claim["args"] == [{"name": "roundId", "type": "u64"}]
    accounts = [
        (a["name"], a["isMut"], a["isSigner"], a.get("isOptional", False))
        for a in claim["accounts"]
    ]
    assert accounts == [
        ("round", False, False, False),
        ("submission", True, False, False),
        ("vault", True, False, False),
        ("treasury", True, False, False),
        ("referrer", True, False, True),
        ("trainer", True, True, False),
        ("systemProgram", False, False, False),
    ]
    results = instructions["finalizeRound"]["args"][1]
    assert results["type"] == {"vec": {"defined": "TrainerResult"}}


def test_types_accounts_and_events_are_apart_in_the_older_format() -> None:
    """Each struct stands in one list only; that of events has its fields inside."""
    legacy = legacy_idl("v1.0", "4wBqpZM9xaSheZzJSMawUKKwhdpChKbZ5eu5ky4Vigw")
    assert [a["name"] for a in legacy["accounts"]] == ["Round", "RoundCounter", "Submission"]
    assert {t["name"] for t in legacy["types"]} == {
        "Dataset",
        "ExpireReason",
        "RoundStatus",
        "TrainerResult",
    }
    events = {e["name"]: e["fields"] for e in legacy["events"]}
    assert events["RewardClaimed"] == [
        {"name": "roundId", "type": "u64", "index": False},
        {"name": "trainer", "type": "publicKey", "index": False},
        {"name": "amount", "type": "u64", "index": False},
    ]
    assert legacy["errors"][0]["name"] == "InvalidCid"
    assert legacy["metadata"]["address"] == "4wBqpZM9xaSheZzJSMawUKKwhdpChKbZ5eu5ky4Vigw"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_export_leaves_our_idl_as_it_is(generation: str) -> None:
    """It may be made any number of times."""
    assert legacy_idl(generation) == legacy_idl(generation)
    assert Idl.load(generation).raw["types"][0].keys() >= {"name", "type"}
