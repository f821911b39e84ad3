"""Chains in a bucket, on a real S3 server on this machine."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from s3server import bucket_url

from decloud_trainer.errors import ConflictError, CorruptionError, SettingsError, StoreUnavailable
from decloud_trainer.store.chain import HEAD, Store, blob_key, marked
from decloud_trainer.store.collect import collect
from decloud_trainer.store.copying import copy
from decloud_trainer.store.forwarding import forward
from decloud_trainer.store.opening import open_store
from decloud_trainer.store.s3 import Bucket
from decloud_trainer.store.verify import problems

pytest.importorskip("obstore")
BIG = 200_000  # bytes, so that each piece is an object of its own


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The URL of a chain of the test's own."""
    return bucket_url(server, monkeypatch, request.node.name)


def test_a_chain_in_a_bucket_is_the_same_chain(bucket: str) -> None:
    """Commits, contents, tags, verification: as in a folder."""
    store = open_store(bucket)
    assert store.get_head() is None
    frozen = bytes(BIG)
    made = [store.commit([frozen, bytes([n]) * BIG], f"number {n}") for n in range(4)]
    assert list(store.log()) == made[::-1]
    assert store.read(store.get_version("v0000000002")) == frozen + bytes([2]) * BIG
    assert len(list(store.backend.list("blobs/"))) == 4  # the first version's second is frozen too
    store.tag("best", made[1])
    assert open_store(bucket).get_version("best") == made[1]
    assert not list(problems(store))


def test_of_several_writers_one_wins_each_number(bucket: str) -> None:
    """Fifty commits from ten threads with a client each, all in one unbroken chain."""
    conflicts: list[int] = []

    def write(start: int) -> None:
        mine = open_store(bucket)
        for number in range(start * 5, start * 5 + 5):
            while True:
                try:
                    mine.commit([number.to_bytes(4, "big")], str(number), onto=mine.get_head())
                    break
                except ConflictError:
                    conflicts.append(number)

    threads = [threading.Thread(target=write, args=(start,)) for start in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    store = open_store(bucket)
    assert sorted(int(v.commit_message) for v in store.log()) == list(range(50))
    assert not list(problems(store))
    assert conflicts


def test_a_damaged_object_is_found(bucket: str) -> None:
    """One flipped bit in one piece; the version is named."""
    store = open_store(bucket)
    for n in range(3):
        store.commit([bytes([n]) * BIG], f"number {n}")
    piece = store.get_version(1).pieces[0].sha256
    key = blob_key(piece)
    data = bytearray(store.backend.read(key) or b"")
    data[5] ^= 4
    store.backend.write(key, bytes(data))
    assert [problem.counter for problem in problems(store)] == [1]
    with pytest.raises(CorruptionError, match="a piece of v0000000001"):
        store.read(store.get_version(1))


def test_a_collection_keeps_commits_out(bucket: str) -> None:
    """A commit under way loses its swap, a new one is refused; afterwards all goes on."""
    store = open_store(bucket)
    for n in range(3):
        store.commit([bytes([n]) * BIG], f"number {n}")
    head = store.backend.read(HEAD)
    assert head is not None
    store.backend.write(HEAD, marked(head, store.now().timestamp()))
    assert store.get_head() == store.get_version(2)
    with pytest.raises(ConflictError, match="garbage collection"):
        store.commit([b"x"], "refused")
    with pytest.raises(ConflictError, match="another garbage collection"):
        collect(store, keep=1)
    # One that was broken off long ago is taken over.
    store.backend.write(HEAD, marked(head, store.now().timestamp() - 7200))
    assert [v.counter for v in collect(store, keep=1).versions] == [1]
    assert store.backend.read(HEAD) == head
    assert store.commit([b"x"], "goes on").counter == 3
    assert not list(problems(store))


def test_copies_keep_their_hashes_both_ways(bucket: str, tmp_path: Path) -> None:
    """Folder to bucket to folder; a second copy brings only what is new."""
    here = open_store(str(tmp_path / "here"))
    for n in range(5):
        here.commit([bytes([n]) * BIG, bytes(BIG)], f"number {n}")
    here.tag("good", here.get_version(3))
    collect(here, keep=1)
    there = open_store(bucket)
    assert copy(here, there) == 5
    assert there.get_head() == here.get_head()
    assert not list(problems(there))
    here.commit([b"new"], "one more")
    assert copy(here, there) == 1
    back = open_store(str(tmp_path / "back"))
    assert copy(there, back) == 6
    assert [v.hash for v in back.log()] == [v.hash for v in here.log()]
    assert back.tags() == {"good": 3}
    assert back.read(back.get_version("good")) == here.read(here.get_version("good"))
    assert not list(problems(back))
    back.commit([b"y"], "another way")
    here.commit([b"z"], "one way")
    with pytest.raises(ConflictError, match="versions of its own"):
        copy(here, back)


def test_what_a_bucket_refuses_is_told(bucket: str) -> None:
    """With the bucket's name and what to look at; a wrong name is a wrong setting."""
    with pytest.raises(StoreUnavailable, match="s3://nowhere"):
        Bucket("s3://nowhere/prefix").write("key", b"x")
    with pytest.raises(SettingsError, match="names no bucket"):
        open_store("s3://")
    with pytest.raises(SettingsError, match="names no chain"):
        open_store("https://example.com/x")


def test_a_swap_whose_answer_was_lost_counts_once(bucket: str) -> None:
    """The commit is told as done: HEAD has the very bytes that were to be written."""

    class Lossy(Bucket):
        losses = 1

        def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
            done = super().swap(key, old, new)
            if self.losses:
                self.losses -= 1
                raise StoreUnavailable("the answer was lost")
            return done

    store = Store(Lossy(bucket), bucket, sleep=lambda _: None)
    store.commit([b"x"], "once")
    assert [v.commit_message for v in store.log()] == ["once"]


def test_a_rounds_versions_go_on_to_a_bucket(bucket: str, tmp_path: Path) -> None:
    """Those that were asked for, in their order and once; resuming's own stay at home."""
    own, named = open_store(str(tmp_path / "job")), open_store(bucket)
    for n in range(4):
        asked = {"step": float(n)} if n % 2 else {}
        own.commit([bytes([n]) * BIG], f"number {n}", metrics=asked)
    done = forward(own, named, {"round": 7.0})
    assert [version.commit_message for version in done.versions] == ["number 1", "number 3"]
    assert forward(own, named, {"round": 7.0}).versions == ()
    head = named.get_head()
    assert head is not None
    assert head.metrics == {"round": 7.0, "step": 3.0}
    assert named.read(head) == bytes([3]) * BIG
    assert not list(problems(named))
