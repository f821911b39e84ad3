"""The outcome of a check."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from decloud_trainer.errors import DecloudError


class Verdict(enum.Enum):
    PASS = "PASS"  # noqa: S105  no password
    """As it should be."""
    WARN = "WARN"
    """The trainer runs, but does less than it could; or this could not be found out."""
    FAIL = "FAIL"
    """The trainer can't do its work, or a key is in danger."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report.

    Attributes:
        name: what was looked at, in words.
        text: what was found.
        fix: what to do about it, often a command; empty when there is nothing to do.
        numbers: what was measured, for scripts; units are in the names.
    """

    name: str
    verdict: Verdict
    text: str
    fix: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "verdict": self.verdict.value,
            "text": self.text,
            "fix": self.fix,
            **self.numbers,
        }


def passed(name: str, text: str, **numbers: Any) -> Check:
    return Check(name, Verdict.PASS, text, numbers=numbers)


def warned(name: str, text: str, fix: str = "", **numbers: Any) -> Check:
    return Check(name, Verdict.WARN, text, fix, numbers)


def failed(name: str, text: str, fix: str = "", **numbers: Any) -> Check:
    return Check(name, Verdict.FAIL, text, fix, numbers)


def refused(name: str, error: DecloudError) -> Check:
    """The check that ended in an error of ours."""
    return Check(name, Verdict.FAIL, error.message, error.hint)
