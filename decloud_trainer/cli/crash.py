"""The last resort: an unexpected failure leaves a report without secrets, and says where."""

from __future__ import annotations

import os
import platform
import re
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import click

from decloud_trainer import config as settings_file
from decloud_trainer.errors import DecloudError
from decloud_trainer.files import log_dir, make_private_dir, write_atomic
from decloud_trainer.masking import masked
from decloud_trainer.migration import KEPT
from decloud_trainer.settings import ENDPOINTS, TABLE

EXIT_CODE = 3
KEPT_REPORTS = 20
MAX_REPORT_CHARS = 200_000
_SHORTEST_KEY = 8
_OPTION = re.compile(r"--?[a-z][a-z-]*")
_SUBCOMMAND = re.compile(r"[a-z]{2,12}")
# Names of settings of other versions that hold secrets.
_SECRET_NAME = re.compile(r"key|secret|jwt|token|pass|seed|mnemonic", re.IGNORECASE)


def tell_crash(
    error: Exception, words: Sequence[str], commands: Collection[str], *, verbose: bool
) -> int:
    """Say what happened on standard error, store a report; the exit code.

    Args:
        words: the command line without the program's name.
        commands: the names of all commands.
    """
    secrets = configured_secrets(os.environ)
    trace = _trace(error, secrets)
    if verbose:
        click.echo(trace, err=True)
    told = masked(f"{type(error).__name__}: {error}", secrets)
    click.echo(f"unexpected error: {told}", err=True)
    path = _store(_report(masked(command_name(words, commands), secrets), trace))
    if path is None:
        click.echo("hint: this is a defect; --verbose shows where it happened", err=True)
    else:
        click.echo(f"a report without keys is in {path}", err=True)
        click.echo("hint: this is a defect; please send that report to its authors", err=True)
    return EXIT_CODE


def configured_secrets(environ: Mapping[str, str]) -> list[str]:
    """Every secret of the configuration file and the environment, also of a wrong configuration,
    and what endpoints carry behind their host: providers put keys there."""
    try:
        values = settings_file.read_file(settings_file.config_path())
    except DecloudError:
        values = {}
    kept = values.get(KEPT)  # what an earlier kit's file had
    found = [
        str(value)
        for group in (values, kept if isinstance(kept, dict) else {})
        for name, value in group.items()
        if _SECRET_NAME.search(name) and not name.endswith("_path")
    ]
    for name in (*ENDPOINTS, "notify_webhook"):
        value = values.get(name)
        for url in value if isinstance(value, list) else [value]:
            found += _keys_in(str(url or ""))
    for row in TABLE.values():
        if row.setting.secret:
            found += [environ.get(name, "") for name in row.setting.env]
    return [secret.strip() for secret in found if secret.strip()]


def _keys_in(url: str) -> list[str]:
    """Words of a URL, besides its host, that are long enough to be keys."""
    place, *rest = re.split(r"(?=[/?#])", url.partition("://")[2], maxsplit=1)
    words = re.split(r"[/?&=:#]", "/".join([place.rpartition("@")[0], *rest]))
    return [word for word in words if len(word) >= _SHORTEST_KEY]


def _trace(error: Exception, secrets: Sequence[str]) -> str:
    """The traceback: calls and source lines, no values of variables."""
    text = "".join(traceback.format_exception(error))
    if len(text) > MAX_REPORT_CHARS:
        half = MAX_REPORT_CHARS // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    home = str(Path.home())
    return masked(text if home == "/" else text.replace(home, "~"), secrets)


def _report(command: str, trace: str) -> str:
    from decloud_trainer.checks.packages import versions

    facts = {
        "When": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "Command": f"{command}  (values are left out)",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "System": platform.platform(),
    }
    head = "".join(f"{name + ':':<10}{value}\n" for name, value in facts.items())
    return f"decloud-trainer crash report\n\n{head}\n{trace}"


def command_name(words: Sequence[str], commands: Collection[str]) -> str:
    """``decloud-trainer config --set`` for ``config --set private_key=...``: the command and the
    names of its options, without their values and without arguments."""
    shown, before = ["decloud-trainer"], ""
    for word in words:
        name = word.partition("=")[0]
        if word in commands or (before in commands and _SUBCOMMAND.fullmatch(word)):
            shown.append(word)
        elif _OPTION.fullmatch(name):
            shown.append(name)
        before = word
    return " ".join(shown)


def _store(text: str) -> Path | None:
    """The report's path; None when it can't be written, which must not hide the failure."""
    try:
        folder = make_private_dir(log_dir())
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        path = folder / f"crash-{stamp}-{os.getpid()}.txt"
        write_atomic(path, text.encode("utf-8", "replace"))
        for old in sorted(folder.glob("crash-*.txt"))[:-KEPT_REPORTS]:
            old.unlink(missing_ok=True)
    except (OSError, DecloudError):
        return None
    return path
