"""A daemon that runs for years: a finished round costs it disk, and no memory."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from daemonworld import a_world, earn, lose

from decloud_trainer.chain.watch import WatchPace
from decloud_trainer.jobs.model import Job
from decloud_trainer.rounds.engine import Told
from decloud_trainer.rounds.entry import Entry, RowKey
from decloud_trainer.rounds.model import Action, Intent, Round, Submission
from decloud_trainer.rounds.parts import Progress
from decloud_trainer.rounds.watchdog import Ended

# Open rounds are read again and again: what the last look showed is let go with the next.
QUICK = WatchPace(poll_interval_s=0.05, safety_interval_s=0.05)

KINDS = (Round, RowKey, Submission, Action, Progress, Ended, Entry, Told, Intent, Job)


def about(numbers: set[int], known: set[int]) -> dict[str, int]:
    """How many values in this process are about these rounds, by their types.

    Args:
        known: ids of objects that were there before: other tests have rounds of these numbers.
    """
    found: dict[str, int] = {}
    for one in gc.get_objects():
        # By the type: isinstance asks the object, and some of torch's warn when they are asked.
        if type(one) in KINDS and id(one) not in known and _round_of(one) in numbers:
            found[type(one).__name__] = found.get(type(one).__name__, 0) + 1
    return found


def _round_of(one: object) -> int | None:
    if isinstance(one, Round):
        return one.id
    if isinstance(one, RowKey | Submission | Action | Progress | Ended):
        return one.round_id
    if isinstance(one, Entry):
        return one.key.round_id
    if isinstance(one, Told):
        return one.entry.key.round_id
    if isinstance(one, Intent):
        return one.action.round_id
    return int(one.id[1:].partition("-")[0]) if isinstance(one, Job) else None


async def test_a_finished_round_leaves_nothing_in_memory(tmp_path: Path) -> None:
    """Nothing is left of it but how it ended, which decisions look back at."""
    known = {id(one) for one in gc.get_objects() if type(one) in KINDS}
    async with (
        a_world(tmp_path) as world,
        world.daemon(on_event=lambda told: None, pace=QUICK) as running,
    ):
        world.abort(world.open())  # the daemon's own scope is a key with this first number
        numbers = {await earn(world, running), await lose(world, running)}
        running.progress.clear()  # the test's own
        await earn(world, running)  # a decision has looked back at them
        try:
            async with asyncio.timeout(10):
                while about(numbers, known) != {"Ended": 2}:
                    gc.collect()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(about(numbers, known)) from None
