"""Curves for TensorBoard, written beside the artefact while a run trains.

Behind the extra ``track``. Each run has its own folder, so that one TensorBoard shows them all:
``tensorboard --logdir ~/.decloud-trainer/jobs``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from decloud_trainer.errors import SettingsError
from decloud_trainer.training.record import Point
from decloud_trainer.training.results import Progress

FOLDER = "tensorboard"


def write_metrics(folder: Path, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
    """Curves of other figures: (step, name -> value) each.

    Raises:
        SettingsError: the package tensorboard isn't installed.
    """
    writer = _writer(folder)
    for step, metrics in rows:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
    writer.close()


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingsError(
            "tensorboard is not installed, but curves are wanted",
            hint='pip install "decloud-trainer[track]", or config --set tensorboard=false',
        ) from error
    return SummaryWriter(str(folder))


class Tracker:
    """Writes a run's figures; whatever is None is left out.

    Raises:
        SettingsError: the package tensorboard isn't installed.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = _writer(folder / FOLDER)

    def progress(self, steps: int, told: Progress) -> None:
        """While it trains; `steps` counts from the run's beginning."""
        self._write("batch", steps, told, ("loss", "accuracy", "samples_per_s", "learning_rate"))

    def point(self, point: Point) -> None:
        """At the end of an epoch."""
        self._write("epoch", point.steps, point, ("loss", "accuracy", "validation"))

    def preview(self, steps: int, before: float, after: float) -> None:
        """The scores that the scoring side will see, in percent."""
        self._writer.add_scalar("preview/before", before, 0)
        self._writer.add_scalar("preview/after", after, steps)

    def close(self) -> None:
        self._writer.close()

    def _write(self, group: str, steps: int, told: object, names: tuple[str, ...]) -> None:
        for name in names:
            value = getattr(told, name, None)
            if value is not None:
                self._writer.add_scalar(f"{group}/{name}", value, steps)
