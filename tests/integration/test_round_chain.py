"""A round's training as a chain of versions: resumed after kill -9, passed on, removed later."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from chaosworld import Chaos, Life, chaos
from processes import kill_with_children

from decloud_trainer.rounds.entry import State
from decloud_trainer.rounds.passing import Passing, passing_on
from decloud_trainer.rounds.training_jobs import prefix
from decloud_trainer.store.forwarding import CHAIN
from decloud_trainer.store.opening import open_store
from decloud_trainer.store.verify import problems

# Six seconds of training or more: with two of them on two processors, a commit waits up to two.
PER_EPOCH, EPOCHS, INTERVAL = 8, 100, 80


def commits_to(named: Path) -> dict[str, Any]:
    return {
        "max_batches": PER_EPOCH,
        "epochs": EPOCHS,
        "store": str(named),
        "auto_commit": True,
        "commit_interval": INTERVAL,
        "commit_message": "{epoch}/{batch}",
    }


async def training_folder(world: Chaos, life: Life, number: int) -> Path:
    """The job's folder, once its chain has a version from the middle of the training."""
    name = f"{prefix(world.scope(life).key(number))}-train*"
    async with asyncio.timeout(200):
        while True:
            for folder in life.home.glob(f"jobs/{name}"):
                if open_store(str(folder / CHAIN)).get_head() is not None:
                    return folder
            await asyncio.sleep(0.005)


async def test_a_killed_round_ends_in_the_same_cid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two daemons train the same round, and one is killed with its child in mid-training: the next
    one goes on from the chain and submits the very CID of the other. Versions of both are in the
    chain that was named; when the round is final, the jobs' own chains are gone."""
    named = tmp_path / "named"
    settings = Chaos._settings
    monkeypatch.setattr(
        Chaos, "_settings", lambda self, life: settings(self, life) | commits_to(named)
    )
    monkeypatch.setattr("chaosworld._last_point", lambda life: "outside")
    monkeypatch.setattr("chaosworld.PATIENCE_S", 200.0)
    async with chaos(tmp_path, worker="torch") as world:
        killed, undisturbed = world.life("killed", lambda _: ""), world.life("calm", lambda _: "")
        number = world.post()
        await world.start()
        world.take(number)
        await world.all_joined(number)
        world.net.start_training(number)
        folder = await training_folder(world, killed, number)
        kill_with_children(killed.pid)
        assert not (folder / "gradient.pt").exists(), "it was over before it could be killed"
        await world.all_submitted(number)
        cids = [world.submission(life, number).gradient_cid for life in world.lives]
        assert cids[0] == cids[1]
        notes = json.loads((folder / "run.json").read_bytes())["notes"]
        assert [note for note in notes if note.startswith("resumed at step")]
        assert killed.struck == ["outside"]
        assert (folder / CHAIN / "HEAD").exists()
        world.complete(number)
        await world.all_in(number, State.CLAIMED)
        await world.stop()
        for life in (killed, undisturbed):
            assert not list(life.home.glob(f"jobs/*/{CHAIN}"))
            entry = world.entries(life)[0]
            assert entry.state is State.CLAIMED
    store = open_store(str(named))
    assert not list(problems(store))
    steps = sorted(int(version.metrics["step"]) for version in store.log())
    own = [*range(INTERVAL, EPOCHS * PER_EPOCH + 1, INTERVAL)]
    assert set(steps) == set(own)
    assert len(steps) >= 2 * len(own)
    assert {version.metrics["round"] for version in store.log()} == {float(number)}


async def test_a_chain_that_fails_does_not_hold_the_round_up(tmp_path: Path) -> None:
    """What can't be passed on is counted and said; nothing is raised, and it can be tried later."""
    own = open_store(str(tmp_path / "job" / CHAIN))
    own.commit([b"state"], "message", metrics={"step": 3.0})
    blocked = tmp_path / "named"
    (blocked / "HEAD").mkdir(parents=True)
    passing = Passing(tmp_path / "job" / CHAIN, str(blocked), {"round": 1.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("decloud_trainer.store.backend.RETRY_WAITS_S", ())
        async with passing_on(passing):
            pass
    assert (passing.committed, passing.lost) == (0, 0)
    assert passing.failed >= 1
    assert "failed" in passing.trouble
    (blocked / "HEAD").rmdir()
    passing.once()
    assert passing.committed == 1
    head = open_store(str(blocked)).get_head()
    assert head is not None
    assert head.metrics == {"step": 3.0, "round": 1.0}
