"""Texts: the published layouts, Parquet, tables with named columns; what is refused, and why."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from mirrors import Mirror, running

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data import published_texts, reviews, rows, sheets, tokens
from decloud_trainer.training.data.datasets import find, find_format, load, prepare
from decloud_trainer.training.data.samples import Dataset
from decloud_trainer.training.data.tokens import vocabulary, words_of
from decloud_trainer.training.data.transfer import File, Patience
from decloud_trainer.training.spec import DataSpec

GOOD, BAD = "A fine film; it's great", "Dull, dull and dreadful"
AG_NEWS = '"3","Oil, again","Prices ""rise""\\nsaid"\n"1","War","Talks, no peace"\n'


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def loaded(path: Path, data_dir: Path, name: str = "mine") -> Dataset:
    return load(DataSpec(name, path, data_dir))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def write_reviews(folder: Path) -> Path:
    """aclImdb as published: a file per review, and some without a label."""
    for split in ("train", "test"):
        for number, (kind, text) in enumerate((("neg", BAD), ("pos", GOOD), ("pos", "good film"))):
            write(folder / "aclImdb" / split / kind / f"{number}_{number}.txt", text)
    write(folder / "aclImdb" / "train" / "unsup" / "0_0.txt", "who knows")
    return folder / "aclImdb"


def packed_reviews(folder: Path) -> bytes:
    return tarred(write_reviews(folder))


def tarred(reviews_folder: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.add(reviews_folder, "aclImdb")
    return stream.getvalue()


def glue(archive: Path) -> Path:
    """SST-2.zip as GLUE publishes it; the labels of its test part are secret."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("SST-2/train.tsv", f'sentence\tlabel\na "fine film\t1\n{BAD}\t0\n')
        packed.writestr("SST-2/dev.tsv", "sentence\tlabel\nfine\t1\n")
        packed.writestr("SST-2/test.tsv", "index\tsentence\n0\twho knows\n")
    return archive


def write_parquet(file: Path, **columns: list[object]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file


def texts_of(ids: np.ndarray, known: dict[str, int]) -> list[str]:
    """Back to words, as far as they are known."""
    word = {number: each for each, number in known.items()} | {1: "?"}
    return [" ".join(word[number] for number in row if number) for row in ids.tolist()]


def test_reviews_are_read_from_the_folder_and_from_the_archive(
    tmp_path: Path, data_dir: Path
) -> None:
    """Both give the same samples, negative reviews as class 0; nothing is unpacked to disk."""
    place = tmp_path / "archive"
    place.mkdir()
    (place / "aclImdb_v1.tar.gz").write_bytes(packed_reviews(tmp_path))
    folder = loaded(tmp_path, data_dir, "imdb")
    archive = loaded(place / "aclImdb_v1.tar.gz", data_dir, "imdb")
    for dataset in (folder, archive, loaded(place, data_dir, "imdb")):
        for split in ("train", "test"):
            samples = dataset.split(split)
            assert (samples.modality, samples.inputs.shape) == ("text", (3, 256))
            assert sorted(samples.labels.tolist()) == [0, 1, 1]
            known = vocabulary([BAD, GOOD, "good film"])
            told = dict(zip(texts_of(samples.inputs, known), samples.labels.tolist(), strict=True))
            assert told == {"dull dull and dreadful": 0, "a fine film it's great": 1} | {
                "good film": 1
            }
    assert [each.name for each in place.iterdir()] == ["aclImdb_v1.tar.gz"]
    found = find_format(tmp_path / "aclImdb")
    assert (found.format, found.train, found.test, found.classes) == ("imdb", 3, 3, 2)
    assert (found.inputs, found.labels) == ("texts from review", ("neg", "pos"))


def test_glue_is_read_from_the_archive_and_from_the_folder(tmp_path: Path, data_dir: Path) -> None:
    """Quotes are letters there; the development part stands in for the secret test part."""
    archive = glue(tmp_path / "SST-2.zip")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "glue")
    both = [loaded(place, data_dir, "sst2") for place in (archive, tmp_path, tmp_path / "glue")]
    known = vocabulary(['a "fine film', BAD])
    for dataset in [*both, loaded(tmp_path / "glue" / "SST-2", data_dir, "sst2")]:
        train = dataset.split("train")
        assert texts_of(train.inputs, known) == ["a fine film", "dull dull and dreadful"]
        assert train.labels.tolist() == [1, 0]
        assert dataset.split("test").labels.tolist() == [1]


def test_ag_news_is_known_without_names(tmp_path: Path, data_dir: Path) -> None:
    """Classes 1 to 4 become 0 to 3, title and description one text, quoted commas stay in it."""
    more = '"2","Goal","In the end"\n"4","Chips","Small"\n'
    write(tmp_path / "train.csv", AG_NEWS + more)
    write(tmp_path / "test.csv", AG_NEWS)
    assert find_format(tmp_path).format == "agnews"
    dataset = loaded(tmp_path, data_dir, "agnews")
    assert dataset.split("train").labels.tolist() == [2, 0, 1, 3]
    assert dataset.split("test").labels.tolist() == [2, 0]
    known = vocabulary(
        ["oil again prices rise nsaid", "war talks no peace", "goal in the end", "chips small"]
    )
    shown = texts_of(dataset.split("test").inputs, known)
    assert shown == ["oil again prices rise nsaid", "war talks no peace"]


def test_parquet_is_read_in_the_hubs_layout(tmp_path: Path, data_dir: Path) -> None:
    """Pieces in their order; where the test part's labels are secret, validation stands in."""
    folder = tmp_path / "data"
    write_parquet(folder / "train-00001-of-00002.parquet", sentence=["good"], label=[1], idx=[7])
    write_parquet(folder / "train-00000-of-00002.parquet", sentence=[BAD, GOOD], label=[0, 1])
    write_parquet(folder / "test-00000-of-00001.parquet", sentence=["?"], label=[-1], idx=[0])
    write_parquet(folder / "validation-00000-of-00001.parquet", sentence=["fine"], label=[1])
    found = find_format(tmp_path)
    assert (found.format, found.train, found.test, found.columns) == (
        "parquet",
        3,
        1,
        ("sentence",),
    )
    dataset = loaded(tmp_path, data_dir)
    assert dataset.split("train").labels.tolist() == [0, 1, 1]
    assert dataset.split("test").labels.tolist() == [1]


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet is the only layout that needs it."""
    write_parquet(tmp_path / "train.parquet", text=["a"], label=[0])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DatasetUnavailable, match="needs the package pyarrow") as caught:
        find_format(tmp_path)
    assert "decloud-trainer[text]" in caught.value.hint


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_one_table_is_split_evenly_by_class(tmp_path: Path, data_dir: Path, suffix: str) -> None:
    """Every fifth row of each class is held out; columns are told by a file beside the table."""
    each = [(f"word{number}", "b" if number < 20 else "a") for number in range(30)]
    if suffix == "jsonl":
        lines = [json.dumps({"body": text, "stars": stars}) for text, stars in each]
    else:
        mark = "," if suffix == "csv" else "\t"
        lines = [mark.join(("body", "stars")), *(mark.join(row) for row in each)]
    file = write(tmp_path / f"mine.{suffix}", "\n".join(lines) + "\n")
    write(tmp_path / "dataset.json", json.dumps({"text": "body", "label": "stars"}))
    dataset = loaded(tmp_path, data_dir)
    assert np.bincount(dataset.split("train").labels).tolist() == [8, 16]
    assert np.bincount(dataset.split("test").labels).tolist() == [2, 4]
    assert np.array_equal(
        loaded(file, data_dir).split("test").inputs, dataset.split("test").inputs
    ), "a file named by itself is the same data"
    # Words of the held-out rows are unknown to the training rows: nothing leaked.
    assert np.unique(dataset.split("test").inputs).tolist() == [0, 1]
    assert find_format(file).labels == ("a", "b")


def test_words_are_numbered_by_how_often_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most frequent first, then the alphabet; the rest is 1; texts are cut at 256 words."""
    assert vocabulary(["b a b", "A c ü"]) == {"a": 2, "b": 3, "c": 4, "ü": 5}
    assert list(words_of("Don't STOP--it’s 3.5 o'clock_now")) == [
        *("don't", "stop", "it’s", "3", "5", "o'clock", "now")
    ]
    monkeypatch.setattr(tokens, "VOCABULARY", 4)
    ids = tokens.Words().encode(iter(["a b c", "b " * 300, ""]), iter(["b a b c"]), 3)
    assert ids[0, :4].tolist() == [3, 2, 1, 0]
    assert ids[1].tolist() == [2] * 256
    assert not ids[2].any()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,label\ngood,1\nbad\n", "line 3 has 1 cells, its first has 2"),
        ('text,label\n"good,1\n', "line 2"),
        ("text,label\n", "it has no rows"),
        ("", "no column that is known for labels: it has none"),
        ("text,mark\ngood,1\n", "no column that is known for labels: it has 'text', 'mark'"),
        ("text,label,text\ngood,1,x\n", "several columns 'text'"),
        ("label\n1\n", "needs a column of its own"),
        ("text,label\n" + "".join(f"a,{n}.5\n" for n in range(1001)), "more than 1,000 values"),
        ("text,label\na,1\nb,01\n", "spell the same number differently"),
    ],
)
def test_tables_that_make_no_sense_are_refused(tmp_path: Path, content: str, words: str) -> None:
    """Each with the file, the line or the column, and what to do."""
    write(tmp_path / "mine.csv", content)
    with pytest.raises(DatasetUnavailable, match=words) as caught:
        find_format(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{", "no JSON"),
        ("[]", "it may have columns, label, text"),
        ('{"texts": "a"}', "it may have"),
        ('{"text": "a", "columns": "b"}', "both text and columns"),
        ('{"text": ["a", "a"], "label": "b"}', "names a column twice"),
        ('{"text": 3}', "text must be names"),
        ('{"label": ["a"]}', "label must be the name of one column"),
        ('{"text": "zzz", "label": "b"}', "no column 'zzz': it has 'a', 'b'"),
        ('{"text": ["a", "b"], "label": "b"}', "needs a column of its own"),
    ],
)
def test_descriptions_of_columns_are_checked(tmp_path: Path, said: str, words: str) -> None:
    """A slip in dataset.json is named."""
    write(tmp_path / "mine.csv", "a,b\nx,1\ny,0\n")
    write(tmp_path / "dataset.json", said)
    with pytest.raises(DatasetUnavailable, match=words):
        find_format(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("mine.csv", b"text,label\n\xff,1\n", "line 2 is not UTF-8"),
        (
            "mine.jsonl",
            b'{"text": "a", "label": 1}\n{"text": null, "label": 1}\n',
            "'text' is null",
        ),
        ("mine.jsonl", b'{"text": "a", "label": 1}\n' + b"[" * 9000, "line 2 is no JSON"),
        ("mine.jsonl", b"[1]\n", "line 1 is no JSON object"),
        ("mine.csv", b'text,label\n"' + b"x" * 2000 + b'",1\n', "field larger than field limit"),
        ("mine.tsv", b"text\tlabel\n" + b"x" * 5000, "too long"),
        ("mine.csv", b"text,label\n" + b"x,1\n" * 200, "more than 100 rows"),
        ("train.parquet", b"PAR1 nothing PAR1", "no usable Parquet file: damaged"),
        ("aclImdb_v1.tar.gz", gzip.compress(b"no archive"), "no usable archive: damaged"),
        ("SST-2.zip", b"PK nothing", "no usable archive: damaged"),
    ],
)
def test_hostile_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, words: str
) -> None:
    """Whatever is in a file, the answer is a sentence, and memory stays bounded."""
    monkeypatch.setattr(sheets, "MAX_TEXT", 1000)
    monkeypatch.setattr(sheets, "MAX_LINE", 4096 if name.endswith("tsv") else 100_000)
    monkeypatch.setattr(rows, "MAX_ROWS", 100)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetUnavailable, match=words):
        find_format(tmp_path)


def test_archives_that_unpack_to_too_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes can pack many: what comes out is counted, and stated sizes are bounded."""
    whole = packed_reviews(tmp_path)
    place = tmp_path / "place"
    place.mkdir()
    (place / "aclImdb_v1.tar.gz").write_bytes(whole)
    monkeypatch.setattr(reviews, "MAX_ARCHIVE_BYTES", 5000)
    with pytest.raises(DatasetUnavailable, match="it unpacks to over 5,000 bytes"):
        find_format(place)
    monkeypatch.setattr(reviews, "MAX_ARCHIVE_BYTES", 10**6)
    monkeypatch.setattr(reviews, "MAX_REVIEW_BYTES", 10)
    with pytest.raises(DatasetUnavailable, match=r"neg/0_0.txt has more than 10 bytes"):
        find_format(place)
    monkeypatch.undo()
    (place / "aclImdb_v1.tar.gz").write_bytes(whole[:-100])
    with pytest.raises(DatasetUnavailable, match="damaged"):
        find_format(place)
    monkeypatch.setattr("decloud_trainer.training.data.labelled.MAX_BYTES", 20)
    with pytest.raises(DatasetUnavailable, match="it unpacks to over 20 bytes"):
        find_format(glue(tmp_path / "SST-2.zip"))


def test_archives_with_damage_inside_are_refused(tmp_path: Path, data_dir: Path) -> None:
    """Also where it is met only when a member is read, in whatever way it is packed."""
    folder = write_reviews(tmp_path)
    write(folder / "train" / "neg" / "0_0.txt", np.random.default_rng(0).bytes(200_000).hex())
    whole = tarred(folder)
    archive = tmp_path / "aclImdb_v1.tar.gz"
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetUnavailable, match="no usable archive: damaged"):
        loaded(archive, data_dir, "imdb")
    sst = glue(tmp_path / "SST-2.zip")
    data = bytearray(sst.read_bytes())
    data[data.index(b"train.tsv") + len(b"train.tsv")] = 0xFF  # no way to compress is called so
    sst.write_bytes(data)
    with pytest.raises(DatasetUnavailable, match=r"train\.tsv is no usable table: damaged"):
        loaded(sst, data_dir, "sst2")


def test_a_label_that_was_never_trained_is_refused(tmp_path: Path, data_dir: Path) -> None:
    """The training part alone says which classes there are."""
    write(tmp_path / "train.csv", "text,label\na,x\nb,y\n")
    write(tmp_path / "test.csv", "text,label\na,z\n")
    with pytest.raises(DatasetUnavailable, match="training part has no label 'z'"):
        loaded(tmp_path, data_dir)


def test_published_texts_are_downloaded_and_read(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the publisher, checked; where that fails, as Parquet files from the hub's mirror."""
    train = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": [GOOD, BAD], "label": [1, 0]}), train)
    hub = "datasets/stanfordnlp/imdb/resolve/main/plain_text/"
    pieces = {
        f"{hub}{split}-00000-of-00001.parquet": train.getvalue() for split in ("train", "test")
    }
    archive = packed_reviews(tmp_path)
    with running(Mirror({"aclImdb_v1.tar.gz": archive, **pieces})) as mirror:
        monkeypatch.setenv("HF_ENDPOINT", mirror.address.rstrip("/"))
        file = File(
            "aclImdb_v1.tar.gz",
            (f"{mirror.address}aclImdb_v1.tar.gz",),
            mirror.sum_of("aclImdb_v1.tar.gz"),
        )
        monkeypatch.setitem(published_texts.FILES, "imdb", (file,))
        info = prepare(DataSpec("imdb", None, data_dir))
        assert (info.train, info.test, info.classes, info.modality) == (3, 3, 2, "text")
        gone = File("aclImdb_v1.tar.gz", (f"{mirror.address}gone",), file.checksum)
        monkeypatch.setitem(published_texts.FILES, "imdb", (gone,))
        hasty = Patience(sleep=lambda _: None)
        info = prepare(DataSpec("imdb", None, tmp_path / "other"), patience=hasty)
    assert (info.train, info.test, info.classes) == (2, 2, 2)


def test_the_published_addresses_are_complete() -> None:
    """Each named dataset has checksums for its publisher's files, and a place on the hub."""
    for name in ("imdb", "sst2", "agnews"):
        publisher, hub = published_texts.sources(name)
        assert all(file.checksum.startswith("md5:") for file in publisher)
        assert all(
            each.startswith("https://huggingface.co/datasets/")
            for file in hub
            for each in file.addresses
        )


def test_a_handful_of_rows_is_for_training_alone(tmp_path: Path, data_dir: Path) -> None:
    """With less than five rows of each class nothing is held out, and that is said."""
    write(tmp_path / "mine.csv", "text,label\ngood,1\nbad,0\n")
    found = find_format(tmp_path)
    assert (found.train, found.test) == (2, 0)
    with pytest.raises(DatasetUnavailable, match="no test split"):
        loaded(tmp_path, data_dir).split("test")


def test_an_archive_that_changes_is_looked_at_again(tmp_path: Path, data_dir: Path) -> None:
    """What was found in it is remembered only as long as the file stays as it is."""
    archive = glue(tmp_path / "SST-2.zip")
    spec = DataSpec("sst2", archive, data_dir)
    assert [(found.train, found.test) for found in (find(spec), find(spec)) if found] == [
        (2, 1)
    ] * 2
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("SST-2/train.tsv", "sentence\tlabel\ngood\t1\nbad\t0\nbad\t0\n")
        packed.writestr("SST-2/dev.tsv", "sentence\tlabel\nfine\t1\n")
    again = find(spec)
    assert again is not None
    assert again.train == 3
    damaged = bytearray(archive.read_bytes())
    damaged[damaged.find(b"good")] ^= 1
    archive.write_bytes(damaged)
    with pytest.raises(DatasetUnavailable, match="Bad CRC"):
        loaded(archive, data_dir, "sst2")
