"""Ready-made sets of settings: one JSON file each in ``presets/``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decloud_trainer import config
from decloud_trainer.errors import SettingsError

# A wheel carries the files inside the package; a checkout has them beside it.
_PLACES = (Path(__file__).parent / "preset_files", Path(__file__).parent.parent / "presets")


@dataclass(frozen=True, slots=True)
class Preset:
    """Attributes:
    values: setting -> value as in the configuration file, checked by `load`.
    """

    name: str
    description: str
    values: dict[str, Any]


def names() -> list[str]:
    return sorted(path.stem for path in _folder().glob("*.json"))


def load(name: str) -> Preset:
    """The preset of that name; SettingsError naming the ones there are."""
    if name not in names():
        raise SettingsError(f"there is no preset {name!r}", hint=f"presets: {', '.join(names())}")
    path = _folder() / f"{name}.json"
    content = json.loads(path.read_text("utf-8"))
    values = content["settings"]
    for key, value in values.items():
        config.parse(key, value, f"preset {name}")
    return Preset(name, content["description"], values)


def _folder() -> Path:
    for place in _PLACES:
        if place.is_dir():
            return place
    raise SettingsError(
        "the presets that belong to this program are missing",
        hint="install it again: pip install --force-reinstall decloud-trainer",
    )
