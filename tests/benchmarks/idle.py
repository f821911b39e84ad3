"""What the daemon costs while it only watches: memory and processor time of its own process.

On a local network in another process, with a slot every 400 ms and nothing to join.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

COMMAND = [sys.executable, "-m", "decloud_trainer"]
NETWORK = ["localnet", "up", "--json", "--rpc-port", "0", "--pin-port", "0"]
SETTLE_S, WATCH_S, PATIENCE_S = 5.0, 60.0, 60.0


@contextlib.contextmanager
def _process(words: list[str], home: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        child = subprocess.Popen(
            [*COMMAND, *words],
            env={**os.environ, "DECLOUD_HOME": home},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(PATIENCE_S)


def _run(words: list[str], home: str) -> None:
    environment = {**os.environ, "DECLOUD_HOME": home}
    subprocess.run([*COMMAND, *words], env=environment, check=True, capture_output=True)


def _wait_for(words: str, log: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while words not in log.read_text("utf-8", "replace"):
        assert time.monotonic() < until, log.read_text("utf-8", "replace")
        time.sleep(0.1)


def _memory_mb(pid: int) -> tuple[float, float]:
    """(now, peak) resident."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")

    def field(name: str) -> float:
        found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.M)
        assert found, name
        return int(found[1]) * 1024 / 1e6

    return field("VmRSS"), field("VmHWM")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure() -> None:
    with tempfile.TemporaryDirectory() as home:
        logs = Path(home)
        _run(["wallet", "new"], home)
        with _process([*NETWORK, "--rounds", "0"], home, logs / "localnet.log"):
            _wait_for('"rpc_url"', logs / "localnet.log")
            words = ["start", "--network", "localnet", "--plain"]
            with _process(words, home, logs / "daemon.log") as daemon:
                _wait_for("Listening for rounds", logs / "daemon.log")
                time.sleep(SETTLE_S)
                began, busy = time.monotonic(), _cpu_s(daemon.pid)
                time.sleep(WATCH_S)
                share = (_cpu_s(daemon.pid) - busy) / (time.monotonic() - began)
                now_mb, peak_mb = _memory_mb(daemon.pid)
    print("the daemon, watching")
    print(f"  memory {now_mb:5.1f} MB, at most {peak_mb:5.1f} MB; {share:.2%} of a core")


if __name__ == "__main__":
    measure()
