"""Tables of numbers: the packaged ones, tables of one's own, and how they are scaled."""

from __future__ import annotations

import csv
import importlib.resources
import json
from pathlib import Path

import numpy as np
import pytest

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data.datasets import find, find_format, load, prepare
from decloud_trainer.training.spec import DataSpec

NUMBERS = "a,b,c,class\n1,10,7,x\n2,,7,y\n3,30,7,x\n"


@pytest.mark.parametrize(
    ("name", "train", "test", "columns", "classes", "frequent"),
    [
        ("iris", 120, 30, 4, 3, [10, 10, 10]),
        ("wine", 144, 34, 13, 3, [11, 14, 9]),
        ("breastcancer", 456, 113, 30, 2, [42, 71]),
        ("diabetes", 354, 88, 10, 2, [49, 39]),
    ],
)
def test_four_tables_come_with_the_package(
    tmp_path: Path,
    name: str,
    train: int,
    test: int,
    columns: int,
    classes: int,
    frequent: list[int],
) -> None:
    """Nothing is downloaded; every fifth row of each class is held out."""
    spec = DataSpec(name, None, tmp_path)
    info = prepare(spec)
    assert (info.train, info.test, info.classes, info.modality) == (train, test, classes, "tabular")
    found = find(spec)
    assert found is not None
    assert (found.train, found.test, len(found.columns)) == (train, test, columns)
    dataset = load(spec)
    inputs = dataset.split("train").inputs
    assert (inputs.shape, inputs.dtype) == ((train, columns), np.float32)
    assert np.abs(inputs.mean(axis=0)).max() < 1e-5
    assert np.allclose(inputs.std(axis=0), 1, atol=1e-3)
    assert np.bincount(dataset.split("test").labels).tolist() == frequent


def test_the_packaged_values_are_the_published_ones(tmp_path: Path) -> None:
    """Iris, unscaled again, equals the file's rows in their order."""
    table = importlib.resources.files("decloud_trainer.data") / "tables" / "iris.csv"
    rows = list(csv.reader(table.read_text().splitlines()))[1:]
    values = np.array([row[:4] for row in rows], dtype=np.float64)
    labels = np.array([int(row[4]) for row in rows])
    held_out = np.arange(150) % 50 % 5 == 4  # fifty rows of each class, one after the other
    learned = values[~held_out]
    expected = (values[held_out] - learned.mean(axis=0)) / learned.std(axis=0)
    test = load(DataSpec("iris", None, tmp_path)).split("test")
    assert np.allclose(test.inputs, expected, atol=1e-6)
    assert np.array_equal(test.labels, labels[held_out])


def test_columns_are_scaled_by_the_training_part(tmp_path: Path) -> None:
    """Empty cells are the mean, constant columns 0, and the test part teaches nothing."""
    (tmp_path / "train.csv").write_text(NUMBERS)
    (tmp_path / "valid.csv").write_text("class,c,b,a\ny,9,NA,5\n")
    dataset = load(DataSpec("mine", tmp_path, tmp_path / "cache"))
    half = 1.5**0.5
    assert np.allclose(dataset.split("train").inputs, [[-half, -1, 0], [0, 0, 0], [half, 1, 0]])
    assert np.allclose(dataset.split("test").inputs, [[3 * half, 0, 0]])
    assert dataset.split("train").labels.tolist() == [0, 1, 0]
    found = find_format(tmp_path)
    assert found.inputs == "rows of 3 numbers (a, b, c)"
    assert (found.labels, found.format) == (("x", "y"), "csv")


def test_the_columns_to_use_can_be_named(tmp_path: Path) -> None:
    """Columns that aren't named, such as a number of the row, are left out."""
    (tmp_path / "train.csv").write_text("id,width,kind\nrow one,1,5\nrow two,2,6\n")
    with pytest.raises(DatasetUnavailable, match="no column that is known for labels"):
        find_format(tmp_path)
    said = {"label": "kind"}
    (tmp_path / "dataset.json").write_text(json.dumps(said))
    spec = DataSpec("mine", tmp_path, tmp_path / "cache")
    with pytest.raises(DatasetUnavailable, match="row 1, column 'id': 'row one' is no usable num"):
        load(spec)
    (tmp_path / "dataset.json").write_text(json.dumps(said | {"columns": ["width"]}))
    dataset = load(spec)
    assert dataset.split("train").inputs.tolist() == [[-1], [1]]
    assert dataset.split("train").labels.tolist() == [0, 1]


@pytest.mark.parametrize("cell", ["inf", "1e200", "1,5", "twelve"])
def test_cells_that_are_no_numbers_are_refused(tmp_path: Path, cell: str) -> None:
    """By row, column and value."""
    (tmp_path / "train.csv").write_text(f'a,class\n1,0\n"{cell}",1\n')
    with pytest.raises(DatasetUnavailable, match=f"row 2, column 'a': '{cell}' is no usable num"):
        load(DataSpec("mine", tmp_path, tmp_path / "cache"))


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        (["0", "2", "0"], [0, 2, 0]),
        (["5", "-1", "7"], [1, 0, 2]),
        (["10", "9", "1"], [2, 1, 0]),
        (["no", "yes", "maybe"], [1, 2, 0]),
    ],
)
def test_labels_become_numbers(tmp_path: Path, labels: list[str], numbers: list[int]) -> None:
    """Whole numbers from 0 stand for themselves; others are numbered in their order."""
    rows = "".join(f"1,{label}\n" for label in labels)
    (tmp_path / "train.csv").write_text(f"a,class\n{rows}")
    train = load(DataSpec("mine", tmp_path, tmp_path / "cache")).split("train")
    assert train.labels.tolist() == numbers
