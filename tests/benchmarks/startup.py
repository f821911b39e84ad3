"""What every command costs before it does anything."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

TURNS = 7


def whole_process(words: list[str], home: str) -> tuple[float, float]:
    """Seconds and peak memory (MB) of a Python process."""
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "DECLOUD_HOME": home},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, words
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def measure() -> None:
    """Commands of a home with a wallet in it, beside what Python and torch cost."""
    command = ["-m", "decloud_trainer"]
    cases = {
        "python, nothing (reference)": ["-c", "pass"],
        "decloud-trainer --help": [*command, "--help"],
        "decloud-trainer config --show": [*command, "config", "--show"],
        "decloud-trainer status": [*command, "status"],
        "decloud-trainer localnet --help": [*command, "localnet", "--help"],
        "import torch": ["-c", "import torch"],
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as home:
        whole_process([*command, "wallet", "new"], home)
        for turn in range(TURNS + 1):
            for name, words in cases.items():
                figures = whole_process(words, home)
                if turn:  # the first one warms the file cache
                    taken[name].append(figures)
    print("start-up (whole process, medians)")
    reference = statistics.median(seconds for seconds, _ in taken["python, nothing (reference)"])
    for name, runs in taken.items():
        seconds = statistics.median(seconds for seconds, _ in runs)
        memory = statistics.median(memory for _, memory in runs)
        print(f"  {name:<32} {seconds:6.3f} s  x{seconds / reference:5.1f}  {memory:6.0f} MB")
