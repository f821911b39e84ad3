"""The flight recorder: all that happened with one round, in one file, without secrets.

It is drawn from what is durable anyway (the journal, the jobs, the training's record, the log),
so there is no second log that could disagree, and a crash loses none of it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from decloud_trainer import __version__
from decloud_trainer.errors import CorruptionError, DecloudError
from decloud_trainer.files import open_plain
from decloud_trainer.jobs.model import Job
from decloud_trainer.jobs.store import JobStore
from decloud_trainer.masking import masked, without
from decloud_trainer.rounds import intents
from decloud_trainer.rounds.entry import Entry, SentIntent
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.journal_rows import round_json
from decloud_trainer.rounds.training_jobs import prefix
from decloud_trainer.training import record as run_record

FORMAT: Final = 1
# Of a job's own log, and of the daemon's lines about the round, the latest.
MAX_LOG_LINES: Final = 500
_MAX_LOG_BYTES: Final = 8_000_000
_LOG: Final = "worker.log"
# Keys of values that are public though they look like keys.
_PUBLIC_NAMES: Final = frozenset(
    {"signature", "sha256", "model_sha256", "artifact_sha256", "fingerprint"}
)
_PUBLIC: Final = re.compile(r"[0-9a-f]{64}|[1-9A-HJ-NP-Za-km-z]{80,90}")


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """Where the recorder looks.

    Attributes:
        jobs_dir: the folder of the jobs' folders.
        logs: the daemon's log files, the oldest first.
        secrets: texts that must not stand in what it writes.
    """

    jobs_path: Path
    jobs_dir: Path
    logs: Sequence[Path]
    secrets: Sequence[str]


def recorded(journal: Journal, entry: Entry, places: Places) -> dict[str, Any]:
    """Everything about the entry's round, as JSON.

    Times are unix seconds of the chain, and of this machine in jobs and logs. Signed transactions
    are told by their signatures alone.

    Raises:
        DecloudError: journal or jobs can't be read.
    """
    jobs = list(_jobs(entry, places))
    found = {
        "format": FORMAT,
        "program_version": __version__,
        "written_at": round(time.time(), 3),
        "round": entry.key.round_id,
        "network_genesis": entry.key.genesis,
        "program": entry.key.program,
        "wallet": entry.key.wallet,
        "state": entry.state.value,
        "reason": entry.reason,
        "first_seen_at": entry.created_at,
        "updated_at": entry.updated_at,
        "failures_in_a_row": entry.failures,
        "as_last_seen_on_chain": json.loads(round_json(entry.round)) if entry.round else None,
        "facts": _facts(entry),
        "events": [
            {
                "at": event.at,
                "kind": event.kind,
                "from": event.from_state,
                "to": event.to_state,
                "text": event.text,
            }
            for event in journal.events(entry)
        ],
        "transactions": [_transaction(sent) for sent in intents.sent(journal, entry)],
        "jobs": jobs,
        "log": _log_lines(entry.key.round_id, places),
    }
    shown: dict[str, Any] = cleaned(found, places.secrets)
    return shown


def _facts(entry: Entry) -> dict[str, Any]:
    """What is known, without what isn't."""
    facts = dataclasses.asdict(entry.facts)
    return {name: value for name, value in facts.items() if value not in (None, "", False)}


def _transaction(sent: SentIntent) -> dict[str, Any]:
    outcome = sent.outcome
    return {
        "kind": sent.intent.action.kind.value,
        "signature": sent.intent.signature,
        "signed_at": sent.created_at,
        "last_valid_height": sent.intent.last_valid_height,
        "outcome": outcome.state.value if outcome else "open",
        "slot": outcome.slot if outcome else None,
        "fee_lamports": outcome.fee_lamports if outcome else None,
        "wallet_change_lamports": outcome.wallet_change_lamports if outcome else None,
        "error": outcome.error if outcome else "",
        "error_name": outcome.error_name if outcome else "",
        "error_number": outcome.error_number if outcome else None,
    }


def _jobs(entry: Entry, places: Places) -> Iterator[dict[str, Any]]:
    if not places.jobs_path.exists():
        return
    store = JobStore(places.jobs_path, places.jobs_dir)
    store.open()
    try:
        for job in store.of(prefix(entry.key)):
            yield {
                "id": job.id,
                "kind": job.kind,
                "state": job.state.value,
                "attempts": job.attempts,
                "spec": dict(job.spec),
                "progress": dict(job.progress) if job.progress else None,
                "result": dict(job.result) if job.result else None,
                "error": dataclasses.asdict(job.error) if job.error else None,
                "events": [_plain(event) for event in store.events(job.id)],
                "run": _run(job),
                "log": _tail(job.folder / _LOG),
            }
    finally:
        store.close()


def _plain(event: Any) -> dict[str, Any]:
    found = dataclasses.asdict(event)
    return {name: getattr(value, "value", value) for name, value in found.items()}


def _run(job: Job) -> Any:
    """The record that a training leaves; None without one, a sentence for one that is damaged."""
    try:
        return json.loads(run_record.content(job.folder / run_record.RECORD))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, CorruptionError) as error:
        return f"{run_record.RECORD} can't be read: {error}"


def _tail(path: Path) -> list[str]:
    return _lines(path)[-MAX_LOG_LINES:]


def _log_lines(round_id: int, places: Places) -> list[str]:
    """The daemon's lines that name the round, or a job of its."""
    names = re.compile(rf"(?<![a-z])round[ _#]+{round_id}\b|\br{round_id}-|\"round\": {round_id}\b")
    found = [line for path in places.logs for line in _lines(path.resolve()) if names.search(line)]
    return found[-MAX_LOG_LINES:]


def _lines(path: Path) -> list[str]:
    """Of the file's last bytes; empty where there is none. A job's child can write to its log's
    folder."""
    try:
        with open_plain(path) as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _MAX_LOG_BYTES, 0))
            text = file.read(_MAX_LOG_BYTES).decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()


def cleaned(value: Any, secrets: Sequence[str]) -> Any:
    """The value with all its texts free of the secrets, of URLs' paths, and of whatever looks
    like a key. Digests and signatures look like keys, too: those stay that stand under such a
    name somewhere in the value."""
    public = sorted(_public(value), key=len, reverse=True)
    names = re.compile("|".join(map(re.escape, public))) if public else None
    return _cleaned(value, secrets, names)


def _public(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, str) and name in _PUBLIC_NAMES and _PUBLIC.fullmatch(value):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _public(one, str(key))
    elif isinstance(value, list):
        for one in value:
            yield from _public(one, name)


def _cleaned(value: Any, secrets: Sequence[str], names: re.Pattern[str] | None) -> Any:
    if isinstance(value, str):
        return _clean(value, secrets, names)
    if isinstance(value, dict):
        return {
            _clean(str(key), secrets, names): _cleaned(one, secrets, names)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_cleaned(one, secrets, names) for one in value]
    return value


def _clean(text: str, secrets: Sequence[str], names: re.Pattern[str] | None) -> str:
    text = without(text, secrets)
    if names is None:
        return masked(text)
    kept = [*names.findall(text), ""]
    pairs = zip(names.split(text), kept, strict=True)
    return "".join(f"{masked(part)}{name}" for part, name in pairs)


def written(record: dict[str, Any]) -> bytes:
    """The file: JSON, indented for people."""
    try:
        return json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise DecloudError(f"the record can't be written as JSON: {error}") from error
