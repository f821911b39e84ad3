"""One run of a job in a child: when it is to be ended, and what became of it."""

from __future__ import annotations

import asyncio
import logging
import signal
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decloud_trainer.errors import JobFailed, SettingsError
from decloud_trainer.faultpoints import reach
from decloud_trainer.jobs.backoff import backed_off, times_backed_off, told
from decloud_trainer.jobs.child import Child
from decloud_trainer.jobs.memory import MemoryWatch
from decloud_trainer.jobs.model import Job, JobError, JobState, Wish, printable

log = logging.getLogger(__name__)

# A worker's exit code for: there was no memory left.
EXIT_MEMORY = 71
_MORE_MEMORY = "free memory, or use a smaller batch size or fewer parallel trainings"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many children, how patiently.

    Attributes:
        max_parallel: training children at a time.
        max_small: children of the other kinds at a time, beside those.
        max_attempts: how often a job may fail; each attempt after the first is backed off.
        max_deaths: how often the program may die while a job runs before the job is given up.
        heartbeat_s: a child that says nothing for so long has hung.
        cancel_grace_s: how long a cancelled child may take to end by itself.
        end_grace_s: how long after SIGTERM it is killed.
        retry_wait_s: before the second attempt; doubled for each further one, at most 60 s.
        lease_s: how long a lease lasts unless renewed.
        progress_s: progress is stored at most so often; in memory it is always the latest.
        tick_s: how often a running child is looked at.
        memory_bytes: all children together; 0 = nine tenths of what this machine has.
        memory_s: how often that is looked at.
    """

    max_parallel: int = 1
    max_small: int = 2
    max_attempts: int = 3
    max_deaths: int = 12
    heartbeat_s: float = 60.0
    cancel_grace_s: float = 10.0
    end_grace_s: float = 3.0
    retry_wait_s: float = 2.0
    lease_s: float = 60.0
    progress_s: float = 1.0
    tick_s: float = 0.5
    memory_bytes: int = 0
    memory_s: float = 1.0

    def __post_init__(self) -> None:
        positive = ("max_parallel", "max_small", "max_attempts", "max_deaths")
        for name in (*positive, "heartbeat_s", "lease_s"):
            if getattr(self, name) <= 0:
                raise SettingsError(f"{name} must be greater than 0")
        times = ("cancel_grace_s", "end_grace_s", "retry_wait_s", "progress_s", "tick_s")
        for name in (*times, "memory_bytes", "memory_s"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must not be negative")

    def wait_after(self, attempts: int) -> float:
        """Seconds between a failed attempt, the how-manieth it was, and the next."""
        return float(min(60.0, self.retry_wait_s * 2 ** (attempts - 1)))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an attempt; QUEUED means that it was interrupted and doesn't count.

    Attributes:
        may_retry: FAILED, but another attempt may do better.
    """

    state: JobState
    result: Mapping[str, Any] | None = None
    error: JobError | None = None
    may_retry: bool = False


def failed(message: str, *, hint: str = "", may_retry: bool) -> Verdict:
    error = JobError(JobFailed.__name__, printable(message), hint)
    return Verdict(JobState.FAILED, error=error, may_retry=may_retry)


def out_of_time(job: Job) -> Verdict:
    error = JobError("OutOfTime", f"job {job.id} was not done in its time", "")
    return Verdict(JobState.FAILED, error=error)


def verdict_before_start(job: Job, limits: Limits, now: float) -> Verdict | None:
    """What ends a job that isn't running; None if nothing does.

    Args:
        now: unix seconds.
    """
    if job.wish is Wish.CANCEL:
        return Verdict(JobState.CANCELLED)
    if job.kill_after is not None and now >= job.kill_after:
        return out_of_time(job)
    if job.deaths >= limits.max_deaths:
        what = f"the program died {job.deaths} times while it ran"  # it may be the reason
        return failed(what, hint="see the system's log; was it short of memory?", may_retry=False)
    return None


def not_alone(job: Job) -> Verdict:
    """Two children of one job would write the same files."""
    what = f"an earlier worker of it, process {job.child.pid if job.child else 0}, can't be ended"
    return failed(what, hint="end that process, or restart the machine", may_retry=True)


class Attempt:
    """A running child of one job, judged by its limits.

    Args:
        memory: of all children of the same supervisor.
        now: unix seconds.
    """

    def __init__(
        self,
        job: Job,
        child: Child,
        limits: Limits,
        memory: MemoryWatch,
        now: Callable[[], float],
    ) -> None:
        self._job = job
        self._child = child
        self._limits = limits
        self._memory = memory
        self._now = now
        self._wish = Wish.GO_ON
        self._silent_s = 0.0
        self._cancelling_s = 0.0
        self._is_interrupted = False
        self._weighed_at_s = asyncio.get_running_loop().time()
        self._is_too_large = False

    def begin(self) -> None:
        """Tell the child its work."""
        job = self._job
        spec = backed_off(job.spec, times_backed_off(job.attempts, job.deaths))
        if changed := told(job.spec, spec):
            log.warning("job %s: attempt %d with %s", job.id, job.attempts, changed)
        self._child.send({"kind": job.kind, "spec": spec, "folder": str(job.folder)})

    def tell(self, wish: Wish) -> None:
        """Pass a stop or a cancel on."""
        if wish is not Wish.GO_ON and wish is not self._wish:
            self._wish = wish
            self._child.send({"command": wish.value})

    def interrupt(self) -> None:
        """End the child because we are leaving; the job goes again."""
        self._is_interrupted = True
        self._child.attention.set()

    async def look(self) -> bool:
        """Wait for something to happen, at most a tick; whether the child is to be ended now.

        Silence is counted in ticks that we were awake for, not by the clock: if this machine
        or this process stood still, the child's words of that time are still in the pipe.
        """
        child = self._child
        try:
            # Not by `wait_for`: before Python 3.12 it loses a cancellation that comes together
            # with the event, and then Ctrl-C is lost.
            async with asyncio.timeout(self._limits.tick_s):
                await child.attention.wait()
        except TimeoutError:
            self._silent_s += self._limits.tick_s
            if self._wish is Wish.CANCEL:
                self._cancelling_s += self._limits.tick_s
        child.attention.clear()
        if child.spoke:
            child.spoke = False
            self._silent_s = 0.0
        self._weigh()
        return (
            child.has_exited
            or child.final is not None
            or bool(child.fault)
            or self._is_interrupted
            or self._is_too_large
            or self._has_hung
            or self._is_late
            or self._cancelling_s > self._limits.cancel_grace_s
        )

    def _weigh(self) -> None:
        """Look at its memory, when it is time to."""
        clock_s = asyncio.get_running_loop().time()
        if clock_s - self._weighed_at_s >= self._limits.memory_s and not self._child.has_exited:
            self._weighed_at_s = clock_s
            self._is_too_large = self._memory.is_too_much(self._child.pid)

    async def end(self) -> None:
        """See the child out, with all its children; patiently only if it has finished."""
        if self._child.final is not None and not self._is_interrupted:
            await self._child.wait(self._limits.cancel_grace_s)
        reach("child.killing")
        await self._child.end(self._limits.end_grace_s)
        self._memory.forget(self._child.pid)
        reach("child.killed")

    def verdict(self) -> Verdict:
        """What became of it; after `end`."""
        child, final = self._child, self._child.final
        if self._wish is Wish.CANCEL:
            return Verdict(JobState.CANCELLED)
        if final is not None and final["event"] == "result":
            return self._judge_result(final.get("result"))
        if self._is_interrupted:
            return Verdict(JobState.QUEUED)
        if final is not None:
            return self._judge_error(final.get("error"))
        if child.fault:
            return failed(f"the worker {child.fault}", hint=self._log_hint, may_retry=False)
        if self._is_late:
            return out_of_time(self._job)
        if self._is_too_large:
            most = f"{self._memory.limit_bytes / 1e9:.1f} GB"
            what = f"took too much memory: together, training children held more than {most}"
            return failed(f"the worker {what}", hint=_MORE_MEMORY, may_retry=True)
        if self._has_hung:
            what = f"hung: it said nothing for {self._limits.heartbeat_s:g} s"
            return failed(self._with_log(what), hint=self._log_hint, may_retry=True)
        return self._judge_exit(child.exit_code)

    @property
    def _has_hung(self) -> bool:
        return self._silent_s >= self._limits.heartbeat_s

    @property
    def _is_late(self) -> bool:
        return self._job.kill_after is not None and self._now() >= self._job.kill_after

    def _judge_result(self, result: object) -> Verdict:
        try:
            return Verdict(JobState.DONE, result=check_result(self._job, result))
        except JobFailed as error:
            return failed(error.message, hint=self._log_hint, may_retry=False)

    def _judge_error(self, told: object) -> Verdict:
        if not isinstance(told, dict):
            return failed("the worker failed and didn't say why", may_retry=False)
        type_name, message, hint = (str(told.get(key) or "") for key in ("type", "message", "hint"))
        error = JobError.from_worker(type_name, message or type_name or "unknown", hint)
        return Verdict(JobState.FAILED, error=error, may_retry=error.is_retryable)

    def _judge_exit(self, code: int | None) -> Verdict:
        hint = self._log_hint
        if code == -signal.SIGKILL:
            what = "was killed by the system, probably out of memory"
            hint = _MORE_MEMORY
        elif code == EXIT_MEMORY:
            what, hint = "ran out of memory", _MORE_MEMORY
        elif code == -signal.SIGXCPU:
            what = "used up the processor time that such a job may take"
        elif code is not None and code < 0:
            what = f"was ended by {_signal_name(-code)}"
        else:
            what = f"ended without a result (exit code {code})"
        return failed(self._with_log(what), hint=hint, may_retry=True)

    def _with_log(self, what: str) -> str:
        lines = self._child.log.last_lines()
        return f"the worker {what}" + (f"; its last lines:\n{lines}" if lines else "")

    @property
    def _log_hint(self) -> str:
        return f"see {self._job.folder / 'worker.log'}"


def check_result(job: Job, result: object) -> Mapping[str, Any]:
    """The worker's result, if it is one.

    Raises JobFailed: no JSON object, or an artefact that isn't a plain file of the job's folder;
    a training must have one."""
    if not isinstance(result, dict):
        raise JobFailed("the worker's result is not a JSON object")
    name = result.get("artifact")
    if name is None and job.kind != "train":
        return result
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise JobFailed(f"the worker's artefact {printable(repr(name))[:100]} is no file name")
    try:
        mode = (job.folder / name).lstat().st_mode
    except (OSError, ValueError) as error:
        raise JobFailed(f"the worker's artefact {printable(name)[:100]} isn't there") from error
    if not stat.S_ISREG(mode):
        raise JobFailed(f"the worker's artefact {printable(name)[:100]} is no plain file")
    return result


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
