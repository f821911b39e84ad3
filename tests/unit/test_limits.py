"""How a process is made ready for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Blocks of 100 MB in all, whose pages are all written to: to have them anew is a fault for each
# page, of which there are at least 50 (huge ones).
AGAIN = """
import resource
from decloud_trainer.training import limits
{ready}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [bytearray(b"1") * 25_000_000 for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries have no such settings")
def test_memory_that_is_wanted_again_and_again_is_kept() -> None:
    def faults(ready: str) -> int:
        command = [sys.executable, "-c", AGAIN.format(ready=ready)]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    assert faults("") > 20 * 50
    assert faults("limits.ready_for_torch()") < 50
