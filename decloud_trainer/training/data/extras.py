"""The packages of the extra ``[text]``: imported when data needs them, and not before."""

from __future__ import annotations

import importlib
from typing import Any

from decloud_trainer.errors import DatasetUnavailable


def package(name: str, wanted_by: str) -> Any:
    """The module `name` of a package in the extra.

    Args:
        wanted_by: what needs it, for the message.

    Raises:
        DatasetUnavailable: it isn't installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DatasetUnavailable(
            f"{wanted_by} needs the package {name.partition('.')[0]}: {error}",
            hint="pip install 'decloud-trainer[text]'",
        ) from error
