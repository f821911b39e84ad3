"""A chain of versions in a folder: commits, conflicts, reading back."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path

import pytest

from decloud_trainer import files
from decloud_trainer.errors import (
    ConflictError,
    CorruptionError,
    DecloudError,
    SettingsError,
    StoreUnavailable,
)
from decloud_trainer.store import chain as chain_module
from decloud_trainer.store.backend import MAX_RECORD_BYTES, Buffer, Folder
from decloud_trainer.store.chain import Store
from decloud_trainer.store.collect import collect, plan
from decloud_trainer.store.verify import problems
from decloud_trainer.store.version import Version

BIG = 200_000


def chain(path: Path) -> Store:
    return Store(Folder(path), str(path))


def content(seed: int, size: int = BIG) -> bytes:
    return random.Random(seed).randbytes(size)


def blobs(path: Path) -> set[str]:
    return {file.name for file in (path / "blobs").rglob("*") if file.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return chain(tmp_path / "chain")


def test_an_empty_chain_has_no_head(store: Store) -> None:
    """Looking changes nothing, and no version can be had."""
    assert store.get_head() is None
    assert list(store.log()) == []
    with pytest.raises(DecloudError, match="has no version 0: it is empty"):
        store.get_version(0)


def test_versions_are_numbered_linked_and_read_back(store: Store) -> None:
    """Counters from 0, semantic versions, parents by hash, contents byte for byte."""
    made = [
        store.commit([content(n), b"end"], f"commit {n}", metrics={"loss": 1 / (n + 1)})
        for n in range(3)
    ]
    assert [v.counter for v in made] == [0, 1, 2]
    assert [v.semantic_version for v in made] == ["1.0.0", "1.0.1", "1.0.2"]
    assert [v.parent_hash for v in made] == ["", made[0].hash, made[1].hash]
    assert store.get_head() == made[2]
    assert list(store.log()) == made[::-1]
    for n, version in enumerate(made):
        assert store.get_version(version.name) == store.get_version(n) == version
        assert store.read(version) == content(n) + b"end"
        assert version.content_hash == hashlib.sha256(content(n) + b"end").hexdigest()
    assert made[1].metrics == {"loss": 0.5}
    assert not list(problems(store))


def test_a_piece_that_stays_is_stored_once(store: Store, tmp_path: Path) -> None:
    """A frozen part costs its space once, however many versions have it."""
    frozen = content(0, 1_000_000)
    for n in range(1, 5):
        store.commit([frozen, content(n)], "next")
    assert len(blobs(tmp_path / "chain")) == 5
    assert all(store.read(v) == frozen + content(v.counter + 1) for v in store.log())


def test_small_pieces_share_a_blob(store: Store, tmp_path: Path) -> None:
    """Hundreds of biases don't become hundreds of files."""
    small = [content(n, 100) for n in range(500)]
    version = store.commit([*small, content(1), *small], "many")
    assert len(version.pieces) == 3
    assert store.read(version) == b"".join(small) + content(1) + b"".join(small)


def test_a_commit_on_an_old_head_is_a_conflict_and_leaves_nothing(
    store: Store, tmp_path: Path
) -> None:
    """The loser hears who was faster; neither a version nor a blob of it stays."""
    first = store.commit([content(0)], "first", onto=None)
    second = store.commit([content(1)], "second", onto=first)
    before = blobs(tmp_path / "chain")
    with pytest.raises(ConflictError, match="is at v0000000001 now"):
        store.commit([content(2)], "late", onto=first)
    with pytest.raises(ConflictError):
        store.commit([content(2)], "another first", onto=None)
    assert store.get_head() == second
    assert blobs(tmp_path / "chain") == before


def _write(path: Path, number: int, ready: Callable[[], object]) -> None:
    store = chain(path)
    ready()
    while True:
        head = store.get_head()
        try:
            store.commit([number.to_bytes(4, "big") * 30_000], f"writer {number}", onto=head)
            return
        except ConflictError:
            continue


def test_fifty_writers_make_one_unbroken_chain(tmp_path: Path) -> None:
    """Ten processes, five commits each, all at once: every commit is in it, once."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(10)
    path = tmp_path / "chain"
    workers = [
        context.Process(target=_write_five, args=(path, start, barrier)) for start in range(10)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    store = chain(path)
    messages = [version.commit_message for version in store.log()]
    assert sorted(messages) == sorted(f"writer {n}" for n in range(50))
    assert not list(problems(store))


def _write_five(path: Path, start: int, barrier: object) -> None:
    wait = getattr(barrier, "wait")  # noqa: B009 - the proxy's type has no name
    for number in range(start * 5, start * 5 + 5):
        _write(path, number, wait if number == start * 5 else lambda: None)


def test_what_a_crash_leaves_is_harmless(store: Store, tmp_path: Path) -> None:
    """Between filing the old record and moving HEAD nothing is half there."""
    first = store.commit([content(0)], "first")
    path = tmp_path / "chain"
    (path / "versions").mkdir()
    (path / "versions" / "v0000000000.json").write_bytes((path / "HEAD").read_bytes())
    assert store.get_head() == first
    assert store.commit([content(1)], "second").parent_hash == first.hash
    assert not list(problems(store))


def test_all_is_durable_before_head_moves(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces and the record that HEAD held are in their folders, and these synced, before HEAD is
    replaced; each folder is synced once however many pieces there are."""
    store.commit([content(0)], "first")
    happened: list[str] = []
    replace, sync = Path.replace, files.sync_dir

    def replaced(path: Path, target: Path) -> Path:
        happened.append(f"{target.parent.name}/{target.name}"[:10])
        return replace(path, target)

    def synced(folder: Path) -> None:
        happened.append(f"sync {folder.name}")
        sync(folder)

    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(files, "sync_dir", synced)
    store.commit([content(n) for n in range(1, 6)], "second")
    assert happened[-2:] == ["chain/HEAD", "sync chain"]
    before = happened[:-2]
    assert sum(each.startswith("blobs/") for each in before) == 5
    assert [each for each in before if each.startswith("sync")].count("sync blobs") == 1
    assert before.count("sync versions") == 1
    assert before.index("sync blobs") > max(
        place for place, each in enumerate(before) if each.startswith(("blobs/", "versions/"))
    )


def test_a_large_content_is_never_in_memory_as_a_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given piece by piece is written in parts."""
    monkeypatch.setattr(chain_module, "TOGETHER_BYTES", 2 * BIG)
    held: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(9):
            held.append(number - len(list(store.backend.list("blobs/"))))
            yield content(number)

    version = store.commit(pieces(), "large")
    assert max(held) <= 3
    assert store.read(version) == b"".join(content(number) for number in range(9))


def test_only_what_is_left_is_tried_again(tmp_path: Path) -> None:
    """A failure among many pieces doesn't send those before it once more."""
    written: list[str] = []

    class Shaky(Folder):
        def write_all(self, wanted: MutableMapping[str, Buffer]) -> None:
            for key, data in tuple(wanted.items()):
                if len(written) == 2:
                    written.append("failure")
                    raise StoreUnavailable("not now")
                super().write_all({key: data})
                written.append(key)
                del wanted[key]

    store = Store(Shaky(tmp_path), "shaky", sleep=lambda _: None)
    version = store.commit([content(number) for number in range(4)], "four")
    assert written.pop() == "HEAD"
    assert (len(written), written.count("failure")) == (5, 1)
    assert len(store.read(version)) == 4 * BIG


def test_transient_failures_are_tried_again(tmp_path: Path) -> None:
    """After 1, 2 and 4 seconds; then the failure is told."""
    slept: list[float] = []
    failures = iter([True, True, True])

    class Shaky(Folder):
        def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
            done = super().swap(key, old, new)
            if next(failures, False):
                raise StoreUnavailable("the answer was lost")
            return done

    store = Store(Shaky(tmp_path), "shaky", sleep=slept.append)
    version = store.commit([b"x"], "once")
    assert slept == [1.0, 2.0, 4.0]
    assert list(store.log()) == [version]

    class Gone(Folder):
        def read(self, key: str, most: int = MAX_RECORD_BYTES) -> bytes | None:
            raise StoreUnavailable("nobody there")

    with pytest.raises(StoreUnavailable, match="nobody there"):
        Store(Gone(tmp_path), "gone", sleep=slept.append).get_head()


def files_of(path: Path) -> Iterator[Path]:
    yield from (p for p in sorted(path.rglob("*")) if p.is_file() and p.name != ".lock")


def test_a_flipped_byte_anywhere_is_found(store: Store, tmp_path: Path) -> None:
    """In HEAD, a record, a tag, a tombstone or a content; the first bad version is named."""
    for n in range(5):
        store.commit([content(n, 70_000)], f"number {n}")
    store.tag("good", store.get_version(2))
    collect(store, keep=1)
    path = tmp_path / "chain"
    owners = {piece.sha256: version.counter for version in store.log() for piece in version.pieces}
    found = 0
    for file in files_of(path):
        good = file.read_bytes()
        for place in {0, len(good) // 2, len(good) - 1}:
            file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            told = list(problems(store))
            assert told, f"{file} at {place}"
            if file.name in owners:
                assert told[0].counter == owners[file.name]
            elif file.parent.name in ("versions", "collected"):
                assert told[0].counter == int(file.stem[1:])
            found += 1
        file.write_bytes(good)
    assert found > 30
    assert not list(problems(store))


def test_a_missing_piece_is_found(store: Store, tmp_path: Path) -> None:
    """Reading and verifying name the version."""
    version = store.commit([content(0)], "first")
    next(file for file in files_of(tmp_path / "chain" / "blobs")).unlink()
    with pytest.raises(CorruptionError, match="a piece of v0000000000 is missing"):
        store.read(version)
    assert [p.name for p in problems(store)] == ["v0000000000"]


def test_a_rewritten_history_is_found(store: Store, tmp_path: Path) -> None:
    """Another record in an old one's place, sealed well, breaks the link after it."""
    for n in range(3):
        store.commit([content(n)], f"number {n}")
    forged = chain(tmp_path / "other").commit([content(0)], "better than it was")
    (tmp_path / "chain" / "versions" / "v0000000000.json").write_bytes(
        (tmp_path / "other" / "HEAD").read_bytes()
    )
    assert forged.counter == 0
    told = list(problems(store))
    assert [p.counter for p in told] == [1]
    assert "as its parent" in told[0].message


def test_collection_keeps_the_newest_the_first_and_what_is_named(
    store: Store, tmp_path: Path
) -> None:
    """The rest's contents go; records stay and the chain verifies."""
    frozen = content(99, 300_000)
    for n in range(10):
        store.commit([frozen, content(n)], f"number {n}")
    store.tag("release", store.get_version(4))
    before = plan(store, keep=2, protect=[6])
    assert [v.counter for v in before.versions] == [1, 2, 3, 5, 7]
    assert before.freed == 5 * BIG
    assert collect(store, keep=2, protect=[6]) == before
    assert len(blobs(tmp_path / "chain")) == 6
    assert not list(problems(store))
    assert store.read(store.get_version("release")) == frozen + content(4)
    with pytest.raises(DecloudError, match="given up by a garbage collection"):
        store.read(store.get_version(3))
    assert collect(store, keep=2, protect=[6]).versions == ()
    assert collect(store, keep=1).versions[0].counter == 6
    assert store.commit([frozen, content(3)], "next").counter == 10
    assert not list(problems(store))


def test_a_content_that_is_given_up_may_be_that_of_another_version(store: Store) -> None:
    """It is there as long as a version that stays has it; the records tell the difference."""
    for n in range(3):
        store.commit([content(0)], f"number {n}")
    done = collect(store, keep=1)
    assert ([v.counter for v in done.versions], done.blobs) == ([1], ())
    assert [store.is_collected(v) for v in store.log()] == [False, True, False]
    assert not list(problems(store))


def test_collection_asks_for_sense(store: Store) -> None:
    """Nothing can remove the newest version, and a protected one must be there."""
    store.commit([content(0)], "first")
    with pytest.raises(SettingsError, match="at least the newest"):
        plan(store, keep=0)
    with pytest.raises(SettingsError, match="no version 7"):
        plan(store, keep=1, protect=[7])


def test_strays_go_once_they_are_old(store: Store, tmp_path: Path) -> None:
    """What a lost commit wrote is removed, unless it may still be under way."""
    store.commit([content(0)], "first")
    stray = tmp_path / "chain" / "blobs" / ("ab" * 32)
    stray.write_bytes(b"stray")
    assert plan(store, keep=1).blobs == ()
    os.utime(stray, (0, 0))
    assert plan(store, keep=1).freed == 5
    collect(store, keep=1)
    assert not stray.exists()


def test_tags_name_versions_until_they_are_taken_away(store: Store) -> None:
    """A tag is a name like a number; it is never moved silently."""
    first, second = (store.commit([content(n)], f"number {n}") for n in range(2))
    store.tag("release-1.0", first)
    store.tag("release-1.0", first)
    assert store.get_version("release-1.0") == first
    with pytest.raises(SettingsError, match="names v0000000000 already"):
        store.tag("release-1.0", second)
    for wrong in ("5", "v7", "", "a b", "../x", "-x"):
        with pytest.raises(SettingsError, match="can't be a tag"):
            store.tag(wrong, first)
    store.untag("release-1.0")
    assert store.tags() == {}
    with pytest.raises(SettingsError, match="names no version"):
        store.get_version("release-1.0")


@pytest.mark.parametrize(
    "metrics", [{"loss": float("nan")}, {"loss": float("inf")}, {"loss": "1"}, {"loss": True}]
)
def test_metrics_are_finite_numbers(store: Store, metrics: dict[str, float]) -> None:
    """Anything else is refused before something is written."""
    with pytest.raises(SettingsError, match="not a finite number"):
        store.commit([b"x"], "first", metrics=metrics)
    assert store.get_head() is None


def test_a_record_has_one_form_only() -> None:
    """Other spellings of the same JSON are no record: its hash would not be its own."""
    version = Version(0, "", "a" * 64, (), "2026-01-01T00:00:00+00:00", "m")
    assert Version.from_bytes(version.to_bytes(), "here") == version
    for wrong in (version.to_bytes() + b" ", version.to_bytes().replace(b'"m"', b'"m" '), b"[]"):
        with pytest.raises(CorruptionError, match=r"^here is"):
            Version.from_bytes(wrong, "here")
