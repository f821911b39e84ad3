"""A training child that is killed in the middle of an epoch, and one that takes its place."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from workers import working

from decloud_trainer.store.opening import open_store
from decloud_trainer.store.verify import problems
from decloud_trainer.training.snapshots import load_checkpoint

STRATEGY = {
    "schedule": "cosine",
    "averaging": "ema",
    "augment": "light",
    "validation": 0.1,
}


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    """Two epochs of digits, with everything that a training can have on the way."""
    import torch

    from decloud_trainer.training.artifacts import serialise
    from decloud_trainer.training.networks import SimpleCNN

    torch.manual_seed(0)
    model = tmp_path / "model.pt"
    model.write_bytes(serialise(SimpleCNN(10).state_dict()))
    return {
        "model": {"path": str(model), "sha256": hashlib.sha256(model.read_bytes()).hexdigest()},
        "architecture": "simple_cnn",
        "classes": 10,
        "data": {"name": "digits", "path": None, "data_dir": str(tmp_path / "data")},
        "preview": None,
        "epochs": 2,
        "device": "cpu",
        "threads": 1,
        "strategy": STRATEGY,
        "artifact": {"apply_scale": -0.1, "dtype": "auto"},
        "checkpoint_every_s": 0.05,
    }


def kept_in_epoch(folder: Path) -> bool:
    """Whether the newest state at the moment is from the middle of an epoch."""
    store = open_store(str(folder / "chain"))
    head = store.get_head()
    return head is not None and bool(load_checkpoint(store, head).document["batch"])


def test_killed_in_mid_epoch_it_ends_as_if_nothing_had_been(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    """After kill -9 the same job, begun again in its folder, gives the same artefact byte for byte
    and the same curve as a run that nobody disturbed; its record says that it was resumed."""
    interrupted(tmp_path / "killed", spec)
    assert not (tmp_path / "killed" / "gradient.pt").exists()
    assert (tmp_path / "killed" / "so-far.pt").exists()

    with (
        working(tmp_path / "killed", "train", spec) as again,
        working(tmp_path / "whole", "train", spec) as undisturbed,
    ):
        resumed, whole = again.result(), undisturbed.result()
    assert resumed["sha256"] == whole["sha256"]
    assert resumed["loss"] == whole["loss"]
    records = [
        json.loads((tmp_path / name / "run.json").read_bytes()) for name in ("killed", "whole")
    ]
    assert records[0]["choices"] == records[1]["choices"]
    for first, second in zip(records[0]["curve"], records[1]["curve"], strict=True):
        assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert "resumed at step" in records[0]["notes"][0]
    assert records[1]["notes"] == []
    left = sorted(path.name for path in (tmp_path / "killed").iterdir())
    assert {"chain", "gradient.pt", "run.json", "worker.log"} <= set(left)
    assert "so-far.pt" not in left
    assert not list(problems(open_store(str(tmp_path / "killed" / "chain"))))


def interrupted(folder: Path, spec: dict[str, Any]) -> None:
    """Start the job and kill it in the middle of an epoch, after its first checkpoint."""
    with working(folder, "train", spec) as worker:
        pid, ends = worker.process.pid, time.monotonic() + 60
        while True:
            # It stands still while its chain is looked at: a busy machine has no say in this.
            worker.process.send_signal(signal.SIGSTOP)
            found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            assert found is not None
            assert found.si_code == os.CLD_STOPPED, "it was over before it could be killed"
            if kept_in_epoch(folder):
                break
            worker.process.send_signal(signal.SIGCONT)
            assert time.monotonic() < ends
            time.sleep(0.01)
        worker.process.kill()


RESUMED_AT_EACH = """
import dataclasses, json, sys
from pathlib import Path
from decloud_trainer.store.opening import open_store
from decloud_trainer.training.chains import ChainCheckpoints
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.runs import train_model
from decloud_trainer.training.spec import TrainSpec

spec = TrainSpec.from_json(json.loads(sys.argv[1]))
base = Path(sys.argv[2])

def run(name):
    folder = base / name
    folder.mkdir(exist_ok=True)
    checkpoints = ChainCheckpoints(folder)
    train_model(spec, folder, Hooks(lambda: 0.0, checkpoints=checkpoints))
    return open_store(str(folder / "chain"))

if sys.argv[3] == "whole":
    run("whole")
else:
    whole = open_store(str(base / "whole" / "chain"))
    for number in range(whole.get_head().counter):
        version = whole.get_version(number)
        begun = open_store(str(base / f"from-{number}" / "chain"))
        begun.commit([whole.read(version)], version.commit_message, metrics=version.metrics)
        run(f"from-{number}")
"""


def test_resumed_at_any_commit_it_ends_as_if_nothing_had_been(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    """In a new process: model, optimiser, averages, losses and artefact to the bit, over the end of
    an epoch that `max_batches` cuts short. Commits come at exactly the batches asked for, and the
    last one once."""
    spec |= {"max_batches": 3, "checkpoint_every_s": 0.0, "until_improved": False}
    message = "e{epoch} b{batch} s{step} loss={loss:.3f} acc={accuracy:.1f}"
    spec["commits"] = {"auto_commit": True, "commit_interval": 2, "message": message}
    for what in ("whole", "resumed"):
        words = [sys.executable, "-c", RESUMED_AT_EACH, json.dumps(spec), str(tmp_path), what]
        subprocess.run(words, check=True, timeout=120)
    whole = open_store(str(tmp_path / "whole" / "chain"))
    log = list(whole.log())[::-1]
    assert [version.metrics["step"] for version in log] == [2, 4, 6]
    assert log[1].commit_message.startswith("e2 b1 s4 loss=")
    assert set(log[-1].metrics) == {"step", "epoch", "batch", "loss", "accuracy", "validation"}
    wanted = load_checkpoint(whole, log[-1])
    artifact = (tmp_path / "whole" / "gradient.pt").read_bytes()
    for number in range(2):
        folder = tmp_path / f"from-{number}"
        chain = open_store(str(folder / "chain"))
        head = chain.get_head()
        assert head is not None
        assert head.counter == 2 - number
        assert head.metrics == log[-1].metrics
        found = load_checkpoint(chain, head)
        assert found.tensors.keys() == wanted.tensors.keys()
        assert all(found.tensors[name].equal(wanted.tensors[name]) for name in found.tensors)
        assert found.document["spec"]["strategy"]["averaging"] == "ema"
        assert str(tmp_path) not in json.dumps(found.document), "folders are nobody's business"
        assert found.document["notes"] == [f"resumed at step {2 * number + 2}"]
        assert {**found.document, "notes": []} == {**wanted.document, "notes": []}
        assert (folder / "gradient.pt").read_bytes() == artifact
