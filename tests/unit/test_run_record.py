"""What a run's record says of its pace, and what a run leaves to the device's memory."""

from __future__ import annotations

import pytest
import torch

from decloud_trainer.training.device import Device
from decloud_trainer.training.memory import holds
from decloud_trainer.training.record import Point, slow_epochs


def curve(*seconds: float) -> list[Point]:
    """Epochs of a thousand samples that took so long."""
    ends = [sum(seconds[: number + 1]) for number in range(len(seconds))]
    return [
        Point(epoch, 10 * epoch, 1000 * epoch, 0.5, 80.0, None, 0.001, end)
        for epoch, end in enumerate(ends, 1)
    ]


def test_an_epoch_that_something_else_held_up_is_noted() -> None:
    """With its speed and the fastest one's, so that the owner knows where the time went."""
    (note,) = slow_epochs(curve(4.0, 20.0, 5.0))
    assert note.startswith("epoch 2 had 50 samples/s, the fastest one 250")


@pytest.mark.parametrize("seconds", [(), (5.0,), (4.0, 15.0), (0.1, 2.9), (0.0, 0.0)])
def test_an_even_pace_needs_no_note(seconds: tuple[float, ...]) -> None:
    """Neither do epochs that are over in a moment: their speed says nothing."""
    assert slow_epochs(curve(*seconds)) == []


def test_data_lies_on_a_gpu_if_it_leaves_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the free memory is data's; on a CPU there is nothing to decide."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 8000))
    gpu = Device("cuda:0", None, 1)
    assert holds(gpu, 1000)
    assert not holds(gpu, 1001)
    assert holds(Device("cpu", None, 1), 10**15)
