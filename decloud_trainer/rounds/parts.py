"""What steps work with and what they answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decloud_trainer.jobs.ports import Jobs
from decloud_trainer.rounds.entry import Entry, Facts, State
from decloud_trainer.rounds.gate import Gate
from decloud_trainer.rounds.journal import JournalThread
from decloud_trainer.rounds.model import Round
from decloud_trainer.rounds.policy import Terms
from decloud_trainer.rounds.ports import Chain, Pins, Sender
from decloud_trainer.rounds.spending import ColdStore


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How rounds are trained: plain values for the training core.

    Attributes:
        data: dataset key -> data spec (name, path, data_dir) as the worker takes it.
        apply_scale: the scoring side computes ``base + apply_scale * gradient``.
        dataset_cache_bytes: what decoded datasets may take on the disk; 0 = no limit.
        tokenizer: the folder of the tokenizer for transformers.
        strategy: how the most is made of data and time, as the training core takes it.
        precision: of the forward pass.
        checkpoint_every_s: how much work a crash may cost; 0 = all of it.
        tensorboard: whether each run's curves are written for it.
        commits: which versions of each run go to which chain: its `store`, and a `CommitPlan`'s
            values; None = none.
    """

    data: Mapping[str, Mapping[str, Any]]
    epochs: int | str
    batch_size: int
    learning_rate: float
    max_batches: int
    seed: int
    device: str
    threads: int
    apply_scale: float
    dtype: str
    dataset_cache_bytes: int = 0
    tokenizer: str | None = None
    strategy: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    checkpoint_every_s: float = 30.0
    tensorboard: bool = False
    commits: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running child reports, passed on to whoever watches.

    Attributes:
        kind: of its job.
        round: as it was when the job began, if that is known.
    """

    round_id: int
    kind: str
    values: Mapping[str, Any]
    round: Round | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """All that the steps work with.

    Attributes:
        max_cached_bytes: what models may take on the disk that no round in work needs.
        clock: unix seconds of the chain, which its deadlines are in.
        to_local: from the chain's time to this machine's.
        cold: where what exceeds the float goes; None: it stays.
        jobs_dir: where the jobs' folders are; None: what trainings leave there stays.
        prepared: reports of data that was found ready, by the digest of what was wanted.
    """

    chain: Chain
    sender: Sender
    pins: Pins
    jobs: Jobs
    journal: JournalThread
    terms: Terms
    plan: TrainingPlan
    models_dir: Path
    max_model_bytes: int
    clock: Callable[[], float]
    to_local: Callable[[float], float]
    on_progress: Callable[[Progress], None]
    gate: Gate = field(default_factory=Gate)
    prepared: dict[str, dict[str, Any]] = field(default_factory=dict)
    max_cached_bytes: int = 2 * 10**9
    cold: ColdStore | None = None
    jobs_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """The row goes to another state. Its next step waits for `pause_s`, or for a change."""

    state: State
    reason: str
    facts: Facts
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wait:
    """The row stays. Its step runs again after `seconds`, or when the round changes."""

    reason: str
    seconds: float
    facts: Facts


Result = Move | Wait
Step = Callable[[Parts, Entry], Awaitable[Result]]
