"""Rows with a label, wherever they come from: tables, archives of texts, Parquet files.

Every source gives its rows in a fixed order, as often as it is asked. What becomes of them (words,
numbers) is decided by whoever reads them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data.split import Labels, Summary
from decloud_trainer.training.spec import MAX_CLASSES, Modality

MAX_ROWS = 1_000_000
MAX_TEXT = 1 << 20  # characters of one cell
MAX_CHARACTERS = 1 << 29  # of all texts of a split
HELD_OUT = 5  # every fifth row of each class
_WHOLE = re.compile(r"[+-]?\d{1,9}")

# The cells that inputs are made of, and the label, all as text.
Row: TypeAlias = tuple[tuple[str, ...], str]


class Rows(Protocol):
    """One split's rows. All methods raise DatasetUnavailable for files that can't be read."""

    @property
    def files(self) -> Sequence[Traversable]: ...

    @property
    def identity(self) -> str:
        """What decides the content besides the files' bytes."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the cells."""

    def labels(self) -> Iterator[str]:
        """The labels alone; quicker than `rows` where that is possible."""

    def rows(self) -> Iterator[Row]: ...


@dataclass(frozen=True, slots=True)
class _Derived:
    """What is made of rows has of them."""

    source: Rows

    @property
    def files(self) -> Sequence[Traversable]:
        return self.source.files

    @property
    def identity(self) -> str:
        return self.source.identity

    @property
    def columns(self) -> tuple[str, ...]:
        return self.source.columns


@dataclass(frozen=True, slots=True)
class Part(_Derived):
    """The training or the held-out part of rows that come in one piece.

    Every fifth row of each class is held out, in the file's order: the same for everybody, whatever
    the order of the file, and with the classes as frequent in both parts.
    """

    held_out: bool

    @property
    def identity(self) -> str:
        return f"{self.source.identity} {'held out' if self.held_out else 'kept'}"

    def labels(self) -> Iterator[str]:
        seen: Counter[str] = Counter()
        return (label for label in self.source.labels() if self._takes(label, seen))

    def rows(self) -> Iterator[Row]:
        seen: Counter[str] = Counter()
        return (row for row in self.source.rows() if self._takes(row[1], seen))

    def _takes(self, label: str, seen: Counter[str]) -> bool:
        seen[label] += 1
        return (seen[label] % HELD_OUT == 0) == self.held_out


@dataclass(frozen=True, slots=True)
class Gathered(_Derived):
    """Rows that were read once and are kept in memory."""

    kept: tuple[Row, ...]

    def labels(self) -> Iterator[str]:
        return (label for _, label in self.kept)

    def rows(self) -> Iterator[Row]:
        return iter(self.kept)


def gathered(rows: Rows) -> Gathered:
    """All rows in memory: they are needed several times, and reading some takes seconds.

    Raises:
        DatasetUnavailable: they are too many, or too long.
    """
    kept: list[Row] = []
    characters = 0
    for cells, label in rows.rows():
        characters += sum(map(len, cells))
        if len(kept) == MAX_ROWS or characters > MAX_CHARACTERS:
            what = f"{MAX_ROWS:,} rows" if len(kept) == MAX_ROWS else f"{MAX_CHARACTERS:,} letters"
            raise refused(rows, f"it has more than {what}")
        kept.append((cells, label))
    return Gathered(rows, tuple(kept))


def class_names(rows: Rows) -> tuple[str, ...]:
    """The classes of the training rows, in the order of their numbers.

    Whole numbers from 0 upwards stand for themselves; all other labels are numbered in their order:
    by value if they are whole numbers, else by the alphabet.

    Raises:
        DatasetUnavailable: there are none, or too many for classes.
    """
    found: set[str] = set()
    for label in _bounded(rows.labels(), rows):
        found.add(label)
        if len(found) > MAX_CLASSES:
            raise refused(
                rows,
                f"its labels have more than {MAX_CLASSES:,} values ({_some(found)}): that looks "
                "like a measured quantity; only classes can be trained",
            )
    if not found:
        raise refused(rows, "it has no rows")
    if not all(_WHOLE.fullmatch(label) for label in found):
        return tuple(sorted(found))
    values = {int(label): label for label in found}
    if len(values) < len(found):
        raise refused(rows, f"its labels spell the same number differently ({_some(found)})")
    if min(values) == 0 and max(values) < MAX_CLASSES:
        return tuple(values.get(value, str(value)) for value in range(max(values) + 1))
    return tuple(values[value] for value in sorted(values))


def numbers_of(rows: Rows, names: tuple[str, ...]) -> Labels:
    """The labels as class numbers, int64 (N,).

    Raises:
        DatasetUnavailable: there are none, too many rows, or a label that isn't in `names`.
    """
    number = {name: index for index, name in enumerate(names)}
    found = []
    for label in _bounded(rows.labels(), rows):
        if label not in number:
            raise refused(rows, f"the training part has no label {label[:40]!a}")
        found.append(number[label])
    if not found:
        raise refused(rows, "it has no rows")
    return np.array(found, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class RowSplit(_Derived):
    """What splits of texts and of tables have in common.

    Attributes:
        source: this split's rows.
        training: the training split's: they tell the classes, and how a row becomes an input.
    """

    training: Rows

    modality: ClassVar[Modality]

    def summary(self) -> Summary:
        names = class_names(self.training)
        return Summary(
            len(numbers_of(self.source, names)),
            len(names),
            modality=self.modality,
            columns=self.columns,
            labels=names,
        )


def _bounded(labels: Iterator[str], rows: Rows) -> Iterator[str]:
    for count, label in enumerate(labels):
        if count == MAX_ROWS:
            raise refused(rows, f"it has more than {MAX_ROWS:,} rows")
        yield label


def refused(rows: Rows, what: str) -> DatasetUnavailable:
    return DatasetUnavailable(
        f"{rows.files[0]} can't be used: {what}", hint="mend it, or use other data"
    )


def _some(labels: Iterable[str]) -> str:
    return ", ".join(ascii(label[:20]) for label in sorted(labels)[:3]) + ", ..."
