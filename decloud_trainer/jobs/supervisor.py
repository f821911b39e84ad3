"""The queue's keeper: starts children as slots allow, watches them, starts them again."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from decloud_trainer.errors import AlreadyRunning, CorruptionError, DecloudError
from decloud_trainer.faultpoints import reach
from decloud_trainer.files import make_private_dir, remove_leftovers
from decloud_trainer.jobs.attempt import (
    Attempt,
    Limits,
    Verdict,
    failed,
    not_alone,
    verdict_before_start,
)
from decloud_trainer.jobs.child import Child, WorkerLog, child_environment, end_leftover
from decloud_trainer.jobs.memory import MemoryWatch
from decloud_trainer.jobs.model import KINDS, ChildId, Job, JobState, Wish, check_job_id
from decloud_trainer.jobs.store import JobStore

log = logging.getLogger(__name__)

# -P: the job's folder, where the child works, is no place to import modules from.
TRAINING_WORKER = (sys.executable, "-P", "-m", "decloud_trainer.training.worker")
# It keeps the rights of the user who starts it.
UNCONFINED_WORKER = (*TRAINING_WORKER, "--no-sandbox")
SCRIPTED_WORKER = (sys.executable, "-P", "-m", "decloud_trainer.jobs.scripted")

_LONGEST_NAP_S = 60.0
# Between two tries to keep what must not be lost.
_STORE_PAUSE_S = 1.0
_CLOSED = "the supervision of jobs is closed; jobs go on at the next start"

P = ParamSpec("P")
T = TypeVar("T")


class _Live:
    """A job that has not ended, as memory has it: ahead of the store by some progress."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.changed = asyncio.Event()  # set and replaced at each change
        self.task: asyncio.Task[None] | None = None
        self.attempt: Attempt | None = None
        # One of an earlier run starts when somebody asks for it again: its round may be over.
        self.is_wanted = True
        self.stored_progress: Mapping[str, Any] | None = job.progress
        self.stored_at_s = float("-inf")  # by the loop's clock

    def become(self, job: Job) -> None:
        """Show a new snapshot to whoever watches."""
        self.job = job
        self.wake()

    def wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Supervisor:
    """Implements `ports.Jobs` on a store and child processes; one per home, used once.

    Entering it takes over what an earlier one left, leaving it ends all children; their jobs
    are queued again and go on at the next start. The caller holds the home's single-instance
    lock meanwhile.

    Args:
        worker: the command of the worker, e.g. `TRAINING_WORKER`.
        now: unix seconds.
    """

    def __init__(
        self,
        store: JobStore,
        worker: Sequence[str] = TRAINING_WORKER,
        *,
        limits: Limits | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._worker = tuple(worker)
        self._limits = limits or Limits()
        self._memory = MemoryWatch(self._limits.memory_bytes)
        self._now = now
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jobs-store")
        self._live: dict[str, _Live] = {}  # in the order of submission
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = False
        self._broken: BaseException | None = None

    async def __aenter__(self) -> Self:
        try:
            make_private_dir(self._store.jobs_dir)
            await self._db(self._store.open)
            unfinished = await self._db(self._store.take_over, self._owner, self._now())
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self._is_open = True
        self._live = {job.id: _Live(job) for job in unfinished}
        for live in self._live.values():
            live.is_wanted = False
            if live.job.child is not None:
                await end_leftover(live.job.child, patience_s=0)
        self._start_ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        try:
            for live in self._live.values():
                if live.attempt is not None:
                    live.attempt.interrupt()
            tasks = [live.task for live in self._live.values() if live.task is not None]
            if tasks:
                await asyncio.wait(tasks)
            for live in self._live.values():
                live.wake()
            await self._db(self._store.close)
        finally:
            self._thread.shutdown(wait=False)

    # The port.

    async def submit(
        self, job_id: str, kind: str, spec: Mapping[str, Any], *, kill_after: float | None = None
    ) -> Job:
        check_job_id(job_id)
        if kind not in KINDS:
            raise DecloudError(f"{kind!r} is no kind of job", hint=f"use {', '.join(KINDS)}")
        self._check_open()
        if job_id in self._live:
            return self._want(self._live[job_id]).job
        spec = json.loads(json.dumps(spec, allow_nan=False))
        now = self._now()
        job = await self._db(self._store.submit, job_id, kind, spec, kill_after, now)
        return self._enlist(job).job

    async def get(self, job_id: str) -> Job | None:
        self._check_open()
        if job_id in self._live:
            return self._live[job_id].job
        return await self._db(self._store.get, job_id)

    async def wait(self, job_id: str) -> Job:
        live = await self._find(job_id)
        while not live.job.state.is_final:
            await self._change(live)
        return live.job

    async def watch(self, job_id: str) -> AsyncIterator[Job]:
        live = await self._find(job_id)
        while True:
            job = live.job
            yield job
            if job.state.is_final:
                return
            if live.job is job:
                await self._change(live)

    async def stop(self, job_id: str) -> None:
        await self._wish(job_id, Wish.STOP)

    async def cancel(self, job_id: str) -> None:
        await self._wish(job_id, Wish.CANCEL)

    # Below: how.

    async def _db(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Everything that touches SQLite runs on the one thread, in the order of the calls."""
        loop = asyncio.get_running_loop()
        try:
            future = loop.run_in_executor(self._thread, functools.partial(work, *args, **kwargs))
        except RuntimeError as error:  # the thread has gone home
            raise DecloudError(_CLOSED) from error
        return await future

    async def _kept(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `_db`, for what must not be lost: tried again while the disk is full or failing.

        Leaving ends that: what the store then doesn't know is done again at the next start."""
        is_first = True
        while True:
            try:
                return await self._db(work, *args, **kwargs)
            except (CorruptionError, AlreadyRunning):
                raise
            except DecloudError as error:
                if not self._is_open:
                    raise
                if is_first:
                    log.warning("%s; trying again (%s)", error, error.hint)
                is_first = False
            await asyncio.sleep(_STORE_PAUSE_S)

    def _check_open(self) -> None:
        if self._broken is not None:
            damaged = isinstance(self._broken, CorruptionError)
            raise (CorruptionError if damaged else DecloudError)(
                f"the supervision of jobs has broken down: {self._broken}",
                hint="the log has the details; start the program again",
            ) from self._broken
        if not self._is_open:
            raise DecloudError(_CLOSED)

    async def _find(self, job_id: str) -> _Live:
        self._check_open()
        live = self._live.get(job_id)
        if live is not None:
            return self._want(live)
        job = await self._db(self._store.get, job_id)
        if job is None:
            raise DecloudError(f"there is no job {job_id}")
        return self._enlist(job)

    def _want(self, live: _Live) -> _Live:
        if not live.is_wanted:
            live.is_wanted = True
            self._start_ready()
        return live

    def _enlist(self, job: Job) -> _Live:
        """The live job; of one that has ended, just its snapshot."""
        live = self._live.get(job.id)
        if live is None:
            live = _Live(job)
            if not job.state.is_final:
                self._live[job.id] = live
                self._start_ready()
        return live

    async def _change(self, live: _Live) -> None:
        self._check_open()
        await live.changed.wait()
        if not live.job.state.is_final:
            self._check_open()

    async def _wish(self, job_id: str, wish: Wish) -> None:
        live = await self._find(job_id)
        if live.job.state.is_final or live.job.wish is Wish.CANCEL:
            return
        live.become(replace(live.job, wish=wish))
        await self._db(self._store.keep_wish, job_id, wish)
        if live.attempt is not None:
            live.attempt.tell(live.job.wish)
        self._start_ready()

    def _start_ready(self) -> None:
        """Start what can start; come back by timer for what waits for a time."""
        if not self._is_open or self._broken is not None:
            return
        now = self._now()
        busy = Counter(_pool(live.job) for live in self._live.values() if live.task is not None)
        slots = {"train": self._limits.max_parallel, "small": self._limits.max_small}
        times: list[float] = []
        for live in self._live.values():
            if live.task is not None or not live.is_wanted:
                continue
            if verdict_before_start(live.job, self._limits, now) is None:
                times += [t for t in (live.job.not_before, live.job.kill_after) if t and t > now]
                if live.job.not_before > now or busy[_pool(live.job)] >= slots[_pool(live.job)]:
                    continue
            busy[_pool(live.job)] += 1
            live.task = asyncio.create_task(self._run(live), name=f"job {live.job.id}")
            live.task.add_done_callback(functools.partial(self._task_ended, live))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if times:
            nap_s = min(_LONGEST_NAP_S, min(times) - now)
            self._timer = asyncio.get_running_loop().call_later(nap_s, self._start_ready)

    def _task_ended(self, live: _Live, task: asyncio.Task[None]) -> None:
        live.task = None
        if task.cancelled():
            return  # the event loop is being closed under us
        error = task.exception()
        if error is not None:
            log.error("supervising job %s broke down", live.job.id, exc_info=error)
            self._broken = self._broken or error
            for other in self._live.values():
                other.wake()
        self._start_ready()

    async def _run(self, live: _Live) -> None:
        """One attempt, from the queue to its outcome in the store."""
        leftover = live.job.child
        is_alone = leftover is None or await end_leftover(leftover)
        verdict = verdict_before_start(live.job, self._limits, self._now())
        if verdict is None:
            lease_until = self._now() + self._limits.lease_s
            job = await self._kept(
                self._store.start, live.job.id, self._owner, lease_until, self._now()
            )
            self._adopt(live, job)
            verdict = await self._attempt(live) if is_alone else not_alone(live.job)
        await self._settle(live, verdict)

    async def _attempt(self, live: _Live) -> Verdict:
        job = live.job
        try:
            make_private_dir(job.folder)
            await asyncio.to_thread(remove_leftovers, job.folder)
            worker_log = WorkerLog(job.folder / "worker.log")
        except (OSError, DecloudError) as error:
            return failed(f"can't use the job's folder: {error}", may_retry=True)
        child = Child(worker_log, functools.partial(self._progress, live))
        try:
            environment = child_environment(job.kind, os.environ)
            try:
                reach("child.starting")
                identity = await child.start(self._worker, job.folder, environment)
                reach("child.started")
            except OSError as error:
                return failed(f"can't start a worker: {error}", may_retry=True)
            log.info("job %s: attempt %d is process %d", job.id, job.attempts, identity.pid)
            return await self._oversee(live, child, identity)
        finally:
            worker_log.close()
            await asyncio.to_thread(remove_leftovers, job.folder)

    async def _oversee(self, live: _Live, child: Child, identity: ChildId) -> Verdict:
        """Give the child its work and stay with it to its end, and its group's."""
        job = live.job
        attempt = live.attempt = Attempt(job, child, self._limits, self._memory, self._now)
        try:
            await self._kept(self._store.keep_child, job.id, self._owner, identity)
            attempt.begin()
            reach("child.told")
            attempt.tell(live.job.wish)
            if not self._is_open:
                attempt.interrupt()
            while not await attempt.look():
                try:
                    await self._renew(live)
                except (CorruptionError, AlreadyRunning):
                    raise
                except DecloudError as error:  # the next one may succeed; the child goes on
                    log.warning("job %s: %s", job.id, error)
            reach("child.ended")
        finally:
            await attempt.end()
            live.attempt = None
        return attempt.verdict()

    def _progress(self, live: _Live, progress: Mapping[str, Any]) -> None:
        live.become(replace(live.job, progress=progress))

    async def _renew(self, live: _Live) -> None:
        """Store progress and lease, but rarely: each time is a write to the disk."""
        limits, job, now = self._limits, live.job, self._now()
        clock_s = asyncio.get_running_loop().time()
        has_news = job.progress is not live.stored_progress
        if (has_news and clock_s - live.stored_at_s >= limits.progress_s) or (
            job.lease_until - now < limits.lease_s / 2
        ):
            live.stored_progress, live.stored_at_s = job.progress, clock_s
            lease_until = now + limits.lease_s
            await self._db(self._store.renew, job.id, self._owner, lease_until, job.progress)
            live.job = replace(live.job, lease_until=lease_until)

    async def _settle(self, live: _Live, verdict: Verdict) -> None:
        job, limits, now = live.job, self._limits, self._now()
        ended = replace(job, state=verdict.state, result=verdict.result, error=verdict.error)
        why = verdict.error.message if verdict.error else verdict.state.value
        if verdict.state is JobState.QUEUED:
            note = "interrupted: the program was stopped"
            again = await self._kept(
                self._store.requeue, job, self._owner, now, note, counted=False
            )
            self._adopt(live, again)
        elif verdict.may_retry and job.attempts < limits.max_attempts:
            log.warning("job %s: attempt %d failed: %s", job.id, job.attempts, why)
            not_before = now + limits.wait_after(job.attempts)
            again = await self._kept(
                self._store.requeue, ended, self._owner, now, why, not_before=not_before
            )
            self._adopt(live, again)
        else:
            log.info("job %s: %s", job.id, why)
            final = await self._kept(self._store.finish, ended, self._owner, now, why)
            del self._live[job.id]
            self._adopt(live, final)

    def _adopt(self, live: _Live, stored: Job) -> None:
        """Show what the store now has; a wish may still be on its way there."""
        live.become(replace(stored, wish=live.job.wish))


def _pool(job: Job) -> str:
    """Small jobs have slots of their own, so that hours of training don't hold them up."""
    return "train" if job.kind == "train" else "small"
