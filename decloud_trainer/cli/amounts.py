"""Amounts as people type them: sums in SOL, spans of time."""

from __future__ import annotations

import re
from typing import Any

import click

from decloud_trainer.errors import SettingsError
from decloud_trainer.money import lamports_from_sol

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def span_s(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``10m``, ``1.5h`` or ``2d``; SettingsError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    if not found:
        raise SettingsError(f"{text!r} is no span of time; write 90s, 10m, 1.5h or 2d")
    return float(found[1]) * _UNITS[found[2]]


class _Sol(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """An amount in SOL, as int lamports."""

    name = "SOL"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        try:
            return lamports_from_sol(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Span(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A span of time, as seconds."""

    name = "TIME"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, int | float):
            return value
        try:
            return span_s(value)
        except SettingsError as error:
            self.fail(error.message, param, ctx)


class _WholeSpan(_Span):
    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        seconds = super().convert(value, param, ctx)
        if seconds != int(seconds):
            self.fail(f"{value!r} is not a whole number of seconds", param, ctx)
        return int(seconds)


SOL, SPAN, WHOLE_SPAN = _Sol(), _Span(), _WholeSpan()
