"""Looks at a running daemon again and again, and says what keeps it from earning.

The decisions are those of `rounds.watchdog`. What was said is kept in the journal, so a restart
says nothing twice, and `status` can show it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from decloud_trainer.errors import DecloudError, NetworkError
from decloud_trainer.rounds.entry import RowKey
from decloud_trainer.rounds.figures import ended, lately, unclaimed
from decloud_trainer.rounds.journal import JournalThread
from decloud_trainer.rounds.marks import SESSION, mark, set_mark
from decloud_trainer.rounds.watchdog import Alarm, Patience, Sight, alarms
from decloud_trainer.watching.notices import Notice, Notifier

log = logging.getLogger(__name__)

# The mark in the journal that holds what is wrong, for `status` and for the next session.
WATCHDOG: Final = "watchdog"
FIRST_LOOK_S, LOOK_S = 5.0, 30.0
# What stays wrong is told again after so long; what comes and goes, at most so often.
REMIND_S, QUIET_S = 24 * 3600.0, 3600.0


@dataclass(frozen=True, slots=True)
class View:
    """What the watchman sees the daemon by.

    Attributes:
        key: of any row of the daemon's wallet, program and network.
        clock: unix seconds of the chain.
        silent_s: seconds since anything was heard of the chain.
        needed_lamports: what a round costs, with what must stay in the wallet.
    """

    journal: JournalThread
    key: RowKey
    network: str
    patience: Patience
    clock: Callable[[], float]
    silent_s: Callable[[], float]
    needed_lamports: Callable[[], Awaitable[int]]


@dataclass(slots=True)
class Ringing:
    """An alarm that is on, or was a while ago.

    Attributes:
        since: unix seconds.
        told_at: when people were told last; 0: never.
        is_on: whether it still holds.
    """

    alarm: Alarm
    since: float
    told_at: float = 0.0
    is_on: bool = True

    def to_json(self) -> dict[str, Any]:
        return {
            "alarm": self.alarm.name,
            "about": self.alarm.about,
            "text": self.alarm.text,
            "since": self.since,
            "told_at": self.told_at,
            "is_on": self.is_on,
        }


class Watchman:
    """Raises alarms, and takes them back when they don't hold any more.

    Args:
        on_notice: called with everything that is told to people.
    """

    def __init__(
        self,
        view: View,
        notifier: Notifier,
        on_notice: Callable[[Notice], None] = lambda notice: None,
    ) -> None:
        self._view = view
        self._notifier = notifier
        self._on_notice = on_notice
        self._started_at = view.clock()
        self._known: dict[tuple[str, str], Ringing] = {}
        self._is_loaded = False
        self._looked_at = time.monotonic()

    @property
    def looked_s(self) -> float:
        """Seconds since the latest look that succeeded, or since this began."""
        return time.monotonic() - self._looked_at

    @property
    def ringing(self) -> tuple[Alarm, ...]:
        """The alarms that are on, as of the latest look."""
        return tuple(one.alarm for one in self._known.values() if one.is_on)

    async def keep_looking(self) -> None:
        """For ever. A look that fails is logged; the next one may succeed."""
        await asyncio.sleep(FIRST_LOOK_S)
        while True:
            try:
                await self.look()
            except DecloudError as error:
                log.warning("the watchdog can't look: %s", error)
            except Exception:  # whoever watches must not stop watching
                log.exception("the watchdog's look broke down")
            await asyncio.sleep(LOOK_S)

    async def look(self) -> tuple[Alarm, ...]:
        """See what is wrong, and tell what is new; all that is wrong."""
        journal = self._view.journal
        if not self._is_loaded:
            self._known = _known(await journal(mark, WATCHDOG), self._view.key)
            self._is_loaded = True
        now = self._view.clock()
        notices = self._compared(alarms(await self._sight(now), self._view.patience), now)
        kept = {
            "at": now,
            "key": _scope_text(self._view.key),
            "alarms": [one.to_json() for one in self._known.values()],
        }
        # Kept before it is told: a crash between the two must not tell it at every start.
        await journal(set_mark, WATCHDOG, kept)
        self._looked_at = time.monotonic()
        for notice in notices:
            self._on_notice(notice)
        await self._notifier.tell(notices)
        return self.ringing

    async def _sight(self, now: float) -> Sight:
        view = self._view
        found = await view.journal(lately, view.key, now - view.patience.quiet_s)
        session = await view.journal(mark, SESSION)
        is_ours = session is not None and session["wallet"] == view.key.wallet
        balance = session["balance"] if is_ours else None
        try:
            needed = await view.needed_lamports()
        except NetworkError:  # not known now: then the balance can't be too low
            needed = 0
        return Sight(
            now=now,
            started_at=self._started_at,
            silent_s=view.silent_s(),
            last_event_at=found.last_event_at,
            balance_lamports=balance,
            needed_lamports=needed,
            joined=found.joined,
            missed=found.missed,
            unclaimed=await view.journal(unclaimed, view.key),
            ended=await view.journal(ended, view.key),
        )

    def _compared(self, found: tuple[Alarm, ...], now: float) -> list[Notice]:
        """Take in what is wrong now; what people are to be told of it."""
        notices = []
        present = {(alarm.name, alarm.about): alarm for alarm in found}
        for key, alarm in present.items():
            known = self._known.get(key)
            if known is None or not known.is_on:
                log.warning("%s: %s", alarm.name, alarm.text, extra=_fields("alarm", alarm))
                told_at = known.told_at if known is not None else 0.0
                known = self._known[key] = Ringing(alarm, now, told_at)
                is_due = now - told_at >= QUIET_S
            else:
                known.alarm = alarm
                is_due = now - known.told_at >= REMIND_S
                if is_due:
                    log.warning(
                        "still %s: %s", alarm.name, alarm.text, extra=_fields("alarm", alarm)
                    )
            if is_due:
                known.told_at = now
                notices.append(self._notice("alarm", alarm.name, alarm.text, now))
        for key, known in list(self._known.items()):
            if key in present:
                continue
            if known.is_on:
                known.is_on = False
                alarm = known.alarm
                log.info("over: %s: %s", alarm.name, alarm.text, extra=_fields("alarm_over", alarm))
                if known.told_at >= known.since:
                    text = f"no longer so: {alarm.text}"
                    notices.append(self._notice("alarm_over", alarm.name, text, now))
            elif now - known.told_at >= QUIET_S:
                del self._known[key]
        return notices

    def _notice(self, event: str, name: str, text: str, now: float) -> Notice:
        return Notice(event, name, text, self._view.key.wallet, self._view.network, now)


def _fields(event: str, alarm: Alarm) -> dict[str, Any]:
    return {"event": event, "fields": {"alarm": alarm.name, "about": alarm.about}}


def _scope_text(key: RowKey) -> str:
    return f"{key.genesis} {key.program} {key.wallet}"


def _known(mark: Any, key: RowKey) -> dict[tuple[str, str], Ringing]:
    """What an earlier session of the same wallet and network had said."""
    if not isinstance(mark, Mapping) or mark.get("key") != _scope_text(key):
        return {}
    found = [
        Ringing(
            Alarm(one["alarm"], one["text"], one["about"]),
            one["since"],
            one["told_at"],
            one["is_on"],
        )
        for one in mark["alarms"]
    ]
    return {(one.alarm.name, one.alarm.about): one for one in found}
