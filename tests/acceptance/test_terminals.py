"""What commands show on terminals of all sorts: narrow ones, dumb ones, without colours."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from terminal import Terminal, here

ESCAPE = "\x1b["


def shown(*words: str, columns: int = 80, env: Mapping[str, str] | None = None) -> str:
    with Terminal(*words, columns=columns, env=env) as terminal:
        assert terminal.end() == 0, terminal.shown
    return terminal.shown


@pytest.mark.parametrize(
    ("before", "env"),
    [(["--no-color"], {}), ([], {"NO_COLOR": "1"}), ([], {"TERM": "dumb"})],
)
def test_colours_can_be_switched_off(before: list[str], env: dict[str, str]) -> None:
    """By an option, by NO_COLOR, and by a terminal that has none: no escape code is left."""
    assert ESCAPE not in shown(*before, "config", "--show", env=env)


def test_a_terminal_with_colours_gets_them() -> None:
    """A table's head stands out."""
    assert ESCAPE in shown("config", "--show")


def test_sixty_columns_are_enough() -> None:
    """Nothing is wider than the terminal, and nothing is cut off."""
    url = f"https://{'u' * 80}.example"
    here.out("config", "--set", f"gateways={url}")
    text = re.sub(r"\x1b\[\d*m", "", shown("config", "--show", columns=60))
    table = text.partition("\r\n\r\n")[0].splitlines()
    assert all(len(line) <= 60 for line in table)
    row = next(number for number, line in enumerate(table) if line.startswith("gateways"))
    parts = [re.sub(r"^gateways|file$", "", line.strip()).strip() for line in table[row:]]
    assert "".join(parts).startswith(url)
    for words in (["status"], ["config", "--preset", "list"]):
        assert all(len(line) <= 60 for line in shown(*words, columns=60).splitlines())
