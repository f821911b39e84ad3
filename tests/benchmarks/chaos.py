"""``make chaos``: daemons killed at random points, by the thousand. Run by hand.

python -m tests.benchmarks.chaos --seeds 1000 --worker scripted

Each seed is a wallet with a home, whose daemon is killed three times on its way through two
rounds: one from posting to reward, one that another machine has joined. Batches share a local
network with its real on-chain program. Afterwards everything is counted on chain, in what was
sent and in what was paid; see tests/chaosworld.py. Ctrl-C ends it with the table so far, and with
the seed to go on with (``--first``).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import chaosworld
from chaosworld import chaos, random_life, two_rounds

# Nobody waits for it: a machine that is busy with other things is no fault.
PATIENCE_S = 900.0


async def batch(seeds: range, worker: str) -> tuple[Counter[str], str]:
    """The points at which these lives were struck, and what was wrong; empty if nothing."""
    with tempfile.TemporaryDirectory(prefix="decloud-chaos-") as folder:
        async with chaos(Path(folder), worker=worker) as world:
            for seed in seeds:
                random_life(world, seed)
            try:
                await two_rounds(world)
                wrong = ""
            except AssertionError as error:
                wrong = str(error)
            except TimeoutError:
                wrong = "a daemon didn't end"
            return Counter(point for life in world.lives for point in life.struck), wrong


def measure(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.chaos")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--worker", choices=("scripted", "torch"), default="scripted")
    parser.add_argument("--batch", type=int, default=25)
    asked = parser.parse_args(arguments)
    chaosworld.PATIENCE_S = PATIENCE_S
    # Clients that were killed leave the local network's servers in the middle of an answer.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    began = time.monotonic()
    kills: dict[str, Counter[str]] = {"intact": Counter(), "broken": Counter()}
    broken = 0
    start, last = asked.first, asked.first + asked.seeds
    try:
        while start < last:
            seeds = range(start, min(start + asked.batch, last))
            struck, wrong = asyncio.run(batch(seeds, asked.worker))
            kills["broken" if wrong else "intact"] += struck
            broken += len(seeds) if wrong else 0
            sys.stderr.write(f"seeds {seeds.start} to {seeds.stop - 1}: {wrong or 'intact'}\n")
            start = seeds.stop
    except KeyboardInterrupt:
        sys.stderr.write(f"broken off; go on with --first {start}\n")
    points = sorted(set(kills["intact"]) | set(kills["broken"]))
    print(f"{'fault point':<36}{'kills':>8}{'of them in a batch that was not intact':>42}")
    for point in points:
        total = kills["intact"][point] + kills["broken"][point]
        print(f"{point:<36}{total:>8}{kills['broken'][point]:>42}")
    done, total = start - asked.first, sum(sum(counter.values()) for counter in kills.values())
    print(
        f"{asked.worker} worker: {done} seeds, {total} kills at {len(points)} points in "
        f"{time.monotonic() - began:.0f} s; {broken} seeds in batches with anything sent twice, "
        "unclaimed, stuck or left behind"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(measure(sys.argv[1:]))
