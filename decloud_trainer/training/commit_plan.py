"""When a training commits itself, and in which words. Without torch: commands check it, too."""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from decloud_trainer.errors import SettingsError
from decloud_trainer.training.values import Json, as_json, fields

MESSAGE_FIELDS = ("step", "loss", "batch", "epoch", "accuracy")
DEFAULT_MESSAGE = "Training checkpoint: step={step}, loss={loss:.6f}"
_WHOLE = ("step", "batch", "epoch")


@dataclass(frozen=True, slots=True)
class CommitPlan:
    """When a training commits itself, and with which words.

    Attributes:
        auto_commit: at its end.
        commit_interval: and after every so many batches; None = not before the end.
        message: a template; see `check_message`.
    """

    auto_commit: bool = False
    commit_interval: int | None = None
    message: str = DEFAULT_MESSAGE

    def check(self, *, has_store: bool, known: Collection[str] = MESSAGE_FIELDS) -> None:
        """Before anything is trained.

        Raises:
            SettingsError: the parts don't go together, or the template is wrong.
        """
        interval = self.commit_interval
        if (self.auto_commit or interval is not None) and not has_store:
            raise SettingsError(
                "auto_commit or commit_interval requires blockchain_store",
                hint="name a chain of versions to commit to",
            )
        if interval is not None and not self.auto_commit:
            raise SettingsError("commit_interval requires auto_commit", hint="set auto_commit, too")
        if interval is not None and (type(interval) is not int or interval < 1):
            raise SettingsError(f"commit_interval must be 1 or more, not {interval!r}")
        check_message(self.message, known)

    @classmethod
    def from_json(cls, data: object) -> CommitPlan:
        """Raises SettingsError: it isn't one that can be followed."""
        plan = cls(**fields(cls, data))
        if type(plan.auto_commit) is not bool or not isinstance(plan.message, str):
            raise SettingsError("commits need auto_commit true or false, and a message")
        plan.check(has_store=True)
        return plan

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]


def check_message(template: str, known: Collection[str] = MESSAGE_FIELDS) -> None:
    """A template has plain text and fields such as ``{step}`` or ``{loss:.4f}``.

    Raises:
        SettingsError: another field, or a format that such a number can't be shown in.
    """
    try:
        for _, field, _, conversion in string.Formatter().parse(template):
            # Also no attributes or items: a template may be a stranger's.
            if field is not None and field not in known:
                raise SettingsError(
                    f"the commit message has the unknown field {{{field}}}",
                    hint=f"use {', '.join(f'{{{name}}}' for name in known)}",
                )
            if conversion:
                raise SettingsError(f"the commit message converts {{{field}!{conversion}}}")
        filled_message(template, dict.fromkeys(known, 1.5))
    except (ValueError, KeyError, IndexError) as error:
        raise SettingsError(
            f"the commit message {template!r} can't be filled: {error}",
            hint="fields are like {step} or {loss:.4f}; a brace of its own is written twice",
        ) from error


def filled_message(template: str, values: Mapping[str, float | None]) -> str:
    """The template with these values; what isn't known is shown as nan."""
    return template.format_map(
        {
            name: int(value) if name in _WHOLE and value is not None else _number(value)
            for name, value in values.items()
        }
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


@dataclass(frozen=True, slots=True)
class CommitReport:
    """What became of a training's commits.

    Attributes:
        left_out: states that gave their memory to newer ones while the store was slow.
        error: why the last failed one failed.
    """

    committed: int
    failed: int
    left_out: int
    error: str
