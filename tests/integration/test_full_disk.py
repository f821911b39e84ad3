"""A home whose file system has no byte left, for real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "fulldisk.py"
REFUSED = 77


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system as Linux does")
def test_a_full_file_system_stops_and_spoils_nothing(tmp_path: Path) -> None:
    """Full at the start, in mid-training and before the reward: a start says so in a sentence, a
    running daemon waits, and it all goes on when there is room; nothing is sent twice or lost."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    if done.returncode == REFUSED:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
