"""A pricer's training that commits itself, to a folder and to a bucket."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pricers import SHORT, config, network, pricer
from s3server import bucket_url

from decloud_trainer.errors import CorruptionError, SettingsError, StoreUnavailable
from decloud_trainer.store.aio import AsyncStore
from decloud_trainer.store.backend import MAX_RECORD_BYTES, Folder
from decloud_trainer.store.chain import Store
from decloud_trainer.store.opening import open_store
from decloud_trainer.store.verify import problems
from decloud_trainer.training.pricing.config import GbmCVNNPricerConfig
from decloud_trainer.training.pricing.pricer import GbmCVNNPricer
from decloud_trainer.training.pricing.saving import (
    checkpoint_of,
    commit_snapshot,
    load_snapshot_from_checkpoint,
)
from decloud_trainer.training.results import Progress


@pytest.fixture(params=["folder", "bucket"])
def chain(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty chain."""
    if request.param == "folder":
        return str(tmp_path / "chain")
    server = request.getfixturevalue("server")
    return bucket_url(server, monkeypatch, request.node.name)


def loaded(store: Store, name: str | int) -> GbmCVNNPricerConfig:
    return load_snapshot_from_checkpoint(store, store.get_version(name), network(9), config())


def test_training_with_auto_commit(chain: str) -> None:
    """One version after the training, with the state that the pricer has then."""
    store, trained = open_store(chain), pricer()
    report = trained.train(SHORT, blockchain_store=store, auto_commit=True)
    assert report.commits is not None
    assert (report.commits.committed, report.commits.failed) == (1, 0)
    head = store.get_head()
    assert head is not None
    assert head.counter == 0
    assert head.metrics["step"] == 6
    assert loaded(store, 0).global_step == 6
    assert not list(problems(store))


def test_training_with_commit_interval(chain: str) -> None:
    """Every second batch and the end: three versions, one chain."""
    store = open_store(chain)
    report = pricer().train(SHORT, blockchain_store=store, auto_commit=True, commit_interval=2)
    assert report.commits is not None
    assert report.commits.committed == 3
    steps = [version.metrics["step"] for version in store.log()]
    assert steps == [6, 4, 2]
    assert [loaded(store, n).sobol_skip for n in range(3)] == [8, 16, 24]
    assert not list(problems(store))


def test_training_without_storage_backward_compat() -> None:
    """Without a chain nothing is committed, and the training is the same."""
    alone, committed = pricer(), pricer()
    report = alone.train(SHORT)
    assert report.commits is None
    assert len(report.losses) == 6
    assert same_state(alone.snapshot(), committed_in_memory(committed))


def committed_in_memory(trained: GbmCVNNPricer) -> GbmCVNNPricerConfig:
    trained.train(SHORT)
    return trained.snapshot()


@pytest.mark.parametrize("wanted", [{"auto_commit": True}, {"commit_interval": 100}])
def test_training_validation_auto_commit_requires_store(wanted: dict[str, int]) -> None:
    """Refused before a batch is trained, in these words; so are other wrong combinations."""
    trained = pricer()
    with pytest.raises(
        SettingsError, match="auto_commit or commit_interval requires blockchain_store"
    ):
        trained.train(SHORT, **wanted)
    assert trained.snapshot().global_step == 0


def test_training_commit_message_template(chain: str) -> None:
    """Step, loss and batch with their formats; anything else is refused at once."""
    store, trained = open_store(chain), pricer()
    template = "[EXP] step={step}, loss={loss:.4f}, batch={batch}"
    report = trained.train(
        SHORT,
        blockchain_store=store,
        auto_commit=True,
        commit_interval=4,
        commit_message_template=template,
    )
    messages = [version.commit_message for version in store.log()]
    assert messages == [
        f"[EXP] step=6, loss={report.losses[5]:.4f}, batch=6",
        f"[EXP] step=4, loss={report.losses[3]:.4f}, batch=4",
    ]
    for wrong in ("{price}", "{step", "{loss:q}", "{step.real}", "{}", "{loss!r}"):
        with pytest.raises(SettingsError, match="the commit message"):
            trained.train(
                SHORT, blockchain_store=store, auto_commit=True, commit_message_template=wrong
            )


def test_training_commit_preserves_optimizer_state(chain: str) -> None:
    """Adam's moments come back as they were, tensor by tensor."""
    store, trained = open_store(chain), pricer()
    trained.train(SHORT, blockchain_store=store, auto_commit=True)
    found, own = loaded(store, 0), trained.snapshot()
    assert found.optimizer_state is not None
    assert own.optimizer_state is not None
    assert found.optimizer_state.keys() == own.optimizer_state.keys()
    assert any(name.endswith("exp_avg_sq") for name in own.optimizer_state)
    assert same_state(found, own)


def same_state(one: GbmCVNNPricerConfig, other: GbmCVNNPricerConfig) -> bool:
    """Equal to the bit in weights, optimiser and position."""
    states = [checkpoint_of(replace(each, torch_cpu_rng_state=None)) for each in (one, other)]
    left, right = (state.tensors for state in states)
    return (
        states[0].document == states[1].document
        and left.keys() == right.keys()
        and all(torch.equal(left[name], right[name]) for name in left)
    )


async def test_training_commits_within_a_running_event_loop(chain: str) -> None:
    """Where the caller has a loop, and with the store whose calls are awaited."""
    async with AsyncStore(chain) as store:
        trained = pricer()
        trained.train(SHORT, blockchain_store=store, auto_commit=True, commit_interval=3)
        head = await store.get_head()
        assert head is not None
        assert head.counter == 1
        trained.train(SHORT)
        version = await commit_snapshot(store, trained.snapshot(), "after validation")
        assert await store.get_version("v0000000002") == version
        found = await load_snapshot_from_checkpoint(store, version, network(5), config())
        assert same_state(found, trained.snapshot())
        await asyncio.sleep(0)


AGAIN = """
import sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from pricers import SHORT, config, network
from decloud_trainer.store.opening import open_store
from decloud_trainer.training.pricing.pricer import GbmCVNNPricer
from decloud_trainer.training.pricing.saving import load_snapshot_from_checkpoint
store = open_store(sys.argv[2])
for number, left in ((0, 4), (1, 2)):
    template = network(3, norm=sys.argv[3])
    version = store.get_version(number)
    snapshot = load_snapshot_from_checkpoint(store, version, template, config())
    pricer = GbmCVNNPricer(snapshot, device="cpu", threads=1)
    pricer.train(replace(SHORT, num_batches=left), blockchain_store=store, auto_commit=True)
"""


@pytest.mark.parametrize("norm", ["none", "covariance"])
def test_resuming_at_any_commit_equals_the_uninterrupted_run(tmp_path: Path, norm: str) -> None:
    """In a new process; weights, optimiser and drawn samples to the bit, across epochs."""
    chain = str(tmp_path / "chain")
    store = open_store(chain)
    # 1000 batches make an epoch: begin just before the end of one.
    start = replace(config(), cvnn=network(1, norm=norm), global_step=997, sobol_skip=3988)
    whole = GbmCVNNPricer(start, device="cpu", threads=1)
    whole.train(SHORT, blockchain_store=store, auto_commit=True, commit_interval=2)
    wanted = loaded_as(store, 2, norm)
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, str(Path(__file__).parent.parent), chain, norm],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    head = store.get_head()
    assert head is not None
    assert head.counter == 4
    assert same_state(loaded_as(store, 3, norm), wanted)
    assert same_state(loaded_as(store, 4, norm), wanted)


def loaded_as(store: Store, number: int, norm: str) -> GbmCVNNPricerConfig:
    version = store.get_version(number)
    return load_snapshot_from_checkpoint(store, version, network(9, norm=norm), config())


def test_a_failing_commit_never_stops_training(tmp_path: Path) -> None:
    """Each is counted and the next interval tries again; the report tells at the end."""

    class Moody(Folder):
        """Its first two commits find nobody there."""

        refusals = 8  # four tries for each

        def read(self, key: str, most: int = MAX_RECORD_BYTES) -> bytes | None:
            if self.refusals:
                self.refusals -= 1
                raise StoreUnavailable("connection timed out")
            return super().read(key, most)

    store = Store(Moody(tmp_path / "chain"), "moody", sleep=lambda _: None)
    report = pricer().train(SHORT, blockchain_store=store, auto_commit=True, commit_interval=2)
    assert len(report.losses) == 6
    assert report.commits is not None
    assert (report.commits.committed, report.commits.failed) == (1, 2)
    assert report.commits.error == "connection timed out"
    head = store.get_head()
    assert head is not None
    assert head.metrics["step"] == 6


def test_a_training_that_is_stopped_is_committed_once(tmp_path: Path) -> None:
    """At a batch that has its commit already there is no second one; else there is one more."""
    for number, (batches, wanted) in enumerate([(4, [4, 2]), (5, [5, 4, 2])]):
        store = open_store(str(tmp_path / f"chain-{number}"))
        looks = itertools.count()
        trained = pricer()
        report = trained.train(
            SHORT,
            blockchain_store=store,
            auto_commit=True,
            commit_interval=2,
            should_stop=lambda looks=looks, batches=batches: next(looks) == batches,
        )
        assert len(report.losses) == batches
        assert [version.metrics["step"] for version in store.log()] == wanted
        assert same_state(loaded(store, len(wanted) - 1), trained.snapshot())


def test_the_time_that_is_told_is_until_the_end(tmp_path: Path) -> None:
    """Commits on the way don't cut the training up: what is left is left of all of it."""
    told: list[Progress] = []
    start = replace(config(), global_step=998, sobol_skip=3992)
    GbmCVNNPricer(start, device="cpu", threads=1).train(
        SHORT,
        blockchain_store=open_store(str(tmp_path / "chain")),
        auto_commit=True,
        commit_interval=1,
        progress=told.append,
    )
    assert [(progress.epoch, progress.epochs) for progress in told] == [(1, 2), (2, 2)]


def test_another_pricers_version_is_refused(tmp_path: Path) -> None:
    """A template of another shape or simulation, and a version of something else."""
    store = open_store(str(tmp_path / "chain"))
    version = commit_snapshot(store, pricer().snapshot(), "mine")
    with pytest.raises(SettingsError, match="network isn't the template's"):
        load_snapshot_from_checkpoint(store, version, network(1, width=9), config())
    other = replace(config(), domain_bounds={"spot": (1.0, 2.0)})
    with pytest.raises(SettingsError, match="bounds aren't the template's"):
        load_snapshot_from_checkpoint(store, version, network(), other)
    stray = store.commit([b"bytes"], "stray")
    with pytest.raises(CorruptionError, match="can't be used"):
        load_snapshot_from_checkpoint(store, stray, network(), config())
