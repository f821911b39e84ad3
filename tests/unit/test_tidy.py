"""A daemon that runs for months doesn't fill the disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

from decloud_trainer.rounds.entry import Facts
from decloud_trainer.rounds.models import prune
from decloud_trainer.rounds.tidy import discard_artifact


def test_an_artefact_goes_its_log_stays(tmp_path: Path) -> None:
    """Only the large file of a finished round is removed; twice is no failure."""
    artifact, log = tmp_path / "gradient.pt", tmp_path / "worker.log"
    artifact.write_bytes(b"x")
    log.write_text("what happened")
    discard_artifact(Facts(artifact=str(artifact)))
    discard_artifact(Facts(artifact=str(artifact)))
    discard_artifact(Facts())
    assert os.listdir(tmp_path) == ["worker.log"]


def test_the_models_unused_for_longest_go_first(tmp_path: Path) -> None:
    """The cache stays under its limit and keeps what was used last, and all that is needed."""
    for age, name in enumerate(["new", "middle", "old", "needed"]):
        path = tmp_path / f"{name}.pt"
        path.write_bytes(bytes(100))
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    prune(tmp_path, max_bytes=350, needed={"needed.pt"})
    assert sorted(os.listdir(tmp_path)) == ["middle.pt", "needed.pt", "new.pt"]
    prune(tmp_path, max_bytes=350, needed={"needed.pt"})
    prune(tmp_path / "absent", max_bytes=350)
    assert sorted(os.listdir(tmp_path)) == ["middle.pt", "needed.pt", "new.pt"]
    prune(tmp_path, max_bytes=0, needed={"needed.pt"})
    assert os.listdir(tmp_path) == ["needed.pt"]


def test_what_a_killed_download_left_goes_in_time(tmp_path: Path) -> None:
    """Another process may be at work on a young one."""
    for name, age_s in ((".old.pt.x.part", 100_000), (".young.pt.x.part", 10)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "0").write_bytes(b"x")
        os.utime(folder, (time.time() - age_s,) * 2)
    prune(tmp_path, max_bytes=350)
    assert os.listdir(tmp_path) == [".young.pt.x.part"]
