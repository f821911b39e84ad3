"""What looks after a running daemon, put together from its settings."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decloud_trainer.settings import Settings
    from decloud_trainer.watching.notices import Channel, Notice
    from decloud_trainer.watching.tally import Tally
    from decloud_trainer.watching.watchman import Watchman
    from decloud_trainer.wiring import Trainer


@contextlib.asynccontextmanager
async def watched(
    trainer: Trainer, tally: Tally, on_notice: Callable[[Notice], None]
) -> AsyncIterator[None]:
    """A watchman at work and, with `metrics_port`, the metrics served."""
    from decloud_trainer.plans import patience_of
    from decloud_trainer.rounds.policy import kept_lamports
    from decloud_trainer.watching.notices import Notifier
    from decloud_trainer.watching.watchman import View, Watchman

    settings, parts = trainer.settings, trainer.engine.parts

    async def needed_lamports() -> int:
        return await _round_cost(trainer) + kept_lamports(settings.floor_balance_lamports)

    # Without a subscription the chain is only read so often: no silence until then.
    between_looks_s = settings.poll_interval
    view = View(
        journal=parts.journal,
        key=trainer.scope.key(0),
        network=settings.network,
        patience=patience_of(settings),
        clock=parts.clock,
        silent_s=lambda: max(trainer.watch.silent_s - between_looks_s, 0.0),
        needed_lamports=needed_lamports,
    )
    watchman = Watchman(view, Notifier(channels(settings)), on_notice)
    looking = asyncio.create_task(watchman.keep_looking())
    try:
        async with _served(trainer, tally, watchman):
            yield
    finally:
        looking.cancel()


def channels(settings: Settings) -> list[Channel]:
    from decloud_trainer.watching.notices import channels_of

    return channels_of(
        settings.notify_webhook, settings.notify_command, desktop=settings.notify_desktop
    )


async def _round_cost(trainer: Trainer) -> int:
    from decloud_trainer.rounds.prospects import total_costs

    return total_costs(await trainer.chain.costs())


@contextlib.asynccontextmanager
async def _served(trainer: Trainer, tally: Tally, watchman: Watchman) -> AsyncIterator[None]:
    settings = trainer.settings
    if not settings.metrics_port:
        yield
        return
    from decloud_trainer.rounds.journal import JournalThread
    from decloud_trainer.services import gateway_scores
    from decloud_trainer.watching.collecting import FRESH_S, Sources
    from decloud_trainer.watching.server import watched_at
    from decloud_trainer.wiring import journal_path

    journal = JournalThread(journal_path(), clock=trainer.engine.parts.clock)
    sources = Sources(
        journal=journal,
        key=trainer.scope.key(0),
        network=settings.network,
        started_at=time.time(),
        tally=tally,
        silent_s=lambda: trainer.watch.silent_s,
        is_subscribed=lambda: trainer.watch.is_connected,
        endpoints=trainer.endpoints,
        gateways=lambda: gateway_scores(settings),
        alarms=lambda: watchman.ringing,
        looked_s=lambda: watchman.looked_s,
        round_cost=lambda: _round_cost(trainer),
        fresh_s=FRESH_S + settings.poll_interval,
    )
    try:
        async with watched_at(settings.metrics_port, sources):
            yield
    finally:
        journal.close()
