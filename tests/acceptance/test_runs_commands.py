"""Recorded runs as a user meets them: listed, shown, compared, replayed, seen in TensorBoard."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminal import here, run
from workers import working

from decloud_trainer import config
from decloud_trainer.errors import SettingsError
from decloud_trainer.ipfs.cid import file_cid
from decloud_trainer.localnet.actors.shipped import MODEL
from decloud_trainer.plans import plan_of

# Round 7 was trained twice, the second time with another seed; round 12 once.
FIRST, SECOND, OTHER = "r7-aaaa1111-train-1", "r7-aaaa1111-train-2", "r12-bbbb2222-train-1"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs on the digits, with their model in it."""
    folder = tmp_path_factory.mktemp("trained")
    model = folder / "base.pt"
    shutil.copyfile(MODEL, model)
    data = {"name": "digits", "path": None, "data_dir": str(folder / "data")}
    spec = {
        "model": {"path": str(model), "sha256": hashlib.sha256(model.read_bytes()).hexdigest()},
        "architecture": "simple_cnn",
        "classes": 10,
        "data": data,
        "preview": data,
        "epochs": 2,
        "max_batches": 8,
        "device": "cpu",
        "threads": 1,
        "artifact": {"apply_scale": -0.1, "dtype": "auto"},
        "tensorboard": True,
    }
    again = {**spec, "seed": 1, "tensorboard": False}
    for name, each in ((FIRST, spec), (SECOND, again)):
        with working(folder / name, "train", each) as worker:
            worker.result()
    return folder


@pytest.fixture
def jobs(trained: Path, own_home: Path) -> Path:
    """The jobs' folder of this test's home, with three records; one of them is a copy."""
    jobs = own_home / "decloud" / "jobs"
    for name, source in ((FIRST, FIRST), (SECOND, SECOND), (OTHER, FIRST)):
        shutil.copytree(trained / source, jobs / name)
    return jobs


@pytest.fixture
def edit(jobs: Path) -> Callable[..., None]:
    """Changes values of a record: ``edit("result.sha256", "0" * 64)``."""

    def change(name: str, value: object, run_id: str = FIRST) -> None:
        path = jobs / run_id / "run.json"
        record = json.loads(path.read_bytes())
        *outer, last = name.split(".")
        part = record
        for each in outer:
            part = part[each]
        part[last] = value
        path.write_text(json.dumps(record))

    return change


def recorded(jobs: Path, run_id: str = FIRST) -> dict[str, Any]:
    return json.loads((jobs / run_id / "run.json").read_bytes())  # type: ignore[no-any-return]


def test_without_runs_it_says_so() -> None:
    """An empty list is no error."""
    done = here("runs", "list")
    assert (done.code, done.err) == (0, "")
    assert "no run is recorded here yet" in done.out


def test_runs_are_listed_latest_first(jobs: Path) -> None:
    """With round, model, data, preview; a damaged record costs a sentence, not the list."""
    before = recorded(jobs)["result"]["preview"]["before"]
    done = here("runs", "list")
    assert done.code == 0, done
    ids = [line.split()[0] for line in done.out.splitlines() if line.startswith("r")]
    assert ids[0] == SECOND
    assert set(ids) == {FIRST, SECOND, OTHER}
    assert "#12" in done.out
    assert f"{before:.2f} -> " in done.out
    (jobs / FIRST / "run.json").write_bytes(b"{")
    done = here("runs", "list", "--limit", "1", "--json")
    assert done.code == 0
    assert [row["id"] for row in done.json] == [SECOND]
    assert done.json[0]["round"] == 7
    assert "left out" in done.err
    assert FIRST in done.err


@pytest.mark.parametrize("name", [FIRST, FIRST[:-1] + "1", "12", "#12", "r12"])
def test_a_run_is_found_by_its_id_its_beginning_or_its_round(jobs: Path, name: str) -> None:
    """Any of these names one run."""
    done = here("runs", "show", name, "--json")
    assert done.code == 0, done
    assert done.json["id"] == (FIRST if name == FIRST else OTHER)


def test_a_rounds_number_means_its_latest_run(jobs: Path) -> None:
    """Round 7 was trained twice."""
    assert here("runs", "show", "7", "--json").json["id"] == SECOND


def test_one_run_in_full(jobs: Path) -> None:
    """What was asked, chosen and reached, each epoch, and with --plot the curves."""
    record = recorded(jobs)
    done = here("runs", "show", FIRST, "--plot")
    assert done.code == 0, done
    for text in (
        "simple_cnn with 10 classes",
        "digits, 1,347 samples",
        "epochs 2, batch size 32",
        "threads 1",
        f"torch {record['versions']['torch']}",
        record["result"]["sha256"],
        "Loss, by epoch",
        "Training accuracy in %, by epoch",
    ):
        assert text in done.out, text
    for point in record["curve"]:
        assert f"{point['loss']:.4f}" in done.out
    assert here("runs", "show", FIRST, "--json").json["curve"] == record["curve"]


def test_names_that_fit_none_or_several(jobs: Path) -> None:
    """Exit code 1 and the way on."""
    none, several = here("runs", "show", "r99"), here("runs", "show", "r7")
    assert (none.code, several.code) == (1, 1)
    assert "no run r99 is recorded here" in none.err
    assert "runs list" in none.err
    assert FIRST in several.err
    assert SECOND in several.err
    assert here("runs", "compare", FIRST, "98").code == 1


def test_a_damaged_record_is_corruption(jobs: Path, edit: Callable[..., None]) -> None:
    """Exit code 4, for whichever command needs it."""
    edit("curve", None)
    for words in (("show", FIRST), ("compare", SECOND, FIRST)):
        done = here("runs", *words)
        assert done.code == 4, done
        assert "run.json" in done.err
    assert here("replay", FIRST).code == 4


def test_runs_are_compared(jobs: Path) -> None:
    """Only what differs, both values side by side; equal runs are said to be equal."""
    done = here("runs", "compare", FIRST, SECOND, "--json")
    assert done.code == 0, done
    told = done.json
    assert (told["a"], told["b"]) == (FIRST, SECOND)
    assert told["differences"]["spec.seed"] == [0, 1]
    assert "result.sha256" in told["differences"]
    assert "spec.epochs" not in told["differences"]
    assert "spec.seed" in here("runs", "compare", FIRST, SECOND).out
    assert "equal in everything" in here("runs", "compare", FIRST, OTHER).out


def test_a_replay_gives_the_same_bytes_and_the_same_cid(jobs: Path, tmp_path: Path) -> None:
    """Byte for byte, in a process of its own, hours later."""
    artifact, again = jobs / FIRST / "gradient.pt", tmp_path / "again.pt"
    done = run("replay", FIRST, "--out", str(again))
    assert done.code == 0, done
    assert again.read_bytes() == artifact.read_bytes()
    assert "the same byte for byte" in done.out
    for version in (0, 1):
        assert str(file_cid(artifact, version=version)) in done.out
    assert "replay: train" in done.err


def test_a_replay_with_another_torch_is_held_to_a_tolerance(
    jobs: Path, edit: Callable[..., None]
) -> None:
    """It says which version differs, and that the figures are near enough."""
    edit("versions.torch", "1.0.0")
    edit("result.sha256", "0" * 64)
    done = here("replay", FIRST, "--json")
    assert done.code == 0, done
    told = done.json
    assert (told["equal"], told["within"]) == (False, True)
    assert told["changed"][0].startswith("torch 1.0.0 then, ")
    assert "within the tolerance" in told["says"]
    assert told["again"]["loss"] == recorded(jobs)["result"]["loss"][-1]


def test_a_replay_needs_the_base_model(jobs: Path, edit: Callable[..., None]) -> None:
    """Another file in its place is as good as none: exit code 1, and the digest that is wanted."""
    edit("spec.model.path", str(jobs / FIRST / "gradient.pt"))
    done = here("replay", FIRST)
    assert done.code == 1, done
    assert "is no longer here" in done.err
    assert recorded(jobs)["spec"]["model"]["sha256"] in done.err


def test_curves_without_tensorboard_are_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before anything is paid for, with what to install and what to set."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it weren't installed
    settings = config.load(options={"tensorboard": True}, environ={}).settings
    with pytest.raises(SettingsError, match="isn't installed") as refused:
        plan_of(settings)
    assert "decloud-trainer[track]" in str(refused.value.hint)
    assert plan_of(config.load(environ={}).settings).tensorboard is False


def test_curves_can_be_read_by_tensorboard(jobs: Path) -> None:
    """Loss and accuracy of each epoch, and the preview, under the run's own folder."""
    pytest.importorskip("tensorboard", reason="the extra track isn't installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = recorded(jobs)
    events = EventAccumulator(str(jobs / FIRST / "tensorboard"))
    events.Reload()
    points = [(each.step, each.value) for each in events.Scalars("epoch/loss")]
    wanted = [(point["steps"], pytest.approx(point["loss"])) for point in record["curve"]]
    assert points == wanted
    after = events.Scalars("preview/after")[0].value
    assert after == pytest.approx(record["result"]["preview"]["after"])
    assert not (jobs / SECOND / "tensorboard").exists()
