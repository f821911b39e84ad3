"""How a running daemon, or a command that does one round's work, tells what happens."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer.cli.output import (
    clock_time,
    folded,
    print_json,
    sign,
    span_text,
    state_text,
    terminal_width,
)
from decloud_trainer.money import format_sol

if TYPE_CHECKING:
    from decloud_trainer.rounds.engine import Told
    from decloud_trainer.rounds.parts import Progress

log = logging.getLogger(__name__)

SIGNS = {
    "seen": "👀",
    "watching": "🎯",
    "fetched": "📥",
    "joined": "✅",
    "trained": "🔧",
    "pinned": "📤",
    "submitted": "🔗",
    "claimable": "🏁",
    "claimed": "💰",
    "skipped": "💤",
    "lost": "✗ ",
    "failed": "❌",
}
# A pipe or a log gets a progress line at most this often per round; a terminal redraws one.
LOG_EVERY_S = 15.0
# Where a long reason goes on: behind the time and the sign, with room for a CID.
REASON_COLUMN = 14


class Teller:
    """Prints events as lines and progress as one line that is redrawn; logs the events.

    Args:
        as_json: one JSON object per event, progress included.
        quiet_skips: leave out rounds that are skipped, which on a busy network are most.
    """

    def __init__(self, *, as_json: bool = False, quiet_skips: bool = False) -> None:
        self._as_json = as_json
        self._quiet_skips = quiet_skips
        self._drawn = 0
        self._last_logged: dict[int, float] = {}

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._wipe()

    def event(self, told: Told) -> None:
        entry = told.entry
        state = said_of(told)
        log_event(told)
        if told.moved:
            self._last_logged.pop(entry.key.round_id, None)
        if self._quiet_skips and entry.state.value == "skipped" and not told.problem:
            return
        if self._as_json:
            print_json(event_json(told))
            return
        self._wipe()
        prefix = f"[{clock_time(told.at)}] {mark_of(told)}round #{entry.key.round_id} "
        click.echo(folded(prefix, state_text(state, entry.reason), indent=REASON_COLUMN))

    def progress(self, told: Progress, now: float) -> None:
        if self._as_json:
            print_json({"event": "progress", "round": told.round_id, **told.values})
            return
        prefix = f"round #{told.round_id}: "
        if sys.stdout.isatty():
            self._wipe()
            # A line that wraps can't be redrawn.
            line = progress_line(prefix, told.values, terminal_width() - 1)
            click.echo(line, nl=False)
            self._drawn = len(line)
        elif now - self._last_logged.get(told.round_id, 0.0) >= LOG_EVERY_S:
            self._last_logged[told.round_id] = now
            click.echo(f"[{clock_time(time.time())}] {prefix}{progress_text(told.values)}")

    def _wipe(self) -> None:
        if self._drawn:
            click.echo("\r" + " " * self._drawn + "\r", nl=False)
            self._drawn = 0


def said_of(told: Told) -> str:
    """The event in a word: the state that was reached, ``waiting`` or ``problem``."""
    if told.problem:
        return "problem"
    return told.entry.state.value if told.moved else "waiting"


def log_event(told: Told) -> None:
    entry, fields = told.entry, event_json(told)
    log.info(
        "round %s %s",
        entry.key.round_id,
        state_text(said_of(told), entry.reason),
        extra={"event": fields["event"], "fields": fields},
    )


def mark_of(told: Told) -> str:
    """The event's emoji, where emoji can be shown."""
    if told.problem:
        return sign("⚠️ ")
    return sign(SIGNS[told.entry.state.value] if told.moved else "⏳")


def event_json(told: Told) -> dict[str, Any]:
    entry = told.entry
    return {
        "event": "round",
        "at": round(told.at, 3),
        "round": entry.key.round_id,
        "state": entry.state.value,
        "moved": told.moved,
        "problem": told.problem,
        "reason": entry.reason,
    }


def fraction(values: Mapping[str, Any]) -> float | None:
    """How much of the planned training, or of a download's file, is done, 0 to 1; None where that
    isn't told."""
    if values.get("total_bytes"):
        return float(min(values.get("done_bytes", 0) / values["total_bytes"], 1.0))
    epoch, epochs = values.get("epoch"), values.get("epochs")
    batch, batches = values.get("batch"), values.get("batches")
    if not (epoch and epochs and batches) or batch is None:
        return None
    return float(min((epoch - 1 + batch / batches) / epochs, 1.0))


def progress_text(values: Mapping[str, Any]) -> str:
    """``epoch 1/2, batch 30/43, loss 0.412, acc 88.1 %, 2310/s, 4s left, 850 MB``."""
    return ", ".join(_progress_parts(values))


def progress_line(prefix: str, values: Mapping[str, Any], width: int) -> str:
    """On one line of at most `width` columns: in fewer words where it's narrow, and in the end
    without the last figures."""
    parts = list(_progress_parts(values))
    if len(prefix + ", ".join(parts)) > width:
        parts = [re.sub(r"\b(epoch|batch|loss|acc) | left$", "", part) for part in parts]
    while len(parts) > 1 and len(prefix + ", ".join(parts)) > width:
        parts.pop()
    return (prefix + ", ".join(parts))[:width]


def _progress_parts(values: Mapping[str, Any]) -> Iterator[str]:
    if "epoch" in values and "epochs" in values:
        yield f"epoch {values['epoch']}/{values['epochs']}"
    elif "stage" in values:
        yield " ".join(filter(None, (values["stage"], values.get("file"))))
    if values.get("done_bytes") is not None:
        total = values.get("total_bytes")
        of = f" of {total / 1e6:,.1f}" if total else ""
        yield f"{values['done_bytes'] / 1e6:,.1f}{of} MB"
    if values.get("batch") is not None and values.get("batches"):
        yield f"batch {values['batch']}/{values['batches']}"
    if values.get("loss") is not None:
        yield f"loss {values['loss']:.3f}"
    if values.get("accuracy") is not None:
        yield f"acc {values['accuracy']:.1f} %"
    if values.get("samples_per_s"):
        yield f"{values['samples_per_s']:.0f}/s"
    if values.get("eta_s") is not None:
        yield f"{span_text(values['eta_s'])} left"
    if values.get("memory_bytes"):
        yield f"{values['memory_bytes'] / 1e6:,.0f} MB"


def banner(
    *, wallet: str, balance: int, network: str, generation: str, settings: Mapping[str, Any]
) -> str:
    """The daemon's first lines."""
    width = min(63, terminal_width()) if sys.stdout.isatty() else 63
    rule = ("═" if sign("x") else "=") * width
    datasets = ", ".join(settings["datasets"]) or "any trainable"
    most = format_sol(settings["max_reward"]) if settings["max_reward"] else "unlimited"
    rows = {
        "Preset": settings["preset"] or "-",
        "Datasets": datasets,
        "Min reward": format_sol(settings["min_reward"]),
        "Max reward": most,
        "Max parallel": settings["max_parallel"],
        "Epochs": settings["epochs"],
        "Auto-train": settings["auto_train"],
        "Auto-claim": settings["auto_claim"],
    }
    lines = [
        rule,
        f"  {sign('🤖')}DECLOUD Trainer Daemon",
        rule,
        folded("  Wallet:  ", f"{wallet} ({format_sol(balance)})"),
        f"  Network: {network}",
        f"  Program: {generation}",
        "",
        f"  {sign('⚙️ ')}Settings:",
        *(folded(f"     {name + ':':<13} ", str(value)) for name, value in rows.items()),
        rule,
    ]
    return "\n".join(lines)
