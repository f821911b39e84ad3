"""The daemon's live view: events scroll by, rounds in work stand below with their progress."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from decloud_trainer.cli.live import (
    REASON_COLUMN,
    SIGNS,
    fraction,
    log_event,
    mark_of,
    progress_text,
    said_of,
)
from decloud_trainer.cli.output import (
    clock_time,
    console,
    fitting,
    folded,
    sign,
    state_text,
    time_left,
)
from decloud_trainer.cli.showing import change, next_deadline
from decloud_trainer.errors import DecloudError
from decloud_trainer.money import format_sol

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from decloud_trainer.rounds.engine import Told
    from decloud_trainer.rounds.entry import Entry
    from decloud_trainer.rounds.journal import JournalThread
    from decloud_trainer.rounds.parts import Progress

COLUMNS = ("Round", "Dataset", "Reward", "State", "Done", "Deadline")
# What a narrow terminal does without, the first first.
DISPENSABLE = ("Reward", "Dataset", "Done")
BAR = 16


class Board:
    """Shows events above, a table of the rounds in work below; logs the events."""

    def __init__(self, drawing: Console | None = None) -> None:
        from rich.live import Live

        self._active: dict[int, Entry] = {}
        self._progress: dict[int, Progress] = {}
        self._began = time.time()
        self._claimed = 0
        self._to_book: asyncio.Queue[Entry] = asyncio.Queue()
        self._net_lamports = 0
        self._console = drawing or console()
        self._live = Live(
            console=self._console, get_renderable=self._view, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self._console.print(self._session_text())

    def event(self, told: Told) -> None:
        from rich.text import Text

        entry = told.entry
        number, state = entry.key.round_id, entry.state.value
        said = said_of(told)
        log_event(told)
        if entry.state.is_in_work:
            self._active[number] = entry
        else:
            self._active.pop(number, None)
        if told.moved:
            self._progress.pop(number, None)
            self._claimed += state == "claimed"
        if state == "skipped" and not told.problem:
            return
        # Any of these may have followed a transaction, a refused one as well.
        self._to_book.put_nowait(entry)
        style = "red" if told.problem else "green" if state == "claimed" else ""
        prefix = f"[{clock_time(told.at)}] {mark_of(told)}round #{number} "
        line = folded(prefix, state_text(said, entry.reason), indent=REASON_COLUMN)
        self._console.print(Text(line, style=style), soft_wrap=True)

    def progress(self, told: Progress, now: float) -> None:
        self._progress[told.round_id] = told

    async def keep_book(self, journal: JournalThread) -> None:
        """Keep this session's earnings as the journal has them, for ever."""
        from decloud_trainer.rounds.figures import earned, latest_intent

        before = await journal(latest_intent)
        while True:
            entry = await self._to_book.get()
            with contextlib.suppress(DecloudError):  # the sum after the next event has it, too
                self._net_lamports = await journal(earned, entry.key, before)
            self._to_book.task_done()

    async def all_booked(self) -> None:
        """Until the earnings are as of the last event."""
        await self._to_book.join()

    def _view(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        rounds = "1 round" if len(self._active) == 1 else f"{len(self._active)} rounds"
        caption = f"{rounds} in work; {self._session_text()}; Ctrl-C ends it"
        table = [self._table()] if self._active else []
        return Group(*table, *self._figures(), Text(caption, style="italic"))

    def _session_text(self) -> str:
        minutes = (time.time() - self._began) / 60
        span = f"{minutes / 60:.1f} h" if minutes >= 60 else f"{minutes:.0f} min"
        return f"session of {span}: {self._claimed} claimed, {change(self._net_lamports)} net"

    def _figures(self) -> Iterator[RenderableType]:
        """Where each training stands, below the table; it goes on below on a narrow terminal."""
        from rich.padding import Padding
        from rich.text import Text

        for number, told in sorted(self._progress.items()):
            if number in self._active and (figures := progress_text(told.values)):
                # Figures and their units stay together.
                text = re.sub(r"(?<!,) ", "\N{NO-BREAK SPACE}", f"#{number}: {figures}")
                yield Padding(Text(text, style="dim"), (0, 0, 0, 2))

    def _table(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        rows = [self._row(number, entry) for number, entry in sorted(self._active.items())]
        columns = {name: [row[name] for row in rows] for name in COLUMNS}
        shown = fitting(columns, DISPENSABLE, self._console.width)
        table = Table(box=None, pad_edge=False, expand=False)
        for name in shown:
            table.add_column(name, no_wrap=True)
        for row, number in zip(rows, sorted(self._active), strict=True):
            told = self._progress.get(number)
            done = fraction(told.values) if told else None
            bar = "" if done is None else ProgressBar(total=1.0, completed=done, width=BAR)
            table.add_row(*(bar if name == "Done" else row[name] for name in shown))
        return table

    def _row(self, number: int, entry: Entry) -> dict[str, str]:
        told = self._progress.get(number)
        trains = told is not None and told.kind == "train"
        seen = told.round if told and told.round else entry.round
        state = "training" if trains else entry.state.value
        return {
            "Round": f"#{number}",
            "Dataset": str(seen.dataset) if seen else "",
            "Reward": format_sol(seen.reward_lamports) if seen else "",
            "State": sign(SIGNS["trained" if trains else entry.state.value]) + state,
            "Done": " " * BAR,
            "Deadline": time_left(next_deadline(seen), time.time()) if seen else "",
        }
