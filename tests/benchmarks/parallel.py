"""Two rounds at once beside one after the other, on a local network with real trainings.

Alone: python -m tests.benchmarks.parallel
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent.parent))

from solders.keypair import Keypair
from terminal import local_network, running

from decloud_trainer.localnet.remote import airdrop

TURNS = 3
ROUNDS = 2
# Long enough that not only the start of the processes is measured.
EPOCHS = 15


def seconds(at_once: int, cache: Path) -> float:
    """From the first join to the last submission, with at most so many rounds at a time."""
    options = ("--rounds", str(ROUNDS), "--competitors", "none")
    with tempfile.TemporaryDirectory() as folder:
        # The cache knows the model from the first turn on, as on any machine in use.
        own = {"HOME": folder, "DECLOUD_HOME": folder, "XDG_CACHE_HOME": str(cache)}
        with patch.dict(os.environ, own), local_network(*options) as network:
            _configure(Path(folder), network, at_once)
            with running("start", "--json", "--max-rounds", str(ROUNDS)) as daemon:
                joined, submitted = [], []
                while len(submitted) < ROUNDS:
                    told = daemon.line()
                    if not told.get("moved"):
                        continue
                    assert told["state"] not in ("failed", "skipped", "lost"), told
                    if told["state"] == "joined":
                        joined.append(told["at"])
                    elif told["state"] == "submitted":
                        submitted.append(told["at"])
                daemon.end(signal.SIGINT)
    return max(submitted) - min(joined)


def _configure(home: Path, network: dict[str, Any], at_once: int) -> None:
    keypair = Keypair()
    for name, values in (
        ("id.json", list(bytes(keypair))),
        (
            "config.json",
            {
                "network": "localnet",
                "rpc_url": network["rpc_url"],
                "ws_url": network["ws_url"],
                "gateways": [network["gateway_url"]],
                "pinata_api_url": network["pin_api_url"],
                "pinata_upload_url": network["pin_upload_url"],
                "pinata_jwt": network["pin_jwt"],
                "keypair_path": str(home / "id.json"),
                "dataset_mappings": {"custom": "digits"},
                "epochs": EPOCHS,
                "max_concurrent_rounds": at_once,
            },
        ),
    ):
        (home / name).touch(0o600)
        (home / name).write_text(json.dumps(values))
    airdrop(network["rpc_url"], str(keypair.pubkey()), 10**9)


def measure() -> None:
    """Both ways in turn; one turn in advance, in which the machine gets to know the model."""
    taken: dict[int, list[float]] = {1: [], ROUNDS: []}
    with tempfile.TemporaryDirectory() as cache:
        seconds(1, Path(cache))
        for _ in range(TURNS):
            for at_once, times in taken.items():
                times.append(seconds(at_once, Path(cache)))
                print(f"  {at_once} at a time: {times[-1]:.1f} s", flush=True)
    print(f"{ROUNDS} rounds of {EPOCHS} epochs of digits, first join to last submission")
    for at_once, times in taken.items():
        each = ", ".join(f"{time:.1f}" for time in times)
        print(f"  at most {at_once} at a time  {statistics.median(times):6.1f} s   ({each})")
    ratio = statistics.median(a / b for a, b in zip(*taken.values(), strict=True))
    print(f"  one after the other takes {ratio:.2f} times as long")


if __name__ == "__main__":
    measure()
