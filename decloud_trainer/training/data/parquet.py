"""Parquet files in the Hugging Face hub's layout: ``train-00000-of-00001.parquet`` and so on.

Needs the package `pyarrow` (the extra ``[text]``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decloud_trainer.training.data.extras import package
from decloud_trainer.training.data.rows import MAX_ROWS, MAX_TEXT, Row
from decloud_trainer.training.data.split import MAX_BYTES, unusable

_NAME = re.compile(r"([a-z]+)(?:-\d{5}-of-\d{5})?\.parquet")
# Where the hub's own conversion and its datasets have them.
FOLDERS = ("", "data", "plain_text", "default")
BATCH = 1024
# The label of rows whose class the publisher keeps secret.
HIDDEN = "-1"


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """A split's pieces, in their order."""

    files: tuple[Path, ...]
    columns: tuple[str, ...]
    label: str

    @property
    def identity(self) -> str:
        return repr((self.columns, self.label))

    def labels(self) -> Iterator[str]:
        for file in self.files:
            for (value,) in _values(file, (self.label,)):
                yield _text(file, value)

    def rows(self) -> Iterator[Row]:
        for file in self.files:
            for *cells, label in _values(file, (*self.columns, self.label)):
                yield tuple(_text(file, cell) for cell in cells), _text(file, label)


def find(place: Path) -> Mapping[str, tuple[Path, ...]]:
    """Split name -> its pieces, in the folder `place` or where the hub has them below."""
    for folder in (place / name for name in FOLDERS):
        found: dict[str, list[Path]] = {}
        for file in sorted(folder.glob("*.parquet")) if folder.is_dir() else ():
            if match := _NAME.fullmatch(file.name):
                found.setdefault(match[1], []).append(file)
        if found:
            return {name: tuple(files) for name, files in found.items()}
    return {}


def header_of(file: Path) -> dict[str, str]:
    """Column name -> the library's name of its type.

    Raises:
        DatasetUnavailable: it can't be read.
    """
    with _opened(file) as opened:
        return {field.name: str(field.type) for field in opened.schema_arrow}


def is_hidden(rows: ParquetRows) -> bool:
    """Are all the labels kept secret, as in GLUE's test splits?"""
    return all(label == HIDDEN for label in rows.labels())


def _values(file: Path, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    with _opened(file) as opened:
        missing = [name for name in columns if name not in opened.schema_arrow.names]
        if missing:
            raise unusable(file, "Parquet file", f"it has no column {missing[0]!a}")
        places = [opened.schema_arrow.get_field_index(name) for name in columns]
        if min(places) < 0:
            raise unusable(file, "Parquet file", "it has several columns of one name")
        for batch in opened.iter_batches(BATCH, columns=list(columns)):
            if batch.nbytes > MAX_BYTES:
                raise unusable(file, "Parquet file", f"{BATCH} of its rows are too large")
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def _text(file: Path, value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, str | int | float) or len(str(value)) > MAX_TEXT:
        raise unusable(file, "Parquet file", f"it holds {type(value).__name__} for a text")
    return str(value)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    arrow, library = package("pyarrow", str(file)), package("pyarrow.parquet", str(file))
    # The library's own class, from which those for memory and for what it can't do derive, too.
    damage = (arrow.lib.ArrowException, OSError, ValueError)
    try:
        with library.ParquetFile(file, thrift_string_size_limit=MAX_BYTES) as opened:
            meta = opened.metadata
            groups = (meta.row_group(number) for number in range(meta.num_row_groups))
            if meta.num_rows > MAX_ROWS or any(g.total_byte_size > MAX_BYTES for g in groups):
                raise unusable(file, "Parquet file", "it is larger than any that can be trained")
            yield opened
    except damage as error:
        raise unusable(file, "Parquet file", f"damaged ({error})") from error
