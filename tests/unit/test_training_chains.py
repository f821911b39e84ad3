"""A training's chain in its folder: the newest states, found again whatever was damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from decloud_trainer.errors import CorruptionError, StoreUnavailable
from decloud_trainer.store import forwarding
from decloud_trainer.store.chain import Store, blob_key
from decloud_trainer.store.forwarding import MARK, forward, waiting
from decloud_trainer.store.opening import open_store
from decloud_trainer.store.seal import sealed
from decloud_trainer.store.verify import problems
from decloud_trainer.store.version import Version
from decloud_trainer.training import chains
from decloud_trainer.training.chains import ChainCheckpoints
from decloud_trainer.training.checkpoint import Checkpoint

BIG = 40_000  # numbers, so that each tensor is a blob of its own


def state(step: int) -> Checkpoint:
    """One tensor that never changes, one that always does."""
    same, other = torch.ones(BIG), torch.full((BIG,), step + 2.0)
    return Checkpoint({"step": step}, {"model/a": same, "model/b": other})


def kept(folder: Path, *steps: int) -> Store:
    """A chain with these states, committed one after the other by processes of their own."""
    for step in steps:
        checkpoints = ChainCheckpoints(folder)
        checkpoints.save(state(step))
        assert checkpoints.close().failed == 0
    return open_store(str(folder / "chain"))


def head(store: Store) -> Version:
    found = store.get_head()
    assert found is not None
    return found


def latest(folder: Path) -> int | None:
    checkpoints = ChainCheckpoints(folder)
    found = checkpoints.latest()
    checkpoints.close()
    return None if found is None else found.document["step"]


def blobs(store: Store) -> int:
    return len(list(store.backend.list("blobs/")))


def test_the_newest_contents_stay_and_all_records(tmp_path: Path) -> None:
    """Two contents, however many were committed; the chain is whole from its first version on."""
    assert latest(tmp_path) is None
    store = kept(tmp_path, *range(6))
    assert latest(tmp_path) == 5
    assert [store.is_collected(version) for version in store.log()] == [False, False] + [True] * 4
    assert not list(problems(store))
    assert blobs(store) == 1 + 2 * 2  # what is shared, and each one's own with its header
    checkpoints = ChainCheckpoints(tmp_path)
    checkpoints.settle()
    assert blobs(store) == 1 + 2


def test_a_damaged_state_is_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said and the one before taken, also once more after that; what is committed then
    shares nothing with the damaged one."""
    store = kept(tmp_path, 1, 2)
    for piece in head(store).pieces[1:]:
        store.backend.write(blob_key(piece.sha256), b"damaged")
    assert latest(tmp_path) is None, "both have the tensor that never changes"
    assert "is damaged" in caplog.text

    store = kept(tmp_path, 3, 4)
    own = {piece.sha256 for piece in head(store).pieces}
    own -= {piece.sha256 for piece in store.get_version(head(store).counter - 1).pieces}
    for digest in own:
        store.backend.delete(blob_key(digest))
    assert latest(tmp_path) == 3
    assert latest(tmp_path) == 3
    kept(tmp_path, 4)
    assert latest(tmp_path) == 4
    assert not list(problems(store))


def test_a_chain_that_cannot_be_read_is_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A torn HEAD costs the checkpoints, not those to come."""
    store = kept(tmp_path, 1, 2)
    store.backend.write("HEAD", b"torn")
    assert latest(tmp_path) is None
    assert "a new chain of versions is begun" in caplog.text
    store = kept(tmp_path, 3)
    assert latest(tmp_path) == 3
    assert head(store).counter == 0


def test_a_disk_that_refuses_is_said_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on without; the report counts it."""
    monkeypatch.setattr("decloud_trainer.store.backend.RETRY_WAITS_S", ())
    checkpoints = ChainCheckpoints(tmp_path)
    (tmp_path / "chain").mkdir(exist_ok=True)
    (tmp_path / "chain" / "blobs").write_text("no folder")
    checkpoints.save(state(1))
    report = checkpoints.close()
    assert (report.committed, report.failed) == (0, 1)
    assert report.error


def test_what_was_asked_for_stays_until_it_has_gone_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits wait with their contents, within the room there is; checkpoints come and go."""
    checkpoints = ChainCheckpoints(tmp_path)
    store, named = (open_store(str(tmp_path / name)) for name in ("chain", "named"))
    for step in range(5):
        checkpoints.commit(state(step), f"step {step}", {"step": float(step)})
    checkpoints.close()
    kept(tmp_path, 5, 6, 7)
    assert [version.commit_message for version in waiting(store)] == [f"step {n}" for n in range(5)]
    done = forward(store, named, {"round": 7.0})
    assert (len(done.versions), done.lost) == (5, 0)
    assert next(version.metrics for version in named.log()) == {"step": 4.0, "round": 7.0}
    assert [version.content_hash for version in named.log()] == [
        store.get_version(number).content_hash for number in (4, 3, 2, 1, 0)
    ]
    assert blobs(named) == 1 + 5 * 2, "what neighbours share is stored once"
    assert forward(store, named, {}).versions == ()
    kept(tmp_path, 8)
    assert blobs(store) == 1 + 2 * 2

    # With room for two more, the oldest give way, and the loss is counted.
    monkeypatch.setattr(chains, "MAX_WAITING_BYTES", 2 * head(store).size)
    checkpoints = ChainCheckpoints(tmp_path)
    for step in range(9, 14):
        checkpoints.commit(state(step), f"step {step}", {"step": float(step)})
    checkpoints.close()
    done = forward(store, named, {})
    assert (len(done.versions), done.lost) == (2, 3)
    assert not list(problems(store))
    assert not list(problems(named))


def test_a_crash_before_the_note_makes_no_second_version(tmp_path: Path) -> None:
    """What is in the named chain already isn't committed there again."""
    checkpoints = ChainCheckpoints(tmp_path)
    for step in range(2):
        checkpoints.commit(state(step), "x", {"step": float(step)})
    checkpoints.close()
    store, named = (open_store(str(tmp_path / name)) for name in ("chain", "named"))
    forward(store, named, {})
    named.commit([b"another run's"], "between")
    store.backend.write(MARK, sealed(b"0"))
    assert [version.counter for version in forward(store, named, {}).versions] == [1]
    assert head(named).commit_message == "between"


def test_links_and_pipes_in_a_chain_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training child's folder can't have the daemon read a file elsewhere, or wait for ever."""
    monkeypatch.setattr("decloud_trainer.store.backend.RETRY_WAITS_S", ())
    store = kept(tmp_path, 1)
    (tmp_path / "chain" / "HEAD").rename(tmp_path / "elsewhere")
    (tmp_path / "chain" / "HEAD").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable):
        store.get_head()
    (tmp_path / "chain" / "HEAD").unlink()
    os.mkfifo(tmp_path / "chain" / "HEAD")
    with pytest.raises(StoreUnavailable, match="no plain file"):
        store.get_head()


@pytest.mark.parametrize("key", ["HEAD", "versions/v0000000000.json", MARK])
def test_a_record_without_an_end_is_not_read_to_the_end(tmp_path: Path, key: str) -> None:
    """A child may write 69 GB into a file; the daemon that reads it has a limit of its own."""
    checkpoints = ChainCheckpoints(tmp_path)
    for step in range(2):
        checkpoints.commit(state(step), "x", {"step": float(step)})
    checkpoints.close()
    store, named = (open_store(str(tmp_path / name)) for name in ("chain", "named"))
    (tmp_path / "chain" / key).touch()
    os.truncate(tmp_path / "chain" / key, 69 * 1000**3)
    with pytest.raises(CorruptionError, match="has more than"):
        forward(store, named, {})
    assert named.get_head() is None


def test_contents_have_the_size_that_is_told_and_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that is longer than its record says, or than any tensor, is lost; others arrive."""
    checkpoints = ChainCheckpoints(tmp_path)
    for step in range(3):
        checkpoints.commit(state(step), "x", {"step": float(step)})
    checkpoints.close()
    store, named = (open_store(str(tmp_path / name)) for name in ("chain", "named"))
    own = {piece.sha256 for piece in store.get_version(1).pieces if piece.size > BIG}
    own -= {piece.sha256 for piece in store.get_version(0).pieces}
    for digest in own:
        os.truncate(tmp_path / "chain" / blob_key(digest), 69 * 1000**3)
    done = forward(store, named, {})
    assert ([version.metrics["step"] for version in done.versions], done.lost) == ([0.0, 2.0], 1)
    checkpoints = ChainCheckpoints(tmp_path)
    checkpoints.commit(state(3), "x", {"step": 3.0})
    checkpoints.close()
    monkeypatch.setattr(forwarding, "MAX_PIECE_BYTES", 4 * BIG - 1)
    done = forward(store, named, {})
    assert (done.versions, done.lost) == ((), 1)
