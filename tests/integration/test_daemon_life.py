"""A round's whole life in the daemon, and what a crash at any point of it costs: nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from daemonworld import Stuck, World, a_world, hang, unrecorded
from localchain import FEE, PATIENCE_S, RENT, SOL

from decloud_trainer.ipfs.cid import Cid
from decloud_trainer.rounds import intents, ledger
from decloud_trainer.rounds.entry import State

PATH = ["seen", "watching", "fetched", "joined", "trained", "pinned"]
PATH += ["submitted", "claimable", "claimed"]
ONCE = {"JoinRound": 1, "SubmitGradients": 1, "ClaimReward": 1}


def reward_of(lamports: int, bps: int = 10_000) -> int:
    """What a share of the round pays out: less the validator's and the platform's fee."""
    share = lamports * 9 // 10 * bps // 10_000
    return share - share * 2 // 100


async def test_a_round_goes_from_posting_to_its_reward(tmp_path: Path) -> None:
    """All states in order, each transaction once, and the ledger agrees with the wallet."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        number = world.post()
        entry = await running.until(number, State.FETCHED)
        assert entry.facts.train_on == "digits"
        assert world.transactions() == {}
        world.take(number)
        await running.until(number, State.JOINED)
        world.net.start_training(number)
        entry = await running.until(number, State.SUBMITTED)
        pinned = Cid.parse(entry.facts.gradient_cid)
        assert world.store.public.get(pinned)
        assert entry.facts.improvement == 10.0
        world.complete(number)
        entry = await running.until(number, State.CLAIMED)
        assert await running.history(number) == PATH
        assert world.transactions() == ONCE
        assert world.balance() == 10 * SOL - RENT - 3 * FEE + reward_of(SOL)
        book = ledger.lines(await running.engine.parts.journal(intents.sent))
        sums = ledger.totals(book)
        assert (sums.rewards_lamports, sums.rent_lamports) == (reward_of(SOL), RENT)
        assert sums.fees_lamports == 3 * FEE
        assert sums.net_lamports == world.balance() - 10 * SOL
        assert [told.entry.state.value for told in running.told if told.moved] == PATH[1:]
        assert any(told.kind == "train" for told in running.progress)


async def act(world: World, number: int, state: State) -> None:
    """What others do before a row can leave the state."""
    if state is State.FETCHED:
        world.take(number)
    elif state is State.JOINED:
        world.net.start_training(number)
    elif state is State.SUBMITTED:
        world.complete(number)


async def test_a_restart_in_every_state_goes_on_where_it_was(tmp_path: Path) -> None:
    """Nine daemons after each other, each stopped in the middle of another step."""
    async with a_world(tmp_path) as world:
        number = world.post()
        for name in PATH[:-1]:
            state = State(name)
            async with world.daemon(steps={state: hang}) as running:
                await running.until(number, state)
                await act(world, number, state)
        async with world.daemon() as running:
            entry = await running.until(number, State.CLAIMED)
            assert await running.history(number) == PATH
            assert world.transactions() == ONCE
            assert world.balance() == 10 * SOL - RENT - 3 * FEE + reward_of(SOL)
            assert len(await running.engine.parts.journal(intents.sent, entry)) == 3


async def test_work_that_was_done_but_not_recorded_is_found_done(tmp_path: Path) -> None:
    """Each step dies after its last effect: the next daemon repeats none that costs."""
    async with a_world(tmp_path) as world:
        number = world.post()
        for name in PATH[:-1]:
            state, done = State(name), asyncio.Event()
            async with world.daemon(steps={state: unrecorded(state, done)}) as running:
                await running.until(number, state)
                await act(world, number, state)
                await asyncio.wait_for(done.wait(), PATIENCE_S)
        async with world.daemon() as running:
            await running.until(number, State.CLAIMED)
            assert await running.history(number) == PATH
            assert world.transactions() == ONCE
            assert world.balance() == 10 * SOL - RENT - 3 * FEE + reward_of(SOL)


@pytest.mark.parametrize("sent", [False, True], ids=["before sending", "after sending"])
async def test_a_crash_around_sending_moves_money_once(tmp_path: Path, sent: bool) -> None:
    """Join, submission and claim, each cut off between the record and its outcome."""
    async with a_world(tmp_path) as world:
        number = world.open()
        for kind, before in (("join", State.FETCHED), ("submit", State.PINNED)):
            await crash_at(world, kind, sent=sent)
            async with world.daemon() as running:
                after = State.JOINED if before is State.FETCHED else State.SUBMITTED
                await running.until(number, after)
                await act(world, number, after)
        await crash_at(world, "claim", sent=sent)
        async with world.daemon() as running:
            entry = await running.until(number, State.CLAIMED)
            sent = await running.engine.parts.journal(intents.sent, entry)
            assert [one.intent.action.kind.value for one in sent] == ["join", "submit", "claim"]
            assert world.transactions() == ONCE
            assert world.balance() == 10 * SOL - RENT - 3 * FEE + reward_of(SOL)


async def crash_at(world: World, kind: str, *, sent: bool) -> None:
    """A daemon that dies at that transaction."""
    stuck: list[Stuck] = []

    def wrap(real: object) -> Stuck:
        stuck.append(Stuck(real, world, kind, sent=sent))  # type: ignore[arg-type]
        return stuck[0]

    async with world.daemon(sender=wrap):
        await asyncio.wait_for(stuck[0].reached.wait(), PATIENCE_S)


async def test_the_older_program_pays_as_well(tmp_path: Path) -> None:
    """A v1.0 program has other account lists and no platform fee."""
    async with a_world(tmp_path, generation="v1.0") as world, world.daemon() as running:
        number = world.open()
        await running.until(number, State.JOINED)
        world.net.start_training(number)
        await running.until(number, State.SUBMITTED)
        world.complete(number)
        await running.until(number, State.CLAIMED)
        assert world.balance() == 10 * SOL - RENT - 3 * FEE + SOL * 9 // 10
