"""Run a command against a fresh local network without actors.

    python .ci/with_localnet.py GENERATION COMMAND [ARG ...]

appends the network's RPC and WebSocket URLs to the command and ends with its exit code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile


def main() -> int:
    generation, *command = sys.argv[1:]
    with tempfile.TemporaryDirectory() as home:
        network = subprocess.Popen(
            [
                *(sys.executable, "-m", "decloud_trainer", "localnet", "up", "--json"),
                *("--no-actors", "--rpc-port", "0", "--pin-port", "0"),
                *("--generation", generation),
            ],
            env={**os.environ, "DECLOUD_HOME": home},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert network.stdout is not None
            where = json.loads(network.stdout.readline())
            return subprocess.call([*command, where["rpc_url"], where["ws_url"]], timeout=180)
        finally:
            network.terminate()
            network.wait(30)


if __name__ == "__main__":
    sys.exit(main())
