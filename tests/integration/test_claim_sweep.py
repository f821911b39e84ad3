"""Every submission that the key ever made is found from the chain alone, and its share claimed."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from unittest.mock import patch

from daemonworld import World, a_world
from localchain import SOL
from solders.keypair import Keypair

from decloud_trainer import config
from decloud_trainer.chain import v1
from decloud_trainer.rounds import daemon
from decloud_trainer.rounds.entry import Entry, State


async def submitted(world: World) -> int:
    """A round with a submission of the wallet's, made on another machine."""
    number = world.open()
    world.join_as(world.net.trainer, number)
    world.net.start_training(number)
    world.submit_as(world.net.trainer, number)
    return number


async def with_dust(world: World) -> tuple[int, Keypair]:
    """A completed round whose vault would keep less than its rent if we claimed first."""
    other = world.another_trainer()
    world.net.ledger.airdrop(v1.TREASURY, SOL)
    number = world.open(reward_lamports=1_900_000)
    for trainer in (world.net.trainer, other):
        world.join_as(trainer, number)
    world.net.start_training(number)
    for trainer in (world.net.trainer, other):
        world.submit_as(trainer, number)
    world.net.complete(number, [(world.net.trainer, 6000), (other, 4000)])
    return number, other


async def test_all_is_found_again_after_the_home_was_deleted(tmp_path: Path) -> None:
    """Claimed before, waiting, without a share, cancelled, not completed yet, and one whose vault
    can't pay yet: each comes to what the chain has for it, and nothing is claimed twice."""
    async with a_world(tmp_path) as world:
        async with world.daemon() as running:
            claimed = world.open()
            await running.until(claimed, State.JOINED)
            world.net.start_training(claimed)
            await running.until(claimed, State.SUBMITTED)
            world.complete(claimed)
            await running.until(claimed, State.CLAIMED)
        waiting, unpaid, aborted, later = [await submitted(world) for _ in range(4)]
        dusty, other = await with_dust(world)
        world.complete(waiting)
        world.complete(unpaid, bps=0)
        world.abort(aborted)
        world.net.settle_slots()
        shutil.rmtree(world.home)
        world.home.mkdir()
        async with world.daemon() as running:
            await running.until(waiting, State.CLAIMED)
            await running.until_reason(dusty, "the claim was refused, trying again")
            await running.until(later, State.SUBMITTED)
            world.complete(later)
            await running.until(later, State.CLAIMED)
            await running.until_reason(unpaid, "looking again")
            assert await running.entry(claimed) is None
            assert await running.entry(aborted) is None
            world.claim_as(other, dusty)
            world.warp(61)
            await running.until(dusty, State.CLAIMED)
            await running.until(unpaid, State.LOST)
        assert world.transactions()["ClaimReward"] == 4  # the refused one never left us


async def test_the_sweep_is_daily_by_the_clock(tmp_path: Path) -> None:
    """What another machine submitted meanwhile is found without a restart, a day later."""
    with patch.object(daemon, "SWEEP_LOOK_S", 0.05):
        async with a_world(tmp_path) as world, world.daemon() as running:
            known = world.open()
            await running.until(known, State.JOINED)  # so the first sweep has been
            number = await submitted(world)
            world.complete(number)
            world.net.settle_slots()
            assert not is_taken_up(await running.entry(number))
            world.warp(24 * 3600 - 60)
            assert not is_taken_up(await running.entry(number))
            world.warp(120)
            await running.until(number, State.CLAIMED)


def is_taken_up(entry: Entry | None) -> bool:
    """Does the daemon know it for a round of its own? Seen as one among others is less."""
    return entry is not None and entry.state not in (State.SEEN, State.SKIPPED)


async def claim_all(world: World, home: Path) -> tuple[int, str]:
    """What the command says in a home that knows nothing."""
    shutil.rmtree(home / "decloud", ignore_errors=True)
    keypair = home / "id.json"
    keypair.write_text(json.dumps(list(bytes(world.net.trainer))))
    keypair.chmod(0o600)
    config.update(
        {
            "network": "localnet",
            "rpc_url": world.net.endpoints.rpc_url,
            "ws_url": world.net.endpoints.ws_url,
            "keypair_path": str(keypair),
        }
    )
    words = [sys.executable, "-m", "decloud_trainer", "claim", "--all"]
    running = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=STDOUT)
    told, _ = await running.communicate()
    return running.returncode or 0, " ".join(told.decode().split())


async def test_claim_all_finds_all_and_waits_for_none(tmp_path: Path, own_home: Path) -> None:
    """With no journal at all: what can be paid is claimed, what can't is said, and later it can."""
    async with a_world(tmp_path) as world:
        dusty, other = await with_dust(world)
        waiting = await submitted(world)
        world.complete(waiting)
        world.net.settle_slots()
        code, told = await claim_all(world, own_home)
        assert code == 1, told
        assert f"round {dusty}: the reward of round {dusty} isn't claimed" in told
        assert "minimum balance" in told
        assert world.transactions()["ClaimReward"] == 1
        world.claim_as(other, dusty)
        world.net.settle_slots()
        code, told = await claim_all(world, own_home)
        assert code == 0, told
        assert world.transactions()["ClaimReward"] == 2
