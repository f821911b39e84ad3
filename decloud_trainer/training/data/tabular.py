"""A split of a table: rows of numbers, brought to a common scale.

Each column is stored less its mean and divided by its standard deviation, both of the training
split; what is empty there counts as the mean. A column that never changes becomes 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from decloud_trainer.training.data.rows import Rows, RowSplit, class_names, numbers_of, refused
from decloud_trainer.training.data.split import MAX_BYTES, Inputs, Labels
from decloud_trainer.training.spec import Modality

# Cells that say that nothing was measured.
EMPTY = {"", "?", "na", "n/a", "nan", "null", "none"}


@dataclass(frozen=True, slots=True)
class TableSplit(RowSplit):
    """Rows of numbers and labels, stored as float32 (N, columns)."""

    modality: ClassVar[Modality] = "tabular"

    @property
    def transform(self) -> str:
        return "standardised-1"

    def read(self) -> tuple[Inputs, Labels]:
        labels = numbers_of(self.source, class_names(self.training))
        learned = _values(self.training)
        # A column without any number at all has the mean 0, and stays 0 throughout.
        counts = np.maximum((~np.isnan(learned)).sum(axis=0), 1)
        mean = np.nansum(learned, axis=0) / counts
        spread = np.sqrt(np.nansum((learned - mean) ** 2, axis=0) / counts)
        # Rounding leaves a trace of a deviation in columns that never change.
        flat = spread <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
        values = (_values(self.source) - mean) / np.where(flat, 1, spread)
        values[:, flat] = 0
        return np.nan_to_num(values, nan=0.0).astype(np.float32), labels


def _values(rows: Rows) -> NDArray[np.float64]:
    """(N, columns); NaN for empty cells.

    Raises:
        DatasetUnavailable: a cell is no number.
    """
    found, most = [], MAX_BYTES // (8 * max(len(rows.columns), 1))
    for number, (cells, _) in enumerate(rows.rows(), start=1):
        if number > most:
            raise refused(rows, f"it has more than {most:,} rows of {len(rows.columns)} columns")
        found.append(np.array([_number(rows, number, *each) for each in enumerate(cells)]))
    return np.array(found, dtype=np.float64)


def _number(rows: Rows, row: int, column: int, cell: str) -> float:
    text = cell.strip()
    if text.lower() in EMPTY:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    # Beyond that, a square is no float64 any more.
    if not abs(value) < 1e100:
        raise refused(
            rows,
            f"row {row}, column {rows.columns[column][:40]!a}: {text[:40]!a} is no usable number; "
            'name the columns of numbers in dataset.json: {"columns": [...], "label": ...}',
        )
    return value
