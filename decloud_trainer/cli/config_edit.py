"""``config --edit``: a copy in the user's editor, which takes the file's place if it is sound."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from decloud_trainer import config
from decloud_trainer.errors import SettingsError
from decloud_trainer.files import make_private_dir
from decloud_trainer.settings import TABLE

NO_FILE = b"{\n}\n"


def edit() -> bool:
    """Have the file edited; whether it is another one now.

    The copy lies in the same folder with mode 0600, since it holds the same secrets.

    Raises:
        SettingsError: no editor, or what it left can't be used: the copy is kept and named.
    """
    path = config.config_path()
    before = path.read_bytes() if path.exists() else b""
    handle, name = tempfile.mkstemp(
        dir=make_private_dir(path.parent), prefix="config.edited-", suffix=".json"
    )
    copy = Path(name)
    with os.fdopen(handle, "wb") as file:
        file.write(before or NO_FILE)
    try:
        _run_editor(copy)
    except SettingsError:
        _drop_if_same(copy, before or NO_FILE)
        raise
    if _drop_if_same(copy, before or NO_FILE):
        return False
    try:
        _check(copy)
        config.replace(copy.read_bytes(), before=before)
    except SettingsError as error:
        raise SettingsError(
            f"not saved: {error.message}",
            hint=f"what you wrote is kept: mend it, then `mv {copy} {path}`",
        ) from error
    copy.unlink()
    return True


def _run_editor(copy: Path) -> None:
    words = os.environ.get("VISUAL", "").strip() or os.environ.get("EDITOR", "").strip() or "vi"
    try:
        command = [*shlex.split(words), str(copy)]
        done = subprocess.run(command, env=_without_secrets(os.environ), check=False)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"can't start the editor {words!r}: {error}",
            hint="name yours in the environment: export EDITOR=nano",
        ) from error
    if done.returncode:
        raise SettingsError(f"{words} ended with exit code {done.returncode}; nothing was changed")


def _without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    secret = {name for row in TABLE.values() for name in row.setting.env}
    return {name: value for name, value in environ.items() if name not in secret}


def _drop_if_same(copy: Path, before: bytes) -> bool:
    """Delete the copy if nothing was written into it; whether that was so."""
    if copy.exists() and copy.read_bytes() != before:
        return False
    copy.unlink(missing_ok=True)
    return True


def _check(copy: Path) -> None:
    settings = config.load(path=copy, environ={}).settings
    if settings.private_key:
        from decloud_trainer.chain.wallet import load_wallet

        load_wallet(environ={}, private_key=settings.private_key)
