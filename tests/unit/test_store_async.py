"""Chains beside an event loop, and inference that follows them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from decloud_trainer.errors import ConflictError, DecloudError
from decloud_trainer.store.aio import AsyncStore
from decloud_trainer.store.chain import Store
from decloud_trainer.store.follow import pinned, tracking
from decloud_trainer.store.opening import open_store
from decloud_trainer.store.version import Version


async def test_the_same_calls_are_awaited(tmp_path: Path) -> None:
    """HEAD is None when empty; versions by counter and name; conflicts as without a loop."""
    async with AsyncStore(str(tmp_path / "chain")) as store:
        assert await store.get_head() is None
        first = await store.commit([b"one"], "first")
        second = await store.commit([b"two"], "second", metrics={"loss": 1.0}, onto=first)
        assert await store.get_head() == second
        assert await store.get_version("v0000000000") == first
        assert await store.log() == [second, first]
        assert await store.read(first) == b"one"
        await store.tag("good", first)
        assert await store.get_version("good") == first
        await store.untag("good")
        with pytest.raises(ConflictError):
            await store.commit([b"three"], "late", onto=first)
    assert store.sync.get_head() == second
    with pytest.raises(DecloudError, match="isn't open"):
        await store.get_head()


async def test_fifty_commits_at_once_all_land(tmp_path: Path) -> None:
    """Concurrent tasks of one program, one unbroken chain."""
    async with AsyncStore(str(tmp_path / "chain")) as store:
        await asyncio.gather(*(store.commit([bytes([n])], str(n)) for n in range(50)))
        versions = await store.log()
    assert sorted(int(v.commit_message) for v in versions) == list(range(50))
    assert [v.counter for v in versions] == list(range(49, -1, -1))


async def test_a_commit_that_nobody_waits_for_is_still_made(tmp_path: Path) -> None:
    """Cancelling the task that commits tears nothing."""
    began, go_on = threading.Event(), threading.Event()

    def slowly() -> bytes:
        began.set()
        go_on.wait(10)
        return b"content"

    async with AsyncStore(str(tmp_path / "chain")) as store:
        slow = store.commit((slowly() for _ in range(1)), "slow")
        task = asyncio.ensure_future(slow)
        await asyncio.to_thread(began.wait, 10)
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    head = store.sync.get_head()
    assert head is not None
    assert head.commit_message == "slow"


def text(store: Store, version: Version) -> str:
    return store.read(version).decode()


def test_a_pinned_version_stays(tmp_path: Path) -> None:
    """Whatever is committed meanwhile."""
    store = open_store(str(tmp_path / "chain"))
    store.commit([b"old"], "old")
    with pinned(store, 0, text) as served:
        store.commit([b"new"], "new")
        assert (served.version.counter, served.current) == (0, "old")


def test_tracking_swaps_when_head_moves(tmp_path: Path) -> None:
    """Version and what was loaded from it change together."""
    store = open_store(str(tmp_path / "chain"))
    with pytest.raises(DecloudError, match="no version to serve"):
        tracking(store, 1, text)
    store.commit([b"old"], "old")
    swapped = threading.Event()

    def load(store: Store, version: Version) -> str:
        if version.counter == 2:
            swapped.set()
        return text(store, version)

    with tracking(store, 0.01, load) as served:
        assert served.served == (store.get_version(0), "old")
        store.commit([b"new"], "new")
        store.commit([b"newest"], "newest")
        assert swapped.wait(10)
    assert served.served == (store.get_version(2), "newest")


def test_what_can_not_be_loaded_does_not_replace_what_serves(tmp_path: Path) -> None:
    """A damaged newest version is an error; the one before goes on serving."""
    path = tmp_path / "chain"
    store = open_store(str(path))
    store.commit([b"old"], "old")
    served = tracking(store, 1, text)
    version = store.commit([b"new"], "new")
    digest = version.pieces[0].sha256
    (path / "blobs" / digest).write_bytes(b"bad")
    with pytest.raises(DecloudError, match="damaged"):
        served.look()
    assert served.served == (store.get_version(0), "old")
