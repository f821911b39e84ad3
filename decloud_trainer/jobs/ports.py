"""What users of the queue need of it. Implementation: `supervisor.Supervisor`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from decloud_trainer.jobs.model import Job


class Jobs(Protocol):
    """Work in child processes, known by ids that the caller chooses.

    Everything may be repeated: after a restart the caller submits again under the same id and
    waits again. A job is durable once `submit` has returned; its child may run more than once,
    one after the other, never two at a time. A method given an id that was never submitted
    raises DecloudError, except `get`.
    """

    async def submit(
        self, job_id: str, kind: str, spec: Mapping[str, Any], *, kill_after: float | None = None
    ) -> Job:
        """Queue a job: `kind` is inspect, prepare or train, `spec` the worker's JSON.

        An id that is already known gives the job as it stands, with the spec that it had the
        first time, also when it has ended: another try is another id.

        Args:
            kill_after: unix seconds. The worker minds its own deadline (in the spec); this one
                also ends a worker that doesn't, and a job that never got a slot."""
        ...

    async def get(self, job_id: str) -> Job | None:
        """The job as it is now, or None if there is none of that id."""
        ...

    async def wait(self, job_id: str) -> Job:
        """The job once its state is final: DONE, FAILED or CANCELLED; never raises its error.

        Raises DecloudError when the queue is closed first: the job goes on at the next start."""
        ...

    def watch(self, job_id: str) -> AsyncIterator[Job]:
        """The job now, then again as it changes; the last one has a final state.

        A slow reader skips snapshots, never the last. Raises as `wait` does."""
        ...

    async def stop(self, job_id: str) -> None:
        """Have it finish with the best it has. Returns at once; `wait` for the end.

        It then ends DONE, or FAILED (OutOfTime) if it had learned nothing yet. A queued job is
        told as soon as it starts; one that has ended stays as it is."""
        ...

    async def cancel(self, job_id: str) -> None:
        """Have it end without a result: CANCELLED. Returns at once; `wait` for the end.

        A job that has ended stays as it is."""
        ...
