"""A model of a kind that was inspected before is ready without torch."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from decloud_trainer.rounds import recall

SPEC: dict[str, Any] = {"model": "/a", "max_bytes": 10**6, "device": "cpu", "threads": 1}


def model(path: Path, seed: int = 0, width: int = 3) -> Path:
    torch.manual_seed(seed)
    torch.save({"w": torch.randn(width, 2), "b": torch.randn(width)}, path)
    return path


def report_of(path: Path) -> dict[str, Any]:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"architecture": "x", "classes": 3, "samples_per_s": 100.0, "sha256": sha256}


def test_the_same_tensors_with_other_weights_are_known(tmp_path: Path) -> None:
    """The report is the earlier one's, with the hash of the file that is there now."""
    kept, first = tmp_path / "kept.json", model(tmp_path / "first.pt")
    assert recall.recalled(kept, first, SPEC) is None
    recall.remember(kept, first, SPEC, report_of(first))
    second = model(tmp_path / "second.pt", seed=1)
    found = recall.recalled(kept, second, {**SPEC, "model": "/b"})
    assert found == report_of(second)
    assert found["sha256"] != report_of(first)["sha256"]


def test_anything_else_is_inspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other shapes, another device, a file that breaks the rules, an old measurement."""
    kept, first = tmp_path / "kept.json", model(tmp_path / "first.pt")
    recall.remember(kept, first, SPEC, report_of(first))
    assert recall.recalled(kept, model(tmp_path / "wide.pt", width=4), SPEC) is None
    assert recall.recalled(kept, first, {**SPEC, "threads": 2}) is None
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"\x80\x04.")
    assert recall.recalled(kept, bad, SPEC) is None
    assert recall.recalled(kept, tmp_path / "none.pt", SPEC) is None
    now = recall.time.time()
    monkeypatch.setattr(recall.time, "time", lambda: now + recall.MAX_AGE_S)
    assert recall.recalled(kept, first, SPEC) is None


@pytest.mark.parametrize("text", ["", "[]", '{"x": 1}', "[" * 10**5])
def test_a_damaged_memory_is_none(tmp_path: Path, text: str) -> None:
    """It is written anew."""
    kept, first = tmp_path / "kept.json", model(tmp_path / "first.pt")
    kept.write_text(text)
    assert recall.recalled(kept, first, SPEC) is None
    recall.remember(kept, first, SPEC, report_of(first))
    assert recall.recalled(kept, first, SPEC) == report_of(first)


def test_a_file_that_changed_under_the_inspection_is_not_remembered(tmp_path: Path) -> None:
    """What the report is about must be what is there."""
    kept, first = tmp_path / "kept.json", model(tmp_path / "first.pt")
    recall.remember(kept, first, SPEC, {**report_of(first), "sha256": "another"})
    assert recall.recalled(kept, first, SPEC) is None


def test_the_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest entries make room."""
    monkeypatch.setattr(recall, "MAX_ENTRIES", 3)
    kept, paths = (
        tmp_path / "kept.json",
        [model(tmp_path / f"{n}.pt", width=n) for n in range(1, 6)],
    )
    for path in paths:
        recall.remember(kept, path, SPEC, report_of(path))
    known = [recall.recalled(kept, path, SPEC) is not None for path in paths]
    assert known == [False, False, True, True, True]


def test_recalling_needs_no_torch() -> None:
    """The daemon stays small."""
    code = "import sys, decloud_trainer.rounds.recall; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
