"""Which columns of a table are the texts, the numbers and the label.

A file ``dataset.json`` beside the data says it: ``{"text": "review", "label": "stars"}`` for texts
(several columns as a list; they're read as one text), ``{"columns": ["height", "width"], "label":
"species"}`` for numbers, or the label alone: then all other columns are numbers. Without that file
the usual names are looked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data.split import unreadable, unusable

NAME = "dataset.json"
MAX_BYTES = 1 << 16
_FIELDS = {"text", "columns", "label"}
# In this order; spelled in lower case.
LABELS = (
    *("label", "labels", "class", "class index", "target", "category", "sentiment", "species"),
    *("outcome", "diagnosis", "y"),
)
TEXTS = ("title", "description", "text", "sentence", "review", "content", "body", "comment")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns to use.

    Attributes:
        cells: what inputs are made of.
        are_texts: whether these are texts; else numbers.
    """

    cells: tuple[str, ...]
    label: str
    are_texts: bool


def choose(file: Traversable, header: Sequence[str], described: dict[str, Any] | None) -> Columns:
    """The columns of `file`, whose names are `header`.

    Args:
        described: what `read_description` gave.

    Raises:
        DatasetUnavailable: a column isn't there, or can't be told from the others.
    """
    said = described or {}
    lower = {name.lower(): name for name in header}
    label = said.get("label") or next((lower[name] for name in LABELS if name in lower), None)
    if label is None:
        raise DatasetUnavailable(
            f"{file} has no column that is known for labels: it has {_some(header)}",
            hint=f'say which in a file {NAME} beside it: {{"label": "{_example(header)}"}}, with '
            '"text": ... for a column of texts',
        )
    texts = said.get("text", () if said else _texts(header, label))
    cells = texts or said.get("columns") or tuple(name for name in header if name != label)
    for name in (label, *cells):
        if name not in header:
            raise DatasetUnavailable(
                f"{file} has no column {name!a}: it has {_some(header)}",
                hint=f"check {NAME} beside it, and the file's first line",
            )
    if label in cells or not cells:
        raise unusable(file, "table", f"besides the label {label!a} it needs a column of its own")
    return Columns(tuple(cells), label, bool(texts))


def read_description(file: Traversable) -> dict[str, Any] | None:
    """What the file dataset.json says, columns as tuples; None when there is none.

    Raises:
        DatasetUnavailable: it says something else.
    """
    if not file.is_file():
        return None
    try:
        with file.open("rb") as stream:
            said = json.loads(stream.read(MAX_BYTES))
    except OSError as error:
        raise unreadable(file, error) from error
    except (ValueError, RecursionError) as error:
        raise unusable(file, "description of columns", f"no JSON ({error})") from error
    if not isinstance(said, dict) or not said.keys() <= _FIELDS or not said:
        raise unusable(file, "description of columns", f"it may have {', '.join(sorted(_FIELDS))}")
    if "text" in said and "columns" in said:
        raise unusable(file, "description of columns", "it has both text and columns")
    if not isinstance(said.get("label", ""), str):
        raise unusable(file, "description of columns", "label must be the name of one column")
    return {
        key: value if key == "label" else _names(file, key, value) for key, value in said.items()
    }


def _names(file: Traversable, key: str, value: object) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise unusable(file, "description of columns", f"{key} must be names of columns")
    if len(set(names)) < len(names):
        raise unusable(file, "description of columns", f"{key} names a column twice")
    return tuple(names)


def _texts(header: Sequence[str], label: str) -> tuple[str, ...]:
    return tuple(name for name in header if name.lower() in TEXTS and name != label)


def _some(header: Sequence[str]) -> str:
    shown = ", ".join(ascii(name[:40]) for name in header[:8])
    return f"{shown} and {len(header) - 8} more" if len(header) > 8 else shown or "none"


def _example(header: Sequence[str]) -> str:
    return ascii(header[-1][:40])[1:-1] if header else "..."
