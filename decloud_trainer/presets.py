"""Ready-made sets of settings: one JSON file each, shipped in ``presets/`` or the user's own.

The user's own are in the home folder, ``~/.decloud-trainer/presets/NAME.json``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decloud_trainer import config
from decloud_trainer.errors import SettingsError
from decloud_trainer.files import home_dir, make_private_dir, write_atomic
from decloud_trainer.names import dataset_key
from decloud_trainer.settings import TABLE, Settings

# A wheel carries the files inside the package; a checkout has them beside it.
_PLACES = (Path(__file__).parent / "preset_files", Path(__file__).parent.parent / "presets")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_WORDS = ("list", "save")  # words of `config --preset`
_MAX_BYTES = 1 << 16

# What a saved preset always says; the others only where they aren't the default.
ALWAYS_SAVED = (
    "datasets",
    "min_reward",
    "max_reward",
    "epochs",
    "batch_size",
    "learning_rate",
    "max_batches",
)
# A file from someone else mustn't say where money goes.
NEVER_PRESET = ("preset", "cold_address", "sweep_above")
SAVED_IF_SET = (
    "min_profit",
    "dataset_mappings",
    "max_concurrent_rounds",
    "auto_train",
    "auto_claim",
    "submit_only_if_improved",
)


@dataclass(frozen=True, slots=True)
class Preset:
    """Attributes:
    values: setting -> value as in the configuration file, checked by `load`.
    own: the user's, not one that belongs to this program.
    """

    name: str
    description: str
    values: dict[str, Any]
    own: bool = False


def names() -> list[str]:
    """Those that belong to this program, then the user's own; each in alphabetical order."""
    return [*_stems(_folder()), *own_names()]


def own_names() -> list[str]:
    shipped = _stems(_folder())
    return [name for name in _stems(own_folder()) if name not in shipped]


def named_datasets() -> frozenset[str]:
    """Every dataset that a preset of this program names."""
    shipped = [load(name) for name in _stems(_folder())]
    return frozenset(
        dataset_key(name) for preset in shipped for name in preset.values.get("datasets", [])
    )


def load(name: str) -> Preset:
    """The preset of that name.

    Raises:
        SettingsError: there is none (the ones there are get named), or its file is wrong.
    """
    if name not in names():
        raise SettingsError(f"there is no preset {name!r}", hint=f"presets: {', '.join(names())}")
    own = name in own_names()
    path = (own_folder() if own else _folder()) / f"{name}.json"
    content = _read(path)
    values = content.get("settings")
    if not isinstance(values, dict):
        raise SettingsError(f'{path} has no object "settings"', hint=f"mend or delete {path}")
    for key, value in values.items():
        if key not in TABLE:
            raise SettingsError(f"preset {name}: there is no setting {key!r}", hint=f"edit {path}")
        if key in NEVER_PRESET or TABLE[key].setting.secret:
            raise SettingsError(f"preset {name}: a preset can't set {key}", hint=f"edit {path}")
        config.parse(key, value, f"preset {name}")
    return Preset(name, str(content.get("description", "")), values, own)


def save(name: str, settings: Settings, *, replace: bool = False) -> Path:
    """Keep what these settings say of rounds and training as a preset of the user's; its file.

    Raises:
        SettingsError: the name can't be, or is taken (by one of the user's own: see `replace`).
    """
    if not _NAME.fullmatch(name) or name in _WORDS:
        raise SettingsError(
            f"{name!r} can't be the name of a preset",
            hint="use up to 40 small letters, digits, dots, hyphens and underscores",
        )
    if name in _stems(_folder()):
        raise SettingsError(
            f"{name} is a preset that belongs to this program", hint="choose another name"
        )
    if name in own_names() and not replace:
        raise SettingsError(
            f"you have a preset {name} already", hint="--force replaces it; or choose another name"
        )
    values = {key: _shown(settings, key) for key in ALWAYS_SAVED}
    for key in SAVED_IF_SET:
        row = TABLE[key]
        if getattr(settings, row.field) != row.default:
            values[key] = _shown(settings, key)
    content = {"description": "My own", "settings": values}
    path = make_private_dir(own_folder()) / f"{name}.json"
    text = json.dumps(content, indent=2, ensure_ascii=False)
    try:
        write_atomic(path, text.encode() + b"\n")
    except OSError as error:
        raise SettingsError(f"can't write {path}: {error.strerror}") from error
    return path


def own_folder() -> Path:
    return home_dir() / "presets"


def _shown(settings: Settings, key: str) -> Any:
    row = TABLE[key]
    return row.setting.kind.show(getattr(settings, row.field))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        content = json.loads(raw) if len(raw) <= _MAX_BYTES else None
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{path} is not valid JSON: {error}", hint=f"mend or delete {path}"
        ) from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path} must hold one JSON object", hint=f"mend or delete {path}")
    return content


def _stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.json") if _NAME.fullmatch(path.stem))


def _folder() -> Path:
    for place in _PLACES:
        if place.is_dir():
            return place
    raise SettingsError(
        "the presets that belong to this program are missing",
        hint="install it again: pip install --force-reinstall decloud-trainer",
    )
