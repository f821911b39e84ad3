"""Texts and tables in a folder: which published layout it has, or which table of the user's own."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeAlias

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training import damage
from decloud_trainer.training.data import columns, parquet, reviews, sheets
from decloud_trainer.training.data.parquet import ParquetRows
from decloud_trainer.training.data.rows import HELD_OUT, Part, Rows
from decloud_trainer.training.data.sheets import SUFFIXES, Sheet
from decloud_trainer.training.data.split import MAX_BYTES, unusable
from decloud_trainer.training.data.tabular import TableSplit
from decloud_trainer.training.data.texts import TextSplit

LabelledSplit: TypeAlias = TextSplit | TableSplit

KNOWN = (
    "aclImdb, SST-2 or AG News as published, Parquet files of the Hugging Face hub, or "
    ".csv, .tsv or .jsonl tables with a label column"
)
SST2_ARCHIVE, SST2_FOLDER = "SST-2.zip", "SST-2"
# How a file or a piece is called, in the order in which they stand in for each other.
SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val", "dev")}
AG_NEWS = ("class", "title", "description")


def find_splits(place: Path) -> tuple[str, Mapping[str, LabelledSplit]]:
    """(format, splits) of a folder or file; no splits where there is nothing known.

    Raises:
        DatasetUnavailable: it can't be read, or its columns can't be told.
    """
    if found := reviews.find(place):
        return "imdb", _splits(found, are_texts=True)
    if sst := _sst2(place):
        return "sst2", _splits(sst, are_texts=True)
    if place.is_dir() and (pieces := parquet.find(place)):
        return "parquet", _parquet(place, pieces)
    tables = _tables(place)
    if not tables:
        return "", {}
    described = columns.read_description((place if place.is_dir() else place.parent) / columns.NAME)
    first = next(iter(tables.values()))
    if described is None and _is_ag_news(first):
        names = {
            split: Sheet(file, AG_NEWS[1:], AG_NEWS[0], AG_NEWS) for split, file in tables.items()
        }
        return "agnews", _splits(names, are_texts=True)
    return first.name.rpartition(".")[2], _described(tables, described)


def packaged(file: Traversable) -> tuple[str, Mapping[str, LabelledSplit]]:
    """The same for a table that ships with the package."""
    return "csv", _described({"": file}, None)


def _described(
    tables: Mapping[str, Traversable], described: dict[str, object] | None
) -> Mapping[str, LabelledSplit]:
    """Splits of tables with named columns; the split "" stands for a file that holds both."""
    first = next(iter(tables.values()))
    chosen = columns.choose(first, sheets.header_of(first), described)
    rows: dict[str, Rows] = {
        split: Sheet(file, chosen.cells, chosen.label) for split, file in tables.items()
    }
    if "" in rows:
        rows = _parts(rows[""])
    return _splits(rows, are_texts=chosen.are_texts)


def _parts(whole: Rows) -> dict[str, Rows]:
    """Both parts of a table; a small one is for training alone."""
    frequent = max(Counter(whole.labels()).values(), default=0)
    if frequent < HELD_OUT:
        return {"train": whole}
    return {"train": Part(whole, False), "test": Part(whole, True)}


def _splits(rows: Mapping[str, Rows], *, are_texts: bool) -> dict[str, LabelledSplit]:
    # Without training rows, what there is tells the classes.
    learned = rows.get("train") or next(iter(rows.values()))
    kind: type[LabelledSplit] = TextSplit if are_texts else TableSplit
    return {split: kind(each, learned) for split, each in rows.items()}


# --- files ----------------------------------------------------------------------------------


def _tables(place: Path) -> dict[str, Traversable]:
    """Split -> its table, by the files' names; a single table of another name is both ("")."""
    if place.is_file():
        return {"": place} if place.suffix in SUFFIXES else {}
    if not place.is_dir():
        return {}
    files = sorted(f for f in place.iterdir() if f.suffix in SUFFIXES and f.is_file())
    named = _by_split({file.stem.lower(): file for file in files})
    if "train" in named:
        return dict(named)
    return {"": files[0]} if len(files) == 1 else {}


def _by_split(files: Mapping[str, Path]) -> dict[str, Path]:
    found = {}
    for split, names in SPLITS.items():
        file = next((files[name] for name in names if name in files), None)
        if file is not None:
            found[split] = file
    return found


def _is_ag_news(file: Traversable) -> bool:
    """Three columns without names: a class from 1 to 4, a title, a description."""
    if not file.name.endswith(".csv"):
        return False
    rows = sheets.first_rows(file, 1)
    return bool(rows) and len(rows[0]) == 3 and rows[0][0] in ("1", "2", "3", "4")


def _sst2(place: Path) -> dict[str, Rows]:
    """GLUE's SST-2: the development split is the test split, whose labels were never published."""
    root: Traversable = place
    if place.is_dir() and (place / SST2_ARCHIVE).is_file():
        place = place / SST2_ARCHIVE
    if place.name == SST2_ARCHIVE and place.is_file():
        root = _archive(place)
    files = {
        split: root / SST2_FOLDER / name if (root / SST2_FOLDER / name).is_file() else root / name
        for split, name in (("train", "train.tsv"), ("test", "dev.tsv"))
    }
    if not all(file.is_file() for file in files.values()):
        return {}
    if sheets.header_of(files["train"]) != ("sentence", "label"):
        return {}
    archive = None if isinstance(root, Path) else place
    return {
        split: Sheet(file, ("sentence",), "label", archive=archive) for split, file in files.items()
    }


def _archive(file: Path) -> Traversable:
    """The inside of a .zip archive whose members have sizes that can be."""
    try:
        with zipfile.ZipFile(file) as archive:
            if any(info.file_size > MAX_BYTES for info in archive.infolist()):
                raise unusable(file, "archive", f"it unpacks to over {MAX_BYTES:,} bytes")
        return zipfile.Path(file)
    except damage.ZIP as error:
        raise unusable(file, "archive", f"damaged ({error})") from error


def _parquet(place: Path, pieces: Mapping[str, tuple[Path, ...]]) -> dict[str, LabelledSplit]:
    described = columns.read_description(place / columns.NAME)
    first = next(iter(pieces.values()))[0]
    types = parquet.header_of(first)
    texts = [name for name, kind in types.items() if kind in ("string", "large_string")]
    chosen = columns.choose(first, list(types), described)
    if not chosen.are_texts and described is None and texts:
        raise DatasetUnavailable(
            f"{first} has texts under names that aren't known: {', '.join(texts)[:200]!a}",
            hint=f'say which in a file {columns.NAME} beside it: {{"text": "...", "label": "..."}}',
        )
    rows: dict[str, Rows] = {}
    for split, names in SPLITS.items():
        for name in names:
            if name in pieces and split not in rows:
                found = ParquetRows(pieces[name], chosen.cells, chosen.label)
                if not parquet.is_hidden(found):
                    rows[split] = found
    if not rows:
        return {}
    return _splits(rows, are_texts=chosen.are_texts)
