"""What a replay says about its outcome."""

from __future__ import annotations

from typing import Any

import pytest

from decloud_trainer.cli.replay import verdict
from decloud_trainer.training.record import RunRecord


def a_record(
    sha256: str = "aa",
    *,
    loss: float | None = 0.5,
    after: float | None = 90.0,
    torch: str = "2.5",
    device: str = "cpu",
) -> RunRecord:
    result: dict[str, Any] = {
        "sha256": sha256,
        "loss": [] if loss is None else [0.9, loss],
        "preview": None if after is None else {"before": 10.0, "after": after, "samples": 100},
        "device": device,
    }
    versions = {"torch": torch, "cpu": "AVX2"}
    return RunRecord("2026-01-01", {}, {}, versions, {}, None, (), (), result, 0)


def test_equal_bytes_are_equal_whatever_the_versions() -> None:
    """Another torch that computes the same is no reason to doubt."""
    told = verdict(a_record(), a_record(torch="2.6"))
    assert (told["equal"], told["within"]) == (True, True)
    assert told["says"].startswith("equal: ")


def test_other_bytes_from_the_same_versions_are_a_failure() -> None:
    """However near the figures are."""
    told = verdict(a_record(), a_record("bb"))
    assert (told["equal"], told["within"]) == (False, False)
    assert "though torch and the CPU's instructions are the same" in told["says"]


@pytest.mark.parametrize(
    ("loss", "after", "within"),
    [
        (0.51, 90.9, True),
        (0.51, 91.1, False),
        (0.53, 90.0, False),
        (0.51, None, False),
        (None, 90.0, False),
    ],
)
def test_between_versions_a_tolerance_holds(
    loss: float | None, after: float | None, within: bool
) -> None:
    """One point of the preview, 5 % of the last loss; both must be there on both sides."""
    told = verdict(a_record(), a_record("bb", loss=loss, after=after, torch="2.6"))
    assert (told["equal"], told["within"]) == (False, within)
    assert "torch 2.5 then, 2.6 now" in told["says"]


def test_a_gpu_is_held_to_the_tolerance() -> None:
    """Its sums aren't the same twice."""
    told = verdict(a_record(device="cuda:0"), a_record("bb", device="cuda:0"))
    assert (told["equal"], told["within"]) == (False, True)
    assert "sums on cuda:0 differ" in told["says"]
