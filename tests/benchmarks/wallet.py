"""What opening an encrypted wallet costs, and so each guess at its passphrase.

Alone: python -m tests.benchmarks.wallet
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

TURNS = 7
OPENING = """
import json, resource, time
from decloud_trainer.chain import keystore

PASSPHRASE = "a passphrase"
sealed = keystore.parse(keystore.seal(bytes(32), "1" * 32, PASSPHRASE).decode(), "it")
began = time.process_time()
keystore.unseal(sealed, PASSPHRASE, "it")
seconds = time.process_time() - began
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
# The same process without it, for the memory.
IDLE = """
import json, resource
from decloud_trainer.chain import keystore
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
print(json.dumps([0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def _measured(code: str) -> tuple[float, float]:
    """Seconds of processor time, and the peak memory in MB of a process of its own."""
    words = [sys.executable, "-c", code]
    seconds, peak_mb = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    return seconds, peak_mb


def measure() -> None:
    opened = [_measured(OPENING) for _ in range(TURNS)]
    seconds = statistics.median(each for each, _ in opened)
    memory_mb = statistics.median(each for _, each in opened) - _measured(IDLE)[1]
    print(f"opening an encrypted wallet: {seconds:.2f} s of CPU, {memory_mb:.0f} MB (medians)")


if __name__ == "__main__":
    measure()
