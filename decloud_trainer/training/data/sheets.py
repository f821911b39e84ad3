"""Files of rows: .csv, .tsv and .jsonl, in UTF-8.

A .csv file has a first row with the names of its columns, and cells in double quotes where they
hold commas or line ends. A .tsv file has its names, too, and no quotes: a tab always ends a cell. A
.jsonl file has one JSON object per line.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from decloud_trainer.training import damage
from decloud_trainer.training.data.rows import MAX_TEXT, Row
from decloud_trainer.training.data.split import MAX_BYTES, unreadable, unusable

SUFFIXES = (".csv", ".tsv", ".jsonl")
MAX_LINE = 8 << 20
MAX_COLUMNS = 4096


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file, or a member of a .zip archive (`zipfile.Path`), and which of its columns are used.

    Attributes:
        header: the columns' names where the file itself has no row of them; else empty.
        archive: the archive that the file is a member of, if it is.
    """

    file: Traversable
    columns: tuple[str, ...]
    label: str
    header: tuple[str, ...] = ()
    archive: Path | None = None

    @property
    def files(self) -> tuple[Traversable, ...]:
        return (self.archive or self.file,)

    @property
    def identity(self) -> str:
        return repr((self.columns, self.label, self.header, self.archive and self.file.name))

    def labels(self) -> Iterator[str]:
        return (label for _, label in self.rows())

    def rows(self) -> Iterator[Row]:
        names = (*self.columns, self.label)
        if self.file.name.endswith(".jsonl"):
            for number, found in _objects(self.file):
                cells = [_cell(self.file, number, found, name) for name in names]
                yield tuple(cells[:-1]), cells[-1].strip()
            return
        lines = _cells(self.file)
        header = self.header or next(lines, (0, ()))[1]
        places = [_place(self.file, tuple(header), name) for name in names]
        for number, row in lines:
            if len(row) != len(header):
                raise unusable(
                    self.file,
                    "table",
                    f"line {number} has {len(row)} cells, its first has {len(header)}",
                )
            cells = [row[place] for place in places]
            yield tuple(cells[:-1]), cells[-1].strip()


def header_of(file: Traversable) -> tuple[str, ...]:
    """The first row's cells, or the first object's keys; empty for an empty file."""
    if file.name.endswith(".jsonl"):
        return tuple(next(_objects(file), (0, {}))[1])
    return tuple(cell.strip() for cell in next(_cells(file), (0, []))[1])


def first_rows(file: Traversable, count: int) -> list[list[str]]:
    """Of a .csv or .tsv file, names included."""
    return [row for _, row in itertools.islice(_cells(file), count)]


def _place(file: Traversable, header: tuple[str, ...], name: str) -> int:
    names = [cell.strip() for cell in header]
    if names.count(name) != 1:
        what = "no column" if name not in names else "several columns"
        raise unusable(file, "table", f"it has {what} {name!a} (it has {', '.join(names)[:200]!a})")
    return names.index(name)


def _cell(file: Traversable, number: int, found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value)
    what = "null" if value is None else "no text or number"
    raise unusable(file, "table", f"line {number}: {name!a} is {what}")


def _cells(file: Traversable) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each row; empty lines are passed over."""
    csv.field_size_limit(MAX_TEXT)
    plain = file.name.endswith(".tsv")
    reader = csv.reader(
        _lines(file),
        delimiter="\t" if plain else ",",
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        strict=True,
    )
    try:
        for row in reader:
            if len(row) > MAX_COLUMNS:
                raise unusable(file, "table", f"it has more than {MAX_COLUMNS:,} columns")
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise unusable(file, "table", f"line {reader.line_num}: {error}") from error


def _objects(file: Traversable) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise unusable(file, "table", f"line {number} is no JSON: {error}") from error
        if not isinstance(found, dict) or len(found) > MAX_COLUMNS:
            raise unusable(file, "table", f"line {number} is no JSON object of columns")
        yield number, found


def _lines(file: Traversable) -> Iterator[str]:
    """Lines with their ends, none of them longer than can be."""
    total = 0
    try:
        with file.open("rb") as stream:
            for number in itertools.count(1):
                line = stream.readline(MAX_LINE)
                total += len(line)
                if not line:
                    return
                if len(line) == MAX_LINE or total > MAX_BYTES:
                    raise unusable(file, "table", f"line {number} or the whole of it is too long")
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise unusable(file, "table", f"line {number} is not UTF-8 text") from error
    except damage.ZIP as error:
        if isinstance(error, OSError):
            raise unreadable(file, error) from error
        raise unusable(file, "table", f"damaged ({error})") from error
