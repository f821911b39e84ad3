"""How a run gets the most out of its data and time, as a frozen value; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass

from decloud_trainer.training.values import Json, as_json, fields, one_of, require, whole, within

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "triangular", "trapezoidal")
AVERAGINGS = ("none", "ema")
AUGMENTS = ("none", "light")


@dataclass(frozen=True, slots=True)
class Strategy:
    """Everything about a run's training that isn't its data, its length or its peak rate.

    Attributes:
        optimizer: ``sgd`` has Nesterov momentum of 0.9.
        schedule: what becomes of the rate after the warm-up; see `schedule.rate`.
        warmup: the part of all steps in which the rate rises to its peak, 0 to 0.5.
        averaging: ``ema`` scores and hands in a running mean of the weights; see `averaging`.
        label_smoothing: the share of each label that is spread over all classes, 0 to 0.5.
        augment: ``light`` = small changes that the data's classes survive; see `augment`.
        weight_decay: the optimiser's.
        clip_norm: gradients are scaled down to this norm; 0 = never.
        validation: the part of the training data that is held out to choose the best state and to
            end a run early, 0 to 0.5; 0 = none.
        patience: epochs without a better validation after which a run ends; 0 = it never ends so.

    Raises:
        SettingsError: a value is of the wrong kind, or out of its range.
    """

    optimizer: str = "adam"
    schedule: str = "trapezoidal"
    warmup: float = 0.05
    averaging: str = "ema"
    label_smoothing: float = 0.1
    augment: str = "none"
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    validation: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("averaging", self.averaging, AVERAGINGS)
        one_of("augment", self.augment, AUGMENTS)
        for name, high in (
            ("warmup", 0.5),
            ("label_smoothing", 0.5),
            ("weight_decay", 1.0),
            ("clip_norm", 1e6),
            ("validation", 0.5),
        ):
            object.__setattr__(self, name, within(name, getattr(self, name), 0.0, high))
        whole("patience", self.patience, 0, 100_000)
        require(
            not self.patience or self.validation > 0,
            "patience needs data to judge by: hold a part out for validation (validation_split)",
        )

    @classmethod
    def plain(cls) -> Strategy:
        """Adam at a constant rate and nothing else: what every other strategy is measured by."""
        return cls(
            optimizer="adam",
            schedule="constant",
            warmup=0.0,
            averaging="none",
            label_smoothing=0.0,
            augment="none",
            weight_decay=0.0,
            clip_norm=0.0,
            validation=0.0,
            patience=0,
        )

    @classmethod
    def from_json(cls, data: object) -> Strategy:
        return cls(**fields(cls, data))

    def to_json(self) -> Json:
        return as_json(self)  # type: ignore[no-any-return]
