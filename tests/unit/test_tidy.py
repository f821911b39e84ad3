"""A daemon that runs for months doesn't fill the disk."""

from __future__ import annotations

import os
from pathlib import Path

from decloud_trainer.rounds.entry import Facts
from decloud_trainer.rounds.tidy import discard_artifact, prune_models


def test_an_artefact_goes_its_log_stays(tmp_path: Path) -> None:
    """Only the large file of a finished round is removed; twice is no failure."""
    artifact, log = tmp_path / "gradient.pt", tmp_path / "worker.log"
    artifact.write_bytes(b"x")
    log.write_text("what happened")
    discard_artifact(Facts(artifact=str(artifact)))
    discard_artifact(Facts(artifact=str(artifact)))
    discard_artifact(Facts())
    assert os.listdir(tmp_path) == ["worker.log"]


def test_the_oldest_models_go_first(tmp_path: Path) -> None:
    """The cache stays under its limit and keeps what was fetched last."""
    for age, name in enumerate(["new", "middle", "old"]):
        path = tmp_path / f"{name}.pt"
        path.write_bytes(bytes(100))
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    prune_models(tmp_path, max_bytes=250)
    assert sorted(os.listdir(tmp_path)) == ["middle.pt", "new.pt"]
    prune_models(tmp_path, max_bytes=250)
    prune_models(tmp_path / "absent")
    assert sorted(os.listdir(tmp_path)) == ["middle.pt", "new.pt"]
