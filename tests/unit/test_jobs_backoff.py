"""Attempts after a failed one are given less at a time; leftovers of killed processes go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from decloud_trainer.errors import SettingsError
from decloud_trainer.faultpoints import Fault, parse
from decloud_trainer.files import remove_leftovers
from decloud_trainer.jobs.backoff import backed_off, times_backed_off, told


def test_each_failed_attempt_halves_batch_and_threads() -> None:
    """The first attempt has what was asked for; no batch is smaller than two samples."""
    spec = {"batch_size": 32, "threads": 4, "epochs": 1}
    sizes = [backed_off(spec, times_backed_off(n, 0))["batch_size"] for n in (1, 2, 3, 9)]
    assert sizes == [32, 16, 8, 2]
    assert backed_off(spec, 1) == {"batch_size": 16, "threads": 2, "epochs": 1}
    assert told(spec, backed_off(spec, 1)) == "batch_size 16, threads 2"
    assert backed_off({"data": {}}, 2) == {"data": {}}


def test_a_power_cut_or_two_change_nothing() -> None:
    """Deaths of the program say little about the job: its checkpoint is gone on from."""
    assert [times_backed_off(1, deaths) for deaths in (0, 2, 3, 6)] == [0, 0, 1, 2]


def test_only_leftovers_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    """A file that another living process is writing stays, and so does whatever isn't ours."""
    alive = os.getppid()
    kept = {f".a.json.{alive}-abc_1.tmp", "a.json", ".hidden", ".b.tmp"}
    gone = {f".a.json.{os.getpid()}-abc_2.tmp", ".a.json.999999999-abc_3.tmp"}
    for name in kept | gone:
        (tmp_path / name).touch()
    (tmp_path / ".m.pt.999999999-xyz.part").mkdir()
    assert remove_leftovers(tmp_path) == 3
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_faults_are_named_exactly() -> None:
    """A drill that names no point there is, or no fault, is refused."""
    assert parse("file.torn@3+=EIO,*@7=kill") == (
        Fault("file.torn", "EIO", 3, on=True),
        Fault("*", "kill", 7),
    )
    for text in ("file.thorn=kill", "file.torn", "file.torn=explode"):
        with pytest.raises(SettingsError, match="DECLOUD_FAULTS"):
            parse(text)
