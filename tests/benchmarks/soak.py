"""``make soak``: one daemon through thousands of rounds; its memory and open files. Run by hand.

python -m tests.benchmarks.soak --rounds 2000 --worker scripted

The local network's people act as soon as they can, so that months of rounds pass in minutes. At
the end everything is counted on chain, as in ``make chaos``.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import chaosworld
from chaosworld import Chaos, Life, chaos, finish

CHUNK = 8
# The start's imports and first uses aren't the slope of months.
WARM_PART = 0.2


class Samples:
    """Resident memory and open files of a daemon, over the time."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, float, int]] = []

    def take(self, life: Life) -> None:
        process = Path(f"/proc/{life.pid}")
        pages = int((process / "statm").read_text("ascii").split()[1])
        megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        self.taken.append((time.monotonic(), megabytes, len(list((process / "fd").iterdir()))))

    def slope_mb_per_hour(self) -> float:
        """The straight line through the memory after the start, by least squares."""
        warm = self.taken[int(len(self.taken) * WARM_PART) :]
        mean_t = sum(at for at, _, _ in warm) / len(warm)
        mean_m = sum(memory for _, memory, _ in warm) / len(warm)
        spread = sum((at - mean_t) ** 2 for at, _, _ in warm)
        if spread == 0:
            return 0.0
        return sum((at - mean_t) * (memory - mean_m) for at, memory, _ in warm) / spread * 3600


async def play(world: Chaos, rounds: int) -> Samples:
    life = world.life("soak", lambda _: "")
    samples = Samples()
    await world.start()
    done: list[int] = []
    while len(done) < rounds:
        chunk = [world.post() for _ in range(min(CHUNK, rounds - len(done)))]
        for number in chunk:
            world.take(number)
        for number in chunk:
            await world.all_joined(number)
            world.net.start_training(number)
            await world.all_submitted(number)
            world.complete(number)
        for number in chunk:
            await world.all_claimed(number)
        done += chunk
        for person in (world.net.creator, world.net.validator):
            world.net.ledger.airdrop(person.pubkey(), 10 * chaosworld.SOL)
        samples.take(life)
        sys.stderr.write(f"{len(done)} rounds, {samples.taken[-1][1]:.1f} MB\n")
    await finish(world, *done)
    return samples


async def soak(rounds: int, worker: str) -> Samples:
    with tempfile.TemporaryDirectory(prefix="decloud-soak-") as folder:
        async with chaos(Path(folder), worker=worker) as world:
            return await play(world, rounds)


def measure(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--worker", choices=("scripted", "torch"), default="scripted")
    asked = parser.parse_args(arguments)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    began = time.monotonic()
    samples = asyncio.run(soak(asked.rounds, asked.worker))
    files = [count for _, _, count in samples.taken]
    memory = [megabytes for _, megabytes, _ in samples.taken]
    print(
        f"{asked.worker} worker: {asked.rounds} rounds in {time.monotonic() - began:.0f} s, all "
        f"claimed, once; memory {memory[0]:.1f} MB after the first {CHUNK}, {memory[-1]:.1f} MB at "
        f"the end, slope {samples.slope_mb_per_hour():.2f} MB per hour; "
        f"open files {min(files)} to {max(files)}, {files[-1]} at the end"
    )


if __name__ == "__main__":
    measure(sys.argv[1:])
