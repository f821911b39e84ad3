"""A training's figures as people see them while it runs, on wide and on narrow terminals."""

from __future__ import annotations

import pytest

from decloud_trainer.cli.live import progress_line, progress_text

VALUES = {
    "stage": "train",
    "epoch": 1,
    "epochs": 12,
    "batch": 120,
    "batches": 469,
    "loss": 0.41234,
    "accuracy": 88.12,
    "samples_per_s": 2310.4,
    "eta_s": 247.9,
    "learning_rate": 0.001,
    "memory_bytes": 850_400_000,
}


def test_all_figures_are_told() -> None:
    """Epoch, batch, loss, accuracy, speed, time left and memory, each with its unit."""
    assert progress_text(VALUES) == (
        "epoch 1/12, batch 120/469, loss 0.412, acc 88.1 %, 2310/s, 4m 7s left, 850 MB"
    )
    assert progress_text({"stage": "preview"}) == "preview"


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (99, "round #7: " + progress_text(VALUES)),
        (79, "round #7: 1/12, 120/469, 0.412, 88.1 %, 2310/s, 4m 7s, 850 MB"),
        (59, "round #7: 1/12, 120/469, 0.412, 88.1 %, 2310/s, 4m 7s"),
        (24, "round #7: 1/12, 120/469"),
        (8, "round #7"),
    ],
)
def test_a_narrow_line_has_fewer_words_and_then_fewer_figures(width: int, line: str) -> None:
    """It never wraps, so that it can be drawn again in its place; no figure is cut in two."""
    assert progress_line("round #7: ", VALUES, width) == line
    assert len(line) <= width
