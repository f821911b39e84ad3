"""Curves for TensorBoard, written beside the artefact while a run trains.

Behind the extra ``track``. Each run has its own folder, so that one TensorBoard shows them all:
``tensorboard --logdir ~/.decloud-trainer/jobs``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decloud_trainer.errors import SettingsError
from decloud_trainer.training.record import Point
from decloud_trainer.training.results import Progress

FOLDER = "tensorboard"


class Tracker:
    """Writes a run's figures; whatever is None is left out.

    Raises:
        SettingsError: the package tensorboard isn't installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SettingsError(
                "tensorboard is not installed, but the run's curves are wanted",
                hint='pip install "decloud-trainer[track]", or config --set tensorboard=false',
            ) from error
        self._writer: Any = SummaryWriter(str(folder / FOLDER))

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
