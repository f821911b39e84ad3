"""What rounds have training children do: ready the data, inspect a model, train."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decloud_trainer.errors import DecloudError, HostileFile, TrainingError
from decloud_trainer.jobs.model import Job, JobState
from decloud_trainer.rounds import recall
from decloud_trainer.rounds.entry import Entry, Facts, RowKey
from decloud_trainer.rounds.model import Round
from decloud_trainer.rounds.models import model_path, verified_model
from decloud_trainer.rounds.parts import Parts, Progress
from decloud_trainer.rounds.passing import Passing, discard, note, passing_on, wanted
from decloud_trainer.store.forwarding import CHAIN
from decloud_trainer.training.record import RECORD

log = logging.getLogger(__name__)

# The round's dataset key that names no data of its own: what a user maps it to *is* the data.
CUSTOM = "custom"
# After its deadline a training child has this long to write its artefact and preview it.
GRACE_S = 60.0


async def prepare_round(parts: Parts, entry: Entry, round: Round, data_key: str) -> Facts:
    """Data and model of a round, ready to be trained: fetched, verified, recognised, measured.

    Raises:
        TrainingError, UntrustedData, JobFailed: this round can't be trained here.
        GatewayError, ContentMismatch: its model can't be had now.
    """
    spec = {
        "data": dict(parts.plan.data[data_key]),
        "cache_bytes": parts.plan.dataset_cache_bytes,
    }
    preparing = asyncio.create_task(_prepare(parts, entry, spec))
    inspecting = asyncio.create_task(_inspect(parts, entry, round))
    try:
        # At once: the window to join can be seconds.
        data, report = await asyncio.gather(preparing, inspecting)
    finally:
        preparing.cancel()
        inspecting.cancel()
    if data["classes"] > report["classes"]:
        raise TrainingError(
            f"{data_key} has {data['classes']} classes, the model tells only "
            f"{report['classes']} apart"
        )
    _check_kind(data_key, data, report)
    return dataclasses.replace(
        entry.facts,
        train_on=data_key,
        data_samples=data["train"],
        model_sha256=report["sha256"],
        architecture=report["architecture"],
        classes=report["classes"],
        parameters=report["parameters"],
        samples_per_s=report["samples_per_s"],
    )


async def _prepare(parts: Parts, entry: Entry, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The data's report. What was ready once stays so until a training says otherwise: the window
    to join can be shorter than the start of a child."""
    name, path = digest(spec), spec["data"].get("path")
    known = parts.prepared.get(name)
    if known is not None and (path is None or await asyncio.to_thread(Path(path).exists)):
        return known
    report = await _run(parts, entry, "prepare", spec)
    parts.prepared[name] = report
    return report


def _check_kind(key: str, data: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Texts for a network of images, or a table with other columns, can't be trained."""
    holds, takes = (
        (found.get("modality", "image"), found.get("columns", 0)) for found in (data, report)
    )
    if holds != takes:
        kinds = [f"{kind} data" + (f" of {n} columns" if n else "") for kind, n in (holds, takes)]
        raise TrainingError(f"{key} is {kinds[0]}, the model takes {kinds[1]}")


async def _inspect(parts: Parts, entry: Entry, round: Round) -> dict[str, Any]:
    model = await verified_model(parts, round.model_cid)
    plan = parts.plan
    spec = {
        "model": str(model),
        "max_bytes": parts.max_model_bytes,
        "device": plan.device,
        "threads": plan.threads,
        "batch_size": plan.batch_size,
        "precision": plan.precision,
    }
    if plan.tokenizer:
        spec["tokenizer"] = plan.tokenizer
    kept = parts.models_dir.with_name("known-models.json")
    known = await asyncio.to_thread(recall.recalled, kept, model, spec)
    if known is not None:
        return known
    try:
        report = await _run(parts, entry, "inspect", spec)
    except HostileFile:
        model.unlink(missing_ok=True)
        raise
    await asyncio.to_thread(recall.remember, kept, model, spec, report)
    return report


async def train_round(
    parts: Parts,
    entry: Entry,
    facts: Facts,
    round: Round,
    deadline: float,
    *,
    unless: asyncio.Task[Any],
) -> dict[str, Any]:
    """The result of the round's training, as the worker tells it, with its `folder`.

    Args:
        deadline: unix seconds by this machine's clock.
        unless: when this ends first, the training is cancelled, which is a TrainingError.
    """
    await verified_model(parts, round.model_cid, facts.model_sha256)
    spec = _train_spec(parts, facts, round, deadline)
    # Other wishes are another training: the spec's hash is part of the job's name.
    variant = digest({name: value for name, value in spec.items() if name != "deadline"})[:8]
    try:
        current = dataclasses.replace(entry, round=round)
        job = await _submitted(parts, current, "train", spec, variant)
        return await _trained(parts, current, facts, job, unless)
    except DecloudError:
        parts.prepared.clear()  # whatever it was, the data is looked at anew before the next join
        raise


async def _trained(
    parts: Parts, entry: Entry, facts: Facts, job: Job, unless: asyncio.Task[Any]
) -> dict[str, Any]:
    """The training's result, while its commits go where they are wanted."""
    commits = wanted(parts.plan.commits, facts)
    if commits is None:
        return _bounded(parts, await _ended(parts, entry, job, unless))
    passing = Passing(job.folder / CHAIN, commits["store"], _run_metrics(entry.key))
    async with passing_on(passing):
        result = _bounded(parts, await _ended(parts, entry, job, unless))
    if passing.trouble:
        await asyncio.to_thread(note, job.folder / RECORD, passing.trouble)
    told = {"store": passing.url, "committed": passing.committed, "trouble": passing.trouble}
    return {**result, "commits": told}


def _bounded(parts: Parts, result: dict[str, Any]) -> dict[str, Any]:
    """The result, whose artefact isn't larger than that of any model that is taken. Nobody's
    child is to have the daemon publish whatever fills its disk."""
    size = Path(result["folder"], result["artifact"]).stat().st_size
    # Models in half precision have gradients in float32.
    if size > 2 * parts.max_model_bytes:
        raise TrainingError(
            f"the training's artefact has {size:,} bytes, more than any model's gradients",
            hint="its job's folder has the log; nothing was uploaded",
        )
    return result


def _run_metrics(key: RowKey) -> dict[str, float]:
    """What tells a round's versions from others in the same chain."""
    return {"round": float(key.round_id)}


async def discard_chains(parts: Parts, entry: Entry) -> None:
    """Remove the chains of a round that is over."""
    if parts.jobs_dir is not None:
        commits = wanted(parts.plan.commits, entry.facts) or {}
        url, told = commits.get("store", ""), _run_metrics(entry.key)
        await asyncio.to_thread(discard, parts.jobs_dir, prefix(entry.key), url, told)


async def _run(parts: Parts, entry: Entry, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """One job of the round, to its end. Raises what the child raised."""
    return await _ended(parts, entry, await _submitted(parts, entry, kind, spec))


async def _submitted(
    parts: Parts, entry: Entry, kind: str, spec: Mapping[str, Any], variant: str = ""
) -> Job:
    """The job, at work or waiting for its turn. One that was done before is not done again; one
    that failed before is tried under a new name."""
    job_id = await _free_name(parts, "-".join(filter(None, (prefix(entry.key), kind, variant))))
    deadline = spec.get("deadline")
    return await parts.jobs.submit(
        job_id, kind, spec, kill_after=None if deadline is None else deadline + GRACE_S
    )


async def _ended(
    parts: Parts, entry: Entry, job: Job, unless: asyncio.Task[Any] | None = None
) -> dict[str, Any]:
    """The job's result, with its `folder`; raises what the child raised. It is cancelled when
    `unless` ends first."""
    job_id, kind = job.id, job.kind
    waiting = asyncio.create_task(parts.jobs.wait(job_id))
    reporting = asyncio.create_task(_report(parts, entry, job_id))
    try:
        if unless is not None:
            await asyncio.wait({waiting, unless}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                await parts.jobs.cancel(job_id)
        job = await waiting
    finally:
        for task in (waiting, reporting):
            task.cancel()
        await asyncio.gather(waiting, reporting, return_exceptions=True)
    if job.result is not None:
        return {**job.result, "folder": str(job.folder)}
    if job.error is None:
        raise TrainingError(f"the {kind} job of round {entry.key.round_id} was cancelled")
    raise job.error.exception()


async def _free_name(parts: Parts, name: str) -> str:
    """The name itself, or with the number of the first try that hasn't failed."""
    number = 1
    tried = name
    while (job := await parts.jobs.get(tried)) is not None and await asyncio.to_thread(_spent, job):
        number += 1
        tried = f"{name}-{number}"
    return tried


def _spent(job: Job) -> bool:
    """Whether a job is of no more use: it failed, or what it made has vanished."""
    made = (job.result or {}).get("artifact")
    return job.state in (JobState.FAILED, JobState.CANCELLED) or (
        made is not None and not (job.folder / made).is_file()
    )


async def _report(parts: Parts, entry: Entry, job_id: str) -> None:
    async for job in parts.jobs.watch(job_id):
        if not job.progress:
            continue
        try:
            told = Progress(entry.key.round_id, job.kind, job.progress, entry.round)
            parts.on_progress(told)
        except Exception:  # whoever shows it, say on a closed terminal, is no reason to stop
            log.exception("progress of round %s can't be shown", entry.key.round_id)
            return


def prefix(key: RowKey) -> str:
    """The start of a round's job ids: unique over clusters, programs and wallets."""
    return f"r{key.round_id}-{digest(dataclasses.asdict(key))[:12]}"


def digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _train_spec(parts: Parts, facts: Facts, round: Round, deadline: float) -> dict[str, Any]:
    plan = parts.plan
    commits = wanted(plan.commits, facts)
    extra: dict[str, Any] = {"tokenizer": plan.tokenizer} if plan.tokenizer else {}
    if commits is not None:
        extra["commits"] = {name: value for name, value in commits.items() if name != "store"}
    # The preview must be on what the validator scores: the requested dataset's test split. If
    # that isn't here (mapped data), the score stays unknown.
    requested = round.dataset.key
    previewed = facts.train_on if requested == CUSTOM else requested
    return {
        "model": {"path": str(model_path(parts, round.model_cid)), "sha256": facts.model_sha256},
        "architecture": facts.architecture,
        "classes": facts.classes,
        "data": dict(plan.data[facts.train_on]),
        "preview": dict(plan.data[previewed]) if previewed in plan.data else None,
        "epochs": facts.epochs if facts.epochs is not None else plan.epochs,
        "batch_size": plan.batch_size,
        "learning_rate": plan.learning_rate,
        "max_batches": facts.max_batches if facts.max_batches is not None else plan.max_batches,
        "seed": plan.seed,
        "strategy": dict(plan.strategy),
        "precision": plan.precision,
        "checkpoint_every_s": plan.checkpoint_every_s,
        "tensorboard": plan.tensorboard,
        "device": plan.device,
        "threads": plan.threads,
        "artifact": {"apply_scale": plan.apply_scale, "dtype": plan.dtype},
        "deadline": deadline,
        "until_improved": True,
    } | extra
