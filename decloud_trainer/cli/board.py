"""The daemon's live view: events scroll by, rounds in work stand below with their progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from decloud_trainer.cli.live import SIGNS, fraction
from decloud_trainer.cli.output import clock_time, shows_signs, state_text, time_left
from decloud_trainer.cli.showing import next_deadline
from decloud_trainer.money import format_sol

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from decloud_trainer.rounds.engine import Told
    from decloud_trainer.rounds.entry import Entry
    from decloud_trainer.rounds.parts import Progress

log = logging.getLogger(__name__)


class Board:
    """Shows events above, a table of the rounds in work below; logs the events."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._active: dict[int, Entry] = {}
        self._progress: dict[int, Mapping[str, Any]] = {}
        self._began = time.time()
        self._claimed = 0
        self._console = console or Console(highlight=False)
        self._live = Live(
            console=self._console, get_renderable=self._table, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def event(self, told: Told) -> None:
        from rich.text import Text

        entry = told.entry
        number, state = entry.key.round_id, entry.state.value
        said = "problem" if told.problem else state if told.moved else "waiting"
        log.info("round %s %s", number, state_text(said, entry.reason))
        if entry.state.is_final or state in ("seen", "skipped"):
            self._active.pop(number, None)
        else:
            self._active[number] = entry
        if told.moved:
            self._progress.pop(number, None)
            self._claimed += state == "claimed"
        if state == "skipped" and not told.problem:
            return
        mark = "⚠️ " if told.problem else SIGNS[state] if told.moved else "⏳"
        style = "red" if told.problem else "green" if state == "claimed" else ""
        line = f"[{clock_time(told.at)}] {mark + ' ' if shows_signs() else ''}round #{number} "
        self._console.print(Text(line + state_text(said, entry.reason), style=style))

    def progress(self, told: Progress, now: float) -> None:
        self._progress[told.round_id] = told.values

    def _table(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table(box=None, pad_edge=False, expand=False, show_header=bool(self._active))
        for column in ("Round", "Dataset", "Reward", "State", "", "Speed", "ETA", "Deadline"):
            table.add_column(column, no_wrap=True)
        for number, entry in sorted(self._active.items()):
            values = self._progress.get(number, {})
            done = fraction(values)
            speed, eta = values.get("samples_per_s"), values.get("eta_s")
            seen = entry.round
            table.add_row(
                f"#{number}",
                str(seen.dataset) if seen else "",
                format_sol(seen.reward_lamports) if seen else "",
                entry.state.value,
                "" if done is None else ProgressBar(total=1.0, completed=done, width=16),
                f"{speed:.0f}/s" if speed else "",
                f"{eta:.0f} s" if eta is not None else "",
                time_left(next_deadline(seen), time.time()) if seen else "",
            )
        hours = (time.time() - self._began) / 3600
        table.caption = (
            f"{len(self._active)} rounds in work, {self._claimed} claimed in this session "
            f"of {hours:.1f} h; Ctrl-C ends it"
        )
        table.caption_justify = "left"
        return table
