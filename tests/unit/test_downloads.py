"""Downloads: resumed, checked, from the next mirror; one for all who want the same."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datafiles
import numpy as np
import pytest
from mirrors import Mirror, running

from decloud_trainer.cli.live import fraction, progress_text
from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data import download
from decloud_trainer.training.data.datasets import prepare
from decloud_trainer.training.data.download import Meter
from decloud_trainer.training.data.transfer import File, Patience, fetch
from decloud_trainer.training.results import Progress
from decloud_trainer.training.spec import DataSpec

WHOLE = np.random.default_rng(1).bytes(300_000)
HASTY = Patience(sleep=lambda _: None)
CLOSED = "http://127.0.0.1:9/"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with running(Mirror({"data.gz": WHOLE})) as served:
        yield served


def file_of(*mirrors: Mirror | str, checksum: str | None = None) -> File:
    starts = [each if isinstance(each, str) else each.address for each in mirrors]
    sums = [each.sum_of("data.gz") for each in mirrors if isinstance(each, Mirror)]
    return File(
        "data.gz",
        tuple(f"{start}data.gz" for start in starts),
        sums[-1] if checksum is None else checksum,
    )


def have(file: File, folder: Path, patience: Patience = HASTY) -> bytes:
    return fetch(file, folder, lambda *_: None, patience).read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_broke_off_is_resumed(mirror: Mirror, tmp_path: Path) -> None:
    """A connection that ends in the middle costs no byte twice."""
    mirror.cut_after = [100_000, 120_000]
    assert have(file_of(mirror), tmp_path) == WHOLE
    assert mirror.asked == ["", "bytes=100000-", "bytes=220000-"]
    assert sum(mirror.served) == len(WHOLE)
    assert names(tmp_path) == ["data.gz"]


def test_a_later_process_goes_on_too(mirror: Mirror, tmp_path: Path) -> None:
    """What an interrupted download left on the disk is used by the next one."""
    mirror.cut_after = [100_000]
    mirror.statuses = [200, 404]
    with pytest.raises(DatasetUnavailable, match="it answers 404"):
        have(file_of(mirror), tmp_path)
    assert names(tmp_path) == [".data.gz.json", ".data.gz.part"]
    assert have(file_of(mirror), tmp_path) == WHOLE
    assert sum(mirror.served) == len(WHOLE)
    assert have(file_of(mirror), tmp_path) == WHOLE
    assert len(mirror.asked) == 3, "a file that is here isn't asked for again"


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"address": "http://127.0.0.1/"}'])
def test_a_piece_with_a_damaged_note_is_thrown_away(
    mirror: Mirror, tmp_path: Path, note: str
) -> None:
    """Nothing is known of where it came from: all is fetched once more."""
    (tmp_path / ".data.gz.part").write_bytes(WHOLE[:1000])
    (tmp_path / ".data.gz.json").write_text(note)
    assert have(file_of(mirror), tmp_path) == WHOLE
    assert mirror.asked == [""]


def test_the_next_mirror_goes_on(mirror: Mirror, tmp_path: Path) -> None:
    """A mirror that is down is passed over; one that breaks off is followed by the next."""
    with running(Mirror({"data.gz": WHOLE}, cut_after=[70_000], statuses=[200, 404])) as first:
        assert have(file_of(CLOSED, first, mirror), tmp_path) == WHOLE
        assert first.served == [70_000]
    assert mirror.asked == ["bytes=70000-"]


def test_a_mirror_without_ranges_starts_anew(mirror: Mirror, tmp_path: Path) -> None:
    """Where parts can't be asked for, the whole is taken once more."""
    mirror.cut_after, mirror.ranges = [1000], False
    assert have(file_of(mirror), tmp_path) == WHOLE
    assert mirror.served == [1000, len(WHOLE)]


def test_a_file_that_was_replaced_meanwhile_is_taken_whole(mirror: Mirror, tmp_path: Path) -> None:
    """Another entity tag: the old piece is of no use, and no mixture is kept."""
    mirror.cut_after, mirror.statuses = [1000], [200, 404]
    with pytest.raises(DatasetUnavailable):
        have(file_of(mirror), tmp_path)
    mirror.files["data.gz"], mirror.tag = WHOLE[::-1], '"two"'
    assert have(file_of(mirror), tmp_path) == WHOLE[::-1]


def test_pieces_that_do_not_fit_are_found_by_the_checksum(mirror: Mirror, tmp_path: Path) -> None:
    """Two mirrors with files of one length: what they make together is thrown away."""
    other = Mirror({"data.gz": bytes(len(WHOLE))}, cut_after=[5000], statuses=[200, 404])
    with running(other):
        assert have(file_of(other, mirror), tmp_path) == WHOLE
    assert mirror.asked == ["bytes=5000-", ""]


def test_a_wrong_checksum_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    """What isn't the published file is thrown away, without trying that mirror again."""
    with pytest.raises(DatasetUnavailable, match="its checksum is not the published one"):
        have(file_of(mirror, checksum="md5:" + "0" * 32), tmp_path)
    assert not (tmp_path / "data.gz").exists()
    assert not (tmp_path / ".data.gz.part").exists()
    assert len(mirror.asked) == 1


def test_a_busy_mirror_is_asked_again(mirror: Mirror, tmp_path: Path) -> None:
    """Each pause is twice as long as the one before; a mirror without the file is left at once."""
    waits: list[float] = []
    mirror.statuses = [503, 429, 500]
    assert have(file_of(mirror), tmp_path, Patience(wait_s=1, sleep=waits.append)) == WHOLE
    assert waits == [1, 2, 4]
    mirror.files.clear()
    with pytest.raises(DatasetUnavailable, match="404"):
        have(File("other.gz", (f"{mirror.address}other.gz",)), tmp_path)
    assert len(mirror.asked) == 5


def test_without_a_network_nobody_waits_for_long(tmp_path: Path) -> None:
    """A mirror that isn't there is tried twice; a round may still be joined with other data."""
    waits: list[float] = []
    nobody = File("data.gz", ("http://127.0.0.1:9/data.gz",), "md5:" + "0" * 32)
    with pytest.raises(DatasetUnavailable, match="connection refused"):
        have(nobody, tmp_path, Patience(sleep=waits.append))
    assert waits == [1]


def test_without_a_checksum_the_length_counts(mirror: Mirror, tmp_path: Path) -> None:
    """It is resumed only from an equal version, refused when short, and taken once."""
    mirror.cut_after = [1000]
    assert have(file_of(mirror, checksum=""), tmp_path) == WHOLE
    assert mirror.asked == ["", "bytes=1000-"]
    assert have(file_of(mirror, checksum=""), tmp_path) == WHOLE
    assert len(mirror.asked) == 2
    (tmp_path / "data.gz").unlink()
    mirror.cut_after, mirror.statuses = [1000], [200, 404]
    with pytest.raises(DatasetUnavailable):
        have(file_of(mirror, checksum=""), tmp_path)
    with running(Mirror({"data.gz": WHOLE}, tag='"two"')) as other:
        assert have(file_of(other, checksum=""), tmp_path) == WHOLE
        assert other.asked == [""], "no checksum would tell a mixture"


def test_silence_ends_the_wait(mirror: Mirror, tmp_path: Path) -> None:
    """A mirror that says nothing is given up; the message says so."""
    mirror.gate.clear()
    patience = Patience(silence_s=0.1, rounds=2, sleep=lambda _: None)
    with pytest.raises(DatasetUnavailable, match="it doesn't answer"):
        have(file_of(mirror), tmp_path, patience)


def test_a_full_disk_is_said_before(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What doesn't fit isn't begun."""
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(DatasetUnavailable, match=r"needs 0 MB more.*has 0 MB"):
        have(file_of(mirror), tmp_path)


def test_progress_says_how_much_and_how_long() -> None:
    """About twice a second: the file, bytes of bytes, seconds left."""
    told: list[Progress] = []
    now = iter([10.0, 10.1, 12.0, 14.0])
    meter = Meter(told.append, lambda: next(now))
    for done in (500, 600, 1500, 2500):
        meter("data.gz", done, 2500)
    assert [(each.done_bytes, each.eta_s) for each in told] == [
        (500, None),
        (1500, 2.0),
        (2500, 0.0),
    ]
    shown = told[1].to_json()
    assert progress_text(shown | {"total_bytes": 25_000_000, "done_bytes": 1_500_000}) == (
        "download data.gz, 1.5 of 25.0 MB, 2s left"
    )
    assert fraction(shown) == 0.6
    assert told[0].to_json() == {
        "stage": "download",
        "file": "data.gz",
        "done_bytes": 500,
        "total_bytes": 2500,
    }


def idx_files() -> dict[str, bytes]:
    """The four files of the MNIST family, not packed."""
    images = np.arange(20 * 784, dtype=np.uint32).astype(np.uint8).reshape(20, 28, 28)
    labels = (np.arange(20) % 10).astype(np.uint8)
    made = {}
    for prefix in ("train", "t10k"):
        made[f"{prefix}-images-idx3-ubyte"] = datafiles.idx_images(images)
        made[f"{prefix}-labels-idx1-ubyte"] = datafiles.idx_labels(labels)
    return made


def _prepare(data_dir: str, published: tuple[File, ...], said: Any) -> None:
    """In another process: what a child does for a round."""
    download.published_files = lambda _: published
    spec = DataSpec("mnist", None, Path(data_dir))
    info = prepare(spec, lambda told: said.put(told.to_json()), patience=HASTY)
    said.put(info.to_json())


def test_parallel_rounds_download_once(tmp_path: Path) -> None:
    """Of two processes that want the same dataset at once one downloads, the other waits."""
    mirror = Mirror(idx_files())
    context = multiprocessing.get_context("forkserver")
    said = context.Queue()
    with running(mirror):
        published = tuple(
            File(name, (CLOSED + name, mirror.address + name), mirror.sum_of(name))
            for name in mirror.files
        )
        mirror.gate.clear()
        children = [
            context.Process(target=_prepare, args=(str(tmp_path), published, said))
            for _ in range(2)
        ]
        for child in children:
            child.start()
        assert said.get(timeout=60)["file"] == "mnist", "the second one tells that it waits"
        mirror.gate.set()
        results: list[dict[str, Any]] = []
        files = set()
        while len(results) < 2:
            told = said.get(timeout=60)
            results += [told] if "fingerprint" in told else []
            files.add(told.get("file"))
        for child in children:
            child.join()
    assert len(mirror.asked) == 4
    assert results[0] == results[1]
    assert (results[0]["train"], results[0]["test"]) == (20, 20)
    assert files >= set(mirror.files)
