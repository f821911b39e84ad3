"""What the frozen values of a training share: checks at birth, and their form as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from decloud_trainer.errors import SettingsError

Json: TypeAlias = dict[str, Any]


def require(condition: bool, message: str) -> None:
    """Raises SettingsError with `message` unless `condition` holds."""
    if not condition:
        raise SettingsError(message)


def whole(name: str, value: object, low: int, high: int) -> None:
    """`value` must be an int (no bool) from `low` to `high`."""
    good = type(value) is int and low <= value <= high
    require(good, f"{name} must be a whole number from {low} to {high}, not {value!r}")


def finite(name: str, value: object) -> float:
    """`value` as a float; it must be an int or a float, and finite."""
    good = type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    require(good, f"{name} must be a finite number, not {value!r}")
    return float(value)  # type: ignore[arg-type]


def within(name: str, value: object, low: float, high: float) -> float:
    """`value` as a float from `low` to `high`."""
    number = finite(name, value)
    require(low <= number <= high, f"{name} must be from {low:g} to {high:g}, not {number:g}")
    return number


def one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    good = isinstance(value, str) and value in known
    require(good, f"{name} {value!r} is none of {', '.join(known)}")


def fields(kind: type, data: object) -> Json:
    """`data` as keyword arguments for the dataclass `kind`: a JSON object with its fields only."""
    require(isinstance(data, Mapping), f"{kind.__name__} must be a JSON object, not {data!r}")
    assert isinstance(data, Mapping)
    known = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(str(key) for key in data if key not in known)
    require(not unknown, f"{kind.__name__} has no field {', '.join(unknown)}")
    missing = [
        name
        for name, field in known.items()
        if name not in data
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    require(not missing, f"{kind.__name__} lacks {', '.join(missing)}")
    return dict(data)


def as_json(value: object) -> Any:
    """A frozen value as plain JSON values; paths become strings, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    return value
