"""How commands print: JSON for scripts, text for people, signs only where they can be shown."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def print_json(value: Any) -> None:
    """One line, keys in the given order. What a terminal would obey or hide is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    click.echo(text if text.isprintable() else json.dumps(value))


def shows_signs() -> bool:
    """Whether standard output is a terminal that can show emoji."""
    # What rich puts in front of it while it draws knows no encoding.
    stream = getattr(sys.stdout, "rich_proxied_file", sys.stdout)
    encoding = (getattr(stream, "encoding", "") or "").lower()
    return sys.stdout.isatty() and encoding.replace("-", "") == "utf8"


def allow_any_text() -> None:
    """Characters that the terminal lacks are shown escaped instead of being an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def terminal_width() -> int:
    return shutil.get_terminal_size().columns


def folded(prefix: str, text: str, *, indent: int | None = None) -> str:
    """Both on one line; on a terminal that is too narrow, the text goes on below its start.

    Words stay whole, so that a signature or a CID can be copied.

    Args:
        indent: the column where it goes on, if not below its start.
    """
    if not sys.stdout.isatty():
        return prefix + text
    from rich.cells import cell_len

    start = cell_len(prefix.lstrip("\n"))
    indent = start if indent is None else indent
    width = max(terminal_width(), indent + 20)
    words = text.split() or [""]
    longest = max(map(len, words))
    if indent + longest > width >= longest:
        indent = width - longest
    if start + len(words[0]) > width and indent < start:
        start, prefix = indent, f"{prefix.rstrip(' ')}\n{' ' * indent}"
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=" " * start,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return prefix + "\n".join(lines)[start:]


def fitting(
    columns: Mapping[str, Sequence[str]], dispensable: Sequence[str], width: int
) -> list[str]:
    """The names of the columns that there is room for, in their order.

    Args:
        dispensable: what a narrow terminal does without, the first first.
    """
    from rich.cells import cell_len

    kept = {name: max(map(cell_len, [name, *texts])) + 2 for name, texts in columns.items()}
    for name in dispensable:
        if sum(kept.values()) - 2 <= width:
            break
        kept.pop(name, None)
    return list(kept)


def state_text(state: str, reason: str) -> str:
    """``waiting: ...``, without saying the state twice when the reason begins with it."""
    return reason if reason.startswith(state) else f"{state}: {reason}"


def sign(emoji: str, plain: str = "") -> str:
    """An emoji with a space behind it, or the plain text where emoji can't be shown."""
    return f"{emoji} " if shows_signs() else plain


def is_dumb() -> bool:
    """Whether the terminal can only write on, line below line."""
    return os.name == "posix" and os.environ.get("TERM", "dumb") in ("", "dumb", "unknown")


def shows_colors() -> bool:
    """Whether standard output is a terminal with colours, and its user wants them: the one place
    that decides it. Other means of emphasis count as colours."""
    context = click.get_current_context(silent=True)
    forbidden = context is not None and context.color is False
    return sys.stdout.isatty() and not (forbidden or os.environ.get("NO_COLOR") or is_dumb())


def styled(text: str, color: str) -> str:
    """The text in a colour, where colours are shown."""
    return click.style(text, fg=color) if shows_colors() else text


def console() -> Console:
    """For what rich draws."""
    from rich.console import Console

    # A pipe has no width: never fold what a script or a log may read.
    return Console(
        color_system="auto" if shows_colors() else None,
        width=None if sys.stdout.isatty() else 200,
        highlight=False,
    )


def time_left(deadline: int, now: float) -> str:
    """``12m 5s``, ``3h 20m``, ``passed``; ``-`` for a deadline that isn't set."""
    if not deadline:
        return "-"
    left = int(deadline - now)
    return span_text(left) if left > 0 else "passed"


def span_text(seconds: float) -> str:
    """``45s``, ``12m 5s``, ``3h 20m``, ``2d 3h``."""
    left = int(seconds)
    if left < 3600:
        return f"{left // 60}m {left % 60}s" if left >= 60 else f"{left}s"
    hours = left // 3600
    return f"{hours // 24}d {hours % 24}h" if hours >= 48 else f"{hours}h {left % 3600 // 60}m"


def accuracy_text(percent: float | None) -> str:
    """A score as a validator tells it; None is one that failed."""
    return "failed" if percent is None else f"{percent:.2f} %"


def clock_time(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def local_time(at: float, *, seconds: bool = False) -> str:
    """Day and time of unix seconds, by this machine's clock."""
    return time.strftime(f"%Y-%m-%d %H:%M{':%S' * seconds}", time.localtime(at))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people; plain text when it isn't going to a terminal.

    On a narrow terminal cells go on below; nothing is cut off.
    """
    from rich.table import Column, Table
    from rich.text import Text

    headers = [Column(name, overflow="fold") for name in columns]
    table = Table(*headers, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(Text, row))
    drawing = console()
    with drawing.capture() as printed:
        drawing.print(table)
    for line in printed.get().splitlines():
        click.echo(line.rstrip())


def print_pairs(pairs: Mapping[str, str]) -> None:
    """Aligned ``name: value`` lines."""
    width = max(map(len, pairs), default=0) + 1
    for name, value in pairs.items():
        click.echo(folded(f"{name + ':':<{width}} ", value))
