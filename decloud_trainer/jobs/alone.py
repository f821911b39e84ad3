"""One job by itself, outside of the queue: for commands that neither wait for a daemon nor
disturb it."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from decloud_trainer.jobs.attempt import Limits
from decloud_trainer.jobs.store import JobStore
from decloud_trainer.jobs.supervisor import TRAINING_WORKER, Supervisor

LIMITS = Limits(max_attempts=1, tick_s=0.1)


async def run_alone(
    kind: str,
    spec: Mapping[str, Any],
    *,
    on_progress: Callable[[Mapping[str, Any]], None] = lambda _: None,
    timeout_s: float | None = None,
    worker: Sequence[str] = TRAINING_WORKER,
    before_removal: Callable[[Path], None] = lambda _: None,
) -> Mapping[str, Any]:
    """The result of a job that is run at once, once, in a child, with a store of its own.

    Being cancelled ends the child. Nothing of the job stays but its effects outside its folder.

    Args:
        before_removal: called with the folder of a job that is done, while it's still there.

    Raises:
        DecloudError: the job's error, or OutOfTime after `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="decloud-job-") as name:
        folder = Path(name)
        store = JobStore(folder / "jobs.sqlite", folder / "jobs")
        job_id = f"{kind}-{secrets.token_hex(4)}"
        async with Supervisor(store, worker, limits=LIMITS) as jobs:
            kill_after = None if timeout_s is None else time.time() + timeout_s
            await jobs.submit(job_id, kind, spec, kill_after=kill_after)
            async for job in jobs.watch(job_id):
                if job.progress:
                    on_progress(job.progress)
            if job.error is not None:
                raise job.error.exception()
            assert job.result is not None, "nobody else can cancel it"
            before_removal(job.folder)
            return job.result
