"""The fastest way to train a network on this machine: measured once, and remembered.

Short measurements are noisy, so candidates take turns, and one replaces a safer one only if it was
clearly faster. On a CPU formats and precisions are compared by the processor time that they take,
which other programs' load hardly changes.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import filelock
import torch
from torch import Tensor, nn
from torch.nn import functional

from decloud_trainer import files
from decloud_trainer.errors import SettingsError
from decloud_trainer.training.device import FORMATS, PRECISIONS, Device, precisions
from decloud_trainer.training.limits import usable_processors
from decloud_trainer.training.networks import Architecture
from decloud_trainer.training.stepper import is_out_of_memory
from decloud_trainer.training.values import Json, as_json, fields, finite, one_of, whole

log = logging.getLogger(__name__)

FILE = "tuning.json"
TURNS_S = 0.4  # for the turns of two candidates
LOOK_S = 0.15  # the same, when only the threads are looked at again
STEP_S = 0.15  # for one step; larger networks are measured with fewer samples
# By how much a lower precision, another format or fewer threads must be faster to be taken.
MARGIN = 1.05
# A candidate that takes so many times as long isn't looked at any further: bfloat16 without
# instructions for it can be 50 times slower.
HOPELESS = 3.0
MAX_TURNS = 20
LOOKS, LOOKS_APART_S = 9, 0.01  # at what other programs do
LEAST_SAMPLES = 2  # batch normalisation needs as many
MAX_REMEMBERED = 200
LOCK_TIMEOUT_S = 20.0
# How long an answer is believed. One found while other programs kept the processors busy is soon
# asked for again.
KEPT_S, KEPT_WHEN_BUSY_S = 30 * 86_400.0, 3_600.0


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a network trains fastest on a device.

    Attributes:
        precision: of the forward pass: ``float32``, ``bfloat16`` or ``float16``.
        memory_format: ``contiguous`` or ``channels_last``.
        threads: of the CPU.
        gain: how many times faster than float32, contiguous, with as many threads; forward and
            backward passes alone. From less than a second: a hint, no promise.
    """

    precision: str
    memory_format: str
    threads: int
    gain: float

    def __post_init__(self) -> None:
        one_of("precision", self.precision, tuple(PRECISIONS))
        one_of("memory_format", self.memory_format, tuple(FORMATS))
        whole("threads", self.threads, 1, 1024)
        finite("gain", self.gain)

    @classmethod
    def from_json(cls, data: object) -> Tuning:
        return cls(**fields(cls, data))

    def applied(self, device: Device) -> Device:
        """The device so used. Sets torch's thread count for this process.

        Raises:
            SettingsError: it doesn't compute in that precision.
        """
        torch.set_num_threads(self.threads)
        return replace(device.using(self.precision, self.memory_format), threads=self.threads)


def tune(
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    device: Device,
    batch_size: int,
    folder: Path,
    *,
    threads: int = 0,
    now: Callable[[], float] = time.time,
) -> Tuning:
    """What is remembered in `folder` for this network, batch size and machine; or measured now.

    A measurement takes about a second; with the largest networks a dozen steps of two samples.
    `threads` 0 may end with fewer than the device's, where more don't pay; any other number is
    kept. The threads are looked at again each time, for a moment. Leaves torch's thread count as
    it found it.
    """
    key = _key(architecture, device, batch_size, threads)
    files.make_private_dir(folder)
    path = folder / FILE
    lock = filelock.FileLock(path.with_suffix(".lock"), timeout=LOCK_TIMEOUT_S)
    try:
        # Held meanwhile: two at the same time would measure each other.
        with lock:
            known = _read(path)
            if key in known and known[key].until > now():
                return _now(known[key].tuning, architecture, weights, device, batch_size, threads)
            found = measure(architecture, weights, device, batch_size, free_threads=threads == 0)
            kept_s = KEPT_WHEN_BUSY_S if _is_busy() else KEPT_S
            known.pop(key, None)
            _write(path, {**known, key: _Known(found, now() + kept_s)})
            return found
    except filelock.Timeout:
        log.warning("%s is held by another process; measuring without it", lock.lock_file)
        return measure(architecture, weights, device, batch_size, free_threads=threads == 0)


def measure(
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    device: Device,
    batch_size: int,
    *,
    free_threads: bool,
) -> Tuning:
    """Try the other format, then a lower precision in it, then fewer threads."""
    model = architecture.with_weights(weights).to(device.torch).train()
    bench = _Bench(architecture, model, device)
    before = torch.get_num_threads()
    random = torch.get_rng_state()
    is_cpu = device.torch.type == "cpu"
    work = time.process_time if is_cpu else time.perf_counter
    # With one thread: several wait for each other busily in some kernels (oneDNN's for bfloat16),
    # and their waiting looks like work.
    best = _Way("float32", "contiguous", 1 if is_cpu else device.threads)
    gain = 1.0
    try:
        bench.size_batch(best, batch_size)
        for change in _alternatives(model, device):
            other = replace(best, **change)
            ratio = bench.ratio(best, other, work, TURNS_S)
            if ratio >= MARGIN:
                best, gain = other, gain * ratio
        best = replace(best, threads=device.threads)
        if free_threads and is_cpu:
            best = bench.fewest_threads(best, TURNS_S)
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(random)
    found = Tuning(best.precision, best.memory_format, best.threads, round(gain, 2))
    log.info("tuned %s in batches of %d: %s", architecture.name, batch_size, found)
    return found


def _now(
    known: Tuning,
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    device: Device,
    batch_size: int,
    threads: int,
) -> Tuning:
    """What is known, with as many threads as pay at this moment.

    Beside other programs several threads can be twenty times slower than one, in bfloat16 above
    all: in some kernels they wait for each other busily.
    """
    if threads or known.threads == 1 or device.torch.type != "cpu":
        return known
    before, random = torch.get_num_threads(), torch.get_rng_state()
    bench = _Bench(architecture, architecture.with_weights(weights).train(), device)
    way = _Way(known.precision, known.memory_format, known.threads)
    try:
        bench.size_batch(replace(way, threads=1), batch_size)
        way = bench.fewest_threads(way, LOOK_S)
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(random)
    return replace(known, threads=way.threads)


@dataclass(frozen=True, slots=True)
class _Way:
    precision: str
    memory_format: str
    threads: int


def _alternatives(model: nn.Module, device: Device) -> list[Json]:
    """Changes to try, each on top of those that paid."""
    changes: list[Json] = []
    if any(each.dim() == 4 for each in model.parameters()):
        changes.append({"memory_format": "channels_last"})
    # float16 needs gradients to be scaled: only where there's no bfloat16, on older GPUs.
    there = precisions(device)
    lower = "bfloat16" if "bfloat16" in there else "float16"
    return [*changes, {"precision": lower}] if lower in there else changes


class _Bench:
    """Steps of one model in several ways, in turns."""

    def __init__(self, architecture: Architecture, model: nn.Module, device: Device) -> None:
        self._architecture = architecture
        self._model = model
        self._device = device
        self._batch = LEAST_SAMPLES

    def size_batch(self, way: _Way, batch_size: int) -> None:
        """As many samples as can be measured in the time; at most `batch_size`."""
        self._step(way, time.process_time)
        # Not in one leap: much of a step of few samples is for the weights alone.
        while self._batch < batch_size and self._step(way, time.process_time) < STEP_S / 2:
            self._batch = min(2 * self._batch, batch_size)

    def ratio(self, safe: _Way, other: _Way, clock: Callable[[], float], turns_s: float) -> float:
        """How many times faster `other` is, by medians; 0 if it can't be used here."""
        try:
            for way in (safe, other):  # the first step prepares kernels
                self._step(way, clock)
            taken: dict[_Way, list[float]] = {safe: [], other: []}
            ends = time.perf_counter() + turns_s
            for turn in range(MAX_TURNS):
                if turn and time.perf_counter() >= ends:
                    break
                for way, times in taken.items():
                    times.append(self._step(way, clock))
                if taken[other][0] > HOPELESS * taken[safe][0]:
                    return 0.0
        except (RuntimeError, MemoryError) as error:
            # A kernel that this device lacks, or memory. The safe way has worked before.
            if is_out_of_memory(error):
                log.info("no memory to measure %s", other)
            else:
                log.info("%s can't be used here: %s", other, error)
            return 0.0
        return statistics.median(taken[safe]) / max(statistics.median(taken[other]), 1e-9)

    def fewest_threads(self, way: _Way, turns_s: float) -> _Way:
        """No more threads than there are free processors; and half as many, and again, as long as
        that is faster at this moment."""
        way = replace(way, threads=min(way.threads, max(1, usable_processors() - _others())))
        while way.threads > 1:
            other = replace(way, threads=way.threads // 2)
            if self.ratio(way, other, time.perf_counter, turns_s) < MARGIN:
                break
            way = other
        return way

    def _step(self, way: _Way, clock: Callable[[], float]) -> float:
        """Seconds of a forward and backward pass."""
        if torch.get_num_threads() != way.threads:
            torch.set_num_threads(way.threads)
        device = self._device.using(way.precision, way.memory_format)
        inputs = self._architecture.example(self._batch).to(device.torch)
        if inputs.dim() == 4:
            self._model.to(memory_format=device.layout)
            inputs = inputs.contiguous(memory_format=device.layout)
        labels = torch.zeros(self._batch, dtype=torch.int64, device=device.torch)
        self._wait()
        began = clock()
        with device.precision():
            loss = functional.cross_entropy(self._model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self._wait()
        taken = clock() - began
        self._model.zero_grad(set_to_none=True)
        return taken

    def _wait(self) -> None:
        if self._device.torch.type == "cuda":
            torch.cuda.synchronize(self._device.torch)
        elif self._device.torch.type == "mps":
            torch.mps.synchronize()


def _key(architecture: Architecture, device: Device, batch_size: int, threads: int) -> str:
    """Everything that the answer depends on."""
    parts = {
        "network": f"{architecture.name}/{architecture.classes}/{architecture.columns}",
        "batch": batch_size,
        "device": f"{device.torch.type} {_hardware(device)}",
        "threads": f"{device.threads} {'fixed' if threads else 'free'}",
        "torch": torch.__version__,
    }
    return json.dumps(parts, sort_keys=True)


def _hardware(device: Device) -> str:
    if device.torch.type == "cuda":
        return torch.cuda.get_device_name(device.torch)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {_processor()}"


def _processor() -> str:
    """The processor's model, where the system tells: a home folder may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())[:100]


def _others() -> int:
    """How many threads of other programs want a processor at this moment; 0 where it isn't told.

    The load average won't do: it remembers the round that we have trained a minute ago.
    """
    running = []
    for _ in range(LOOKS):
        try:
            # "0.20 0.18 0.12 1/80 11206": the one that runs is this very thread.
            told = Path("/proc/loadavg").read_text("ascii").split()[3]
            running.append(int(told.partition("/")[0]) - 1)
        except (OSError, ValueError, IndexError):
            return 0
        time.sleep(LOOKS_APART_S)
    return max(0, round(statistics.median(running)))


def _is_busy() -> bool:
    """Are there more programs at work than processors?"""
    try:
        return os.getloadavg()[0] > usable_processors()
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class _Known:
    """Attributes: until: unix seconds."""

    tuning: Tuning
    until: float

    @classmethod
    def from_json(cls, data: object) -> _Known:
        values = fields(cls, data)
        return cls(Tuning.from_json(values["tuning"]), finite("until", values["until"]))


def _read(path: Path) -> dict[str, _Known]:
    """What is remembered; a file that can't be read is as good as none."""
    try:
        data = json.loads(path.read_bytes())
        return {str(key): _Known.from_json(value) for key, value in data.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, SettingsError) as error:
        log.warning("%s is measured anew: %s", path, error)
        return {}


def _write(path: Path, known: Mapping[str, _Known]) -> None:
    newest = dict(list(known.items())[-MAX_REMEMBERED:])
    data = json.dumps({key: as_json(value) for key, value in newest.items()}, indent=1)
    try:
        files.write_atomic(path, data.encode() + b"\n")
    except OSError as error:  # a full disk costs a second next time, no more
        log.warning("%s can't be written: %s", path, error.strerror)
