"""Tuning: the fastest way is measured once, remembered, and never slower than the plain one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from decloud_trainer.errors import SettingsError
from decloud_trainer.training import device as devices
from decloud_trainer.training import tuning
from decloud_trainer.training.device import Device, choose_device
from decloud_trainer.training.limits import threads_each, usable_processors
from decloud_trainer.training.networks import Architecture
from decloud_trainer.training.tuning import Tuning, measure, tune

SIMPLE = Architecture("simple_cnn", 10)
CPU = Device("cpu", None, 2)
FAST = Tuning("bfloat16", "channels_last", 2, 2.0)


def weights(architecture: Architecture = SIMPLE) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {key: torch.randn(shape) * 0.05 for key, shape in architecture.shapes().items()}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors, and nobody else on them."""
    monkeypatch.setattr(tuning, "usable_processors", lambda: 2)
    monkeypatch.setattr(tuning, "_others", lambda: 0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes that were measured; a measurement costs nothing here."""
    sizes: list[int] = []

    def note(*args: object, free_threads: bool) -> Tuning:
        sizes.append(int(str(args[3])))
        return replace(FAST, threads=2 if free_threads else 1)

    monkeypatch.setattr(tuning, "measure", note)
    monkeypatch.setattr(tuning._Bench, "_step", lambda bench, way, clock: 1.0)
    return sizes


def test_a_measurement_leaves_everything_as_it_was() -> None:
    """It ends with a way that the device has; weights, random numbers and threads stay."""
    given = weights()
    before = {key: value.clone() for key, value in given.items()}
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    found = measure(SIMPLE, given, CPU, 8, free_threads=True)
    assert found.precision in ("float32", "bfloat16")
    assert found.gain >= 1.0
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(given[key], before[key]) for key in given)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ({"channels_last": 0.5, "bfloat16": 0.5, "one": 2.0}, ("bfloat16", "channels_last", 2)),
        ({"channels_last": 2.0, "bfloat16": 0.5, "one": 0.6}, ("bfloat16", "contiguous", 1)),
        ({"channels_last": 0.5, "bfloat16": 50.0, "one": 1.0}, ("float32", "channels_last", 2)),
        ({"channels_last": 0.99, "bfloat16": 0.97, "one": 0.98}, ("float32", "contiguous", 2)),
    ],
)
def test_only_what_is_clearly_faster_is_taken(
    factors: dict[str, float], expected: tuple[str, str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change is kept if it pays; a tie, or a loss, stays with what is safe."""

    def seconds(bench: object, way: tuning._Way, clock: object) -> float:
        taken = factors["channels_last"] if way.memory_format == "channels_last" else 1.0
        taken *= factors["bfloat16"] if way.precision == "bfloat16" else 1.0
        return taken * (factors["one"] if way.threads == 1 else 1.0)

    monkeypatch.setattr(tuning._Bench, "_step", seconds)
    monkeypatch.setattr(tuning, "TURNS_S", 0.0)
    found = measure(SIMPLE, weights(), CPU, 8, free_threads=True)
    assert (found.precision, found.memory_format, found.threads) == expected
    kept = measure(SIMPLE, weights(), CPU, 8, free_threads=False)
    assert kept.threads == 2


def test_a_precision_that_fails_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that this device lacks costs no run: float32 stays."""

    def refuse(self: Device) -> object:
        if self.autocast:
            raise RuntimeError("not implemented for 'BFloat16'")
        return torch.enable_grad()

    monkeypatch.setattr(Device, "precision", refuse)
    assert measure(SIMPLE, weights(), CPU, 2, free_threads=False).precision == "float32"


def test_networks_without_images_have_no_format() -> None:
    """A table's rows have no channels; nothing is tried that has no meaning."""
    mlp = Architecture("mlp", 3, columns=4)
    assert measure(mlp, weights(mlp), CPU, 8, free_threads=False).memory_format == "contiguous"


def test_a_measurement_is_made_once(asked: list[int], tmp_path: Path) -> None:
    """The second run on this machine reads; another batch size or thread count asks again."""
    for _ in range(2):
        assert tune(SIMPLE, weights(), CPU, 32, tmp_path) == FAST
    assert asked == [32]
    tune(SIMPLE, weights(), CPU, 64, tmp_path)
    assert tune(SIMPLE, weights(), CPU, 32, tmp_path, threads=2).threads == 1
    tune(Architecture("simple_cnn", 100), weights(), CPU, 32, tmp_path)
    assert asked == [32, 64, 32, 32]


def test_threads_that_wait_for_each_other_are_left_out(
    asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where other programs want the cores today, a run takes one thread, and the next one looks
    again; a number that the user chose stays."""
    tune(SIMPLE, weights(), CPU, 32, tmp_path)
    tune(SIMPLE, weights(), CPU, 32, tmp_path, threads=2)
    calm, busy = (lambda b, way, c: 2.0 / way.threads), (lambda b, way, c: float(way.threads))
    for step, threads in ((busy, 1), (calm, 2)):
        monkeypatch.setattr(tuning._Bench, "_step", step)
        assert tune(SIMPLE, weights(), CPU, 32, tmp_path).threads == threads
    assert asked == [32, 32]
    monkeypatch.setattr(tuning, "_others", lambda: 1)
    assert tune(SIMPLE, weights(), CPU, 32, tmp_path).threads == 1


def test_a_busy_machine_is_asked_again_soon(
    asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured beside other programs holds for an hour, otherwise for a month."""
    for load, seconds, measured in ((0.0, 7_200.0, 0), (1e6, 7_200.0, 1), (0.0, 32 * 86_400.0, 1)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, load, load))
        folder = tmp_path / f"{load}-{seconds}"
        asked.clear()
        tune(SIMPLE, weights(), CPU, 32, folder, now=lambda: 0.0)
        tune(SIMPLE, weights(), CPU, 32, folder, now=lambda seconds=seconds: seconds)
        assert len(asked) == 1 + measured


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"a": {"tuning": {}, "until": 1}}', b"\xff"])
def test_a_damaged_memory_is_measured_anew(
    content: bytes, asked: list[int], tmp_path: Path
) -> None:
    """It is a cache: whatever stands in it, training begins."""
    (tmp_path / tuning.FILE).write_bytes(content)
    for _ in range(2):
        assert tune(SIMPLE, weights(), CPU, 32, tmp_path) == FAST
    assert asked == [32]


def test_the_outcome_goes_into_the_device() -> None:
    """Applied, it sets precision, format and torch's threads; what isn't there is refused."""
    before = torch.get_num_threads()
    try:
        device = replace(FAST, threads=1).applied(CPU)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert (device.precision_name, device.memory_format, device.threads) == (
        "bfloat16",
        "channels_last",
        1,
    )
    assert device.layout is torch.channels_last
    with pytest.raises(SettingsError, match="float64"):
        CPU.using("float64")


def test_graphics_cards_have_the_precisions_of_their_generation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """bfloat16 from Ampere on; float16, which needs scaling, is what older ones have."""
    card = Device("cuda:0", None, 1)
    for major, there in ((7, ("float32", "float16")), (8, ("float32", "bfloat16", "float16"))):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, m=major: (m, 0))
        assert devices.precisions(card) == there
    # This machine has no Apple GPU: its refusal is what an old macOS answers, too.
    assert devices.precisions(Device("mps", None, 1)) == ("float32",)


def test_a_run_begins_in_float32() -> None:
    """Nothing shorter is used before it was measured or asked for."""
    device = choose_device("cpu", 1)
    assert (device.autocast, device.precision_name) == (None, "float32")


def test_parallel_trainings_share_the_processors() -> None:
    """One alone chooses its threads; several get equal shares, one thread at least."""
    assert threads_each(1) == 0
    assert usable_processors() >= 1
    assert threads_each(2) == max(1, usable_processors() // 2)
    assert threads_each(1000) == 1
