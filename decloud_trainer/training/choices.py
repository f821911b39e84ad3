"""What a run decided for itself: with these, its spec does exactly the same once more."""

from __future__ import annotations

from dataclasses import dataclass

from decloud_trainer.training.values import Json, as_json, fields, one_of, require, whole, within

PRECISIONS = ("float32", "bfloat16", "float16")
MEMORY_FORMATS = ("contiguous", "channels_last")
WEIGHTS = ("latest", "averaged")
STORED = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, slots=True)
class Choices:
    """Every adaptive choice of a run. What isn't decided yet has its default.

    Given in a `TrainSpec`, nothing is measured or decided anew: the run is a replay. It ends in the
    same bytes with an equal torch version on an equal processor.

    Attributes:
        device: where it trained, e.g. ``cuda:0``.
        threads: of the CPU.
        precision: of the forward pass.
        memory_format: of images and convolutions.
        total_steps: the schedule's horizon, in steps.
        stop_step: how many steps were trained in all.
        chosen_step: after how many of them the state was the one that was handed in.
        chosen_weights: whether that state was the weights themselves or their running mean.
        dtype: of the stored artefact; empty until it is made.
        micro_batches: (step, parts): from that step on batches were split into so many parts.
        rate_changes: (step, factor): the run went back to that step, and went on from it with
            this part of the planned rate.
    """

    device: str = "cpu"
    threads: int = 1
    precision: str = "float32"
    memory_format: str = "channels_last"
    total_steps: int = 1
    stop_step: int = 0
    chosen_step: int = 0
    chosen_weights: str = "latest"
    dtype: str = ""
    micro_batches: tuple[tuple[int, int], ...] = ()
    rate_changes: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        require(isinstance(self.device, str), f"device must be a text, not {self.device!r}")
        whole("threads", self.threads, 1, 1024)
        one_of("precision", self.precision, PRECISIONS)
        one_of("memory_format", self.memory_format, MEMORY_FORMATS)
        one_of("chosen_weights", self.chosen_weights, WEIGHTS)
        one_of("dtype", self.dtype, ("", *STORED))
        whole("total_steps", self.total_steps, 1, 10**12)
        whole("stop_step", self.stop_step, 0, 10**12)
        whole("chosen_step", self.chosen_step, 0, self.stop_step)
        for name, low, high in (("micro_batches", 1.0, 65_536.0), ("rate_changes", 0.0, 1.0)):
            changes = getattr(self, name)
            require(isinstance(changes, tuple | list), f"{name} must be a list, not {changes!r}")
            object.__setattr__(
                self, name, tuple(_change(name, each, low, high) for each in changes)
            )

    @classmethod
    def from_json(cls, data: object) -> Choices:
        return cls(**fields(cls, data))

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]

    def rate_factor(self, step: int) -> float:
        """The part of the planned rate that is left at `step`, after all changes before it."""
        factors = [factor for since, factor in self.rate_changes if since <= step]
        return factors[-1] if factors else 1.0

    def parts(self, step: int) -> int:
        """Into how many parts the batch of `step` is split."""
        parts = [each for since, each in self.micro_batches if since <= step]
        return parts[-1] if parts else 1


def _change(name: str, value: object, low: float, high: float) -> tuple[int, float]:
    pair = tuple(value) if isinstance(value, tuple | list) else ()
    require(len(pair) == 2, f"{name} holds pairs of a step and a value, not {value!r}")
    whole(f"a step of {name}", pair[0], 0, 10**12)
    within(f"a value of {name}", pair[1], low, high)
    return pair[0], pair[1]
