"""The file that holds the settings, ``~/.decloud-trainer/config.json``, read and written.

Every value is parsed by its setting's kind, from JSON and from the command line alike, so a file
and ``--set`` accept the same.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import filelock

from decloud_trainer.errors import SettingsError
from decloud_trainer.files import home_dir, make_private_dir, sync_dir, write_atomic
from decloud_trainer.masking import masked
from decloud_trainer.migration import KEPT, Migrated, migrated
from decloud_trainer.names import dataset_key
from decloud_trainer.settings import ENDPOINTS, TABLE, Row, Settings

MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the layer that each came from.

    Attributes:
        sources: key -> ``default``, ``file``, ``preset NAME``, ``environment NAME``, ``option``.
        unknown: keys of the file that this version doesn't know; kept when it is rewritten.
    """

    settings: Settings
    sources: Mapping[str, str]
    unknown: tuple[str, ...]
    path: Path


def config_path() -> Path:
    return home_dir() / "config.json"


def row_of(key: str) -> Row:
    """The settings row of a key, or a SettingsError that offers the nearest names."""
    name = key.strip().lower().replace("-", "_")
    if name in TABLE:
        return TABLE[name]
    near = difflib.get_close_matches(name, TABLE, n=3)
    raise SettingsError(
        f"there is no setting {key!r}",
        hint=f"did you mean {' or '.join(near)}?"
        if near
        else "`decloud-trainer config --show` lists all settings",
    )


def parse(key: str, value: Any, where: str) -> Any:
    """The field's value for what a file, preset or option gives; `where` goes into the error."""
    row = row_of(key)
    try:
        return row.setting.kind.parse(value)
    except ValueError as error:
        hidden = row.setting.secret or row.setting.key in ENDPOINTS
        shown = "the value" if hidden else repr(value)
        raise SettingsError(
            f"{where}: {row.setting.key} {error} (got {shown})",
            hint=f"{row.setting.key}: {row.setting.help}",
        ) from None


def read_file(path: Path) -> dict[str, Any]:
    """The file's JSON object; empty when there is no file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
    hint = f"mend it, or move it away and run `decloud-trainer setup` ({path})"
    if len(raw) > MAX_CONFIG_BYTES:
        raise SettingsError(f"{path} is larger than a configuration can be", hint=hint)
    try:
        values = json.loads(raw, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid JSON: {error}", hint=hint) from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} must hold one JSON object", hint=hint)
    return values


def load(
    *,
    path: Path | None = None,
    preset: tuple[str, Mapping[str, Any]] | None = None,
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Defaults, then the file, then the session's preset, the environment and the options.

    Args:
        preset: its name and values; lies above the file for this session.
        options: key -> value of options that were given; None means not given, 0 is a value.
        environ: the process environment unless told otherwise.
    """
    path = path or config_path()
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources = dict.fromkeys(TABLE, "default")
    unknown: list[str] = []

    def lay(key: str, value: Any, source: str, where: str) -> None:
        row = row_of(key)
        values[row.field] = parse(key, value, where)
        sources[row.setting.key] = source

    for key, value in _in_our_terms(read_file(path)).items():
        if key not in TABLE:
            unknown.append(key)
        elif value is not None:  # a null is as good as no line at all
            lay(key, value, "file", str(path))
    if preset is not None:
        name, overlay = preset
        for key, value in overlay.items():
            lay(key, value, f"preset {name}", f"preset {name}")
        lay("preset", name, f"preset {name}", f"preset {name}")
    for key, row in TABLE.items():
        for variable in row.setting.env:
            if environ.get(variable, "").strip():
                lay(key, environ[variable], f"environment {variable}", variable)
                break
    for key, value in (options or {}).items():
        if value is not None:
            lay(key, value, "option", f"--{key.replace('_', '-')}")

    settings = Settings(**values)
    _check_rewards(settings.min_reward_lamports, settings.max_reward_lamports)
    _check_float(settings.sweep_above_lamports, settings.floor_balance_lamports)
    return Loaded(settings, sources, tuple(key for key in unknown if key != KEPT), path)


def _check_rewards(least: int, most: int) -> None:
    if 0 < most < least:
        raise SettingsError(
            "max_reward is below min_reward, so no round could ever match",
            hint="set max_reward=0 for unlimited",
        )


def _check_float(kept: int, floor: int) -> None:
    if 0 < kept <= floor:
        raise SettingsError(
            "sweep_above is no more than floor_balance, so nothing would be left to join with",
            hint="set sweep_above to what some rounds cost, such as 0.1; 0 sends nothing",
        )


def update(changes: Mapping[str, Any], *, path: Path | None = None) -> None:
    """Write values into the file: checked first, atomically, keeping keys we don't know.

    Args:
        changes: key -> value as in `parse`. Pairs (mappings, paths) are merged into the
            present ones, unless there are none, which clears them; everything else replaces.

    Raises:
        SettingsError: a value, or what it makes of the whole, can't be; nothing is written.
    """
    path = path or config_path()
    with _locked(path):
        content = _for_change(path)
        for key, value in changes.items():
            row = row_of(key)
            parsed = parse(key, value, row.setting.key)
            shown = row.setting.kind.show(parsed)
            if isinstance(shown, dict) and shown:
                shown = _present_pairs(content, row, path) | shown
            content[row.setting.key] = shown
        _check_rewards(*(_amount(content, key, path) for key in ("min_reward", "max_reward")))
        _check_float(*(_amount(content, key, path) for key in ("sweep_above", "floor_balance")))
        _write(path, content)


def _amount(content: Mapping[str, Any], key: str, path: Path) -> int:
    """Lamports, as they stand in the file or by default."""
    value = content.get(key)
    found: int = TABLE[key].default if value is None else parse(key, value, str(path))
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, so that none loses another's change."""
    make_private_dir(path.parent)
    lock = filelock.FileLock(path.with_suffix(".lock"), mode=0o600)
    try:
        lock.acquire(timeout=10)
    except filelock.Timeout as error:
        raise SettingsError(
            f"another program has been writing {path} for ten seconds", hint="try again later"
        ) from error
    except OSError as error:
        raise SettingsError(f"can't lock {path}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _present_pairs(content: Mapping[str, Any], row: Row, path: Path) -> dict[str, str]:
    pairs: dict[str, str] = parse(row.setting.key, content.get(row.setting.key) or {}, str(path))
    return pairs


def remove(key: str, name: str | None = None, *, path: Path | None = None) -> bool:
    """Take a setting, or one pair of it, out of the file; False if it wasn't there.

    A key that stands in the file can be removed even if this version doesn't know it.
    """
    path = path or config_path()
    with _locked(path):
        content = _for_change(path)
        if name is None and key in content and key not in TABLE:
            del content[key]
            _write(path, content)
            return True
        row = row_of(key)
        if row.setting.key not in content:
            return False
        if name is None:
            del content[row.setting.key]
        else:
            pairs = _present_pairs(content, row, path)
            if pairs.pop(dataset_key(name), None) is None:
                return False
            content[row.setting.key] = pairs
        _write(path, content)
    return True


def replace(raw: bytes, *, before: bytes, path: Path | None = None) -> None:
    """Put an edited file in the place of the one that was edited.

    Args:
        raw: the new file, which `load` has accepted.
        before: what the file held when the editing began; empty for no file.

    Raises:
        SettingsError: another program has changed the file since; nothing is written.
    """
    path = path or config_path()
    with _locked(path):
        if (path.read_bytes() if path.exists() else b"") != before:
            raise SettingsError(f"{path} was changed by another program while you edited it")
        _write_raw(path, raw)


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Attributes:
    backup: where the earlier kit's file is now, byte for byte.
    notes: what became of its keys, one sentence each.
    """

    backup: Path
    notes: tuple[str, ...]


def take_over(*, path: Path | None = None) -> TakenOver | None:
    """Rewrite a file of an earlier trainer kit in our terms; None if it isn't one."""
    path = path or config_path()
    if migrated(read_file(path), _read_setting) is None:
        return None
    with _locked(path):
        old = migrated(read_file(path), _read_setting)
        return None if old is None else _take_over(path, old)


def _take_over(path: Path, old: Migrated) -> TakenOver:
    backup = _free_place(path, "kit-backup")
    _write_raw(backup, path.read_bytes())
    _write(path, old.content)
    return TakenOver(backup, old.notes)


def _for_change(path: Path) -> dict[str, Any]:
    """The content of a file that is about to be rewritten."""
    content = read_file(path)
    old = migrated(content, _read_setting)
    if old is None:
        return content
    _take_over(path, old)
    return old.content


def _in_our_terms(content: dict[str, Any]) -> dict[str, Any]:
    old = migrated(content, _read_setting)
    return content if old is None else old.content


def _read_setting(key: str, value: Any) -> Any:
    """The value as the file has it; ValueError if the setting can't have it."""
    kind = TABLE[key].setting.kind
    return kind.show(kind.parse(value))


def reset(*, path: Path | None = None) -> Path | None:
    """Set the file aside as ``config.json.backup``; its new place, or None if there was none.

    An earlier backup stays: it may hold the only copy of a key."""
    path = path or config_path()
    with _locked(path):
        if not path.exists():
            return None
        backup = _free_place(path, "backup")
        path.replace(backup)
        sync_dir(path.parent)
    return backup


def _free_place(path: Path, what: str) -> Path:
    """``config.json.WHAT``, or with a number behind it: no backup replaces another."""
    names = itertools.chain([what], (f"{what}-{copy}" for copy in itertools.count(2)))
    places = (path.with_name(f"{path.name}.{name}") for name in names)
    return next(place for place in places if not place.exists())


def _write(path: Path, content: Mapping[str, Any]) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, Decimal):
            return float(value)
        raise TypeError(f"{type(value).__name__} can't stand in a configuration")

    text = json.dumps(content, indent=2, ensure_ascii=False, default=plain)
    _write_raw(path, text.encode() + b"\n")


def _write_raw(path: Path, raw: bytes) -> None:
    try:
        write_atomic(path, raw)
    except OSError as error:
        raise SettingsError(
            f"can't write {path}: {error.strerror}", hint="check the disk and the folder's owner"
        ) from error


def _endpoint(url: str) -> str:
    host = masked(url)
    return url if host == url else f"{host}/(hidden)"


def shown_values(loaded: Loaded) -> dict[str, Any]:
    """key -> JSON value, for people and scripts: secrets as ``(set)`` or an empty text, endpoints
    without what may be an API key in them."""
    shown: dict[str, Any] = {}
    for key, row in TABLE.items():
        value = getattr(loaded.settings, row.field)
        if row.setting.secret:
            shown[key] = "(set)" if value else ""
        elif key in ENDPOINTS:
            several = not isinstance(value, str)
            shown[key] = [_endpoint(url) for url in value] if several else _endpoint(value)
        else:
            shown[key] = row.setting.kind.show(value)
    return shown
