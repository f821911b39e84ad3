"""What the model cache keeps, and which pin services and gateways come first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from roundvalues import a_round

from decloud_trainer import services
from decloud_trainer.errors import SettingsError
from decloud_trainer.ipfs.scores import FAILED_S, WRONG_S, Scores
from decloud_trainer.rounds.entry import NOTHING_KNOWN, RowKey, State
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.models import models_needed
from decloud_trainer.settings import Settings

URLS = ("https://a", "https://b", "https://c")


def test_the_models_of_rounds_in_work_are_needed(tmp_path: Path) -> None:
    """From being taken until the gradients are pinned, of whichever wallet; no others."""
    journal = Journal(tmp_path / "journal.sqlite")
    try:
        for number, state in enumerate(State):
            key = RowKey("genesis", "program", f"wallet {number % 2}", number)
            journal.saw(
                key,
                a_round(id=number, model_cid=state.value),
                state=state,
                facts=NOTHING_KNOWN,
            )
        assert models_needed(journal) == {"watching", "fetched", "joined", "trained"}
    finally:
        journal.close()


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_gateways_are_ordered_by_what_they_did() -> None:
    """As given at first; then the quick before the unknown, failures later, liars last."""
    scores = Scores(clock=Clock())
    assert scores.order(URLS) == list(URLS)
    scores.note("https://a", WRONG_S)
    scores.note("https://b", FAILED_S)
    scores.note("https://c", 0.1)
    assert scores.order([*URLS, "https://new"]) == [
        "https://c",
        "https://new",
        "https://b",
        "https://a",
    ]


def test_a_bad_day_is_forgotten() -> None:
    """After a day a gateway that failed is as good as an unknown one again, or nearly."""
    clock = Clock()
    scores = Scores(clock=clock)
    scores.note("https://a", WRONG_S)
    clock.now += 86_400
    scores.note("https://b", 2.1)
    assert scores.order(URLS[:2]) == ["https://a", "https://b"]
    clock.now -= 10 * 86_400  # the machine's clock was set back
    assert set(scores.order(URLS)) == set(URLS)


def test_scores_survive_a_restart_and_damage(tmp_path: Path) -> None:
    """A file that can't be read, or lies about numbers, is a fresh start."""
    path = tmp_path / "cache" / "gateways.json"
    Scores(path).note("https://a", FAILED_S)
    assert Scores(path).order(URLS[:2]) == ["https://b", "https://a"]
    for damaged in (b"", b"[]", b"{", b'{"https://a": 7}', b'{"https://a": ["x", 1]}', b"\xff"):
        path.write_bytes(damaged)
        assert Scores(path).order(URLS) == list(URLS)
    path.write_text(json.dumps({"https://a": [float("nan"), 0], "https://b": [-5, 0]}))
    assert Scores(path).order(URLS) == list(URLS)


def names(**changes: object) -> Sequence[str]:
    settings = Settings(network="devnet", **changes)  # type: ignore[arg-type]
    return [service.name for service in services.pin_services_of(settings)]


ALL = {
    "pinata_jwt": "j",
    "pinata_api_key": "k",
    "pinata_secret_key": "s",
    "kubo_api_url": "http://127.0.0.1:5001",
    "pinning_api_url": "https://api.example.com/psa",
    "pinning_api_token": "t",
}


def test_pin_services_come_in_the_order_set() -> None:
    """All that are configured, in the README's order, unless the setting says otherwise."""
    assert names() == []
    assert names(**ALL) == ["Pinata", "Pinata (API key)", "pinning API", "Kubo"]
    assert names(**ALL, pin_services=("kubo", "pinata")) == ["Kubo", "Pinata"]
    local = services.pin_services_of(Settings(network="localnet"))
    assert [service.name for service in local] == ["Pinata"]


def test_a_pin_service_that_is_not_configured_is_named() -> None:
    """An order that can't be kept is an error at the start, not at the first upload."""
    with pytest.raises(SettingsError, match="pin_services names kubo, which isn't configured"):
        names(pinata_jwt="j", pin_services=("pinata", "kubo"))
    with pytest.raises(SettingsError, match="pinning_api_token"):
        names(pinning_api_url="https://api.example.com/psa")
