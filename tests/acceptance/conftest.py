"""Commands at terminals that no failing test leaves behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from terminal import AtTerminal, Terminal


@pytest.fixture
def at_terminal() -> Iterator[AtTerminal]:
    """Starts commands at terminals of their own, as `Terminal` does."""
    with contextlib.ExitStack() as stack:

        def start(*words: str, **options: object) -> Terminal:
            return stack.enter_context(Terminal(*words, **options))  # type: ignore[arg-type]

        yield start
