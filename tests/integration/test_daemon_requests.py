"""Commands beside a running daemon: it does what they ask, or says why not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from daemonworld import a_world, answer, ask, hang
from localchain import until

from decloud_trainer.rounds import asking, daemon
from decloud_trainer.rounds.entry import RowKey, State
from decloud_trainer.rounds.journal import Journal


async def test_a_round_that_filters_refuse_is_joined_on_request(tmp_path: Path) -> None:
    """Filters and slots are for what the daemon picks by itself."""
    terms = {"min_reward_lamports": 10**12}
    async with a_world(tmp_path) as world, world.daemon(terms=terms) as running:
        numbers = [world.open(), world.open()]
        for number in numbers:
            entry = await running.until(number, State.SKIPPED)
            assert "below min_reward 1000 SOL" in entry.reason
        for number in numbers:
            assert await ask(running, "join", number) == ("taken", "")
            await running.until(number, State.JOINED)


async def test_the_whole_life_can_be_asked_for(tmp_path: Path) -> None:
    """join, train and claim, with nothing automatic."""
    terms = {"auto_train": False, "auto_claim": False, "datasets": frozenset({"mnist"})}
    async with a_world(tmp_path) as world, world.daemon(terms=terms) as running:
        number = world.open()
        assert await ask(running, "join", number) == ("taken", "")
        await running.until(number, State.JOINED)
        world.net.start_training(number)
        assert await ask(running, "train", number, epochs=3, max_batches=5) == ("taken", "")
        entry = await running.until(number, State.SUBMITTED)
        assert (entry.facts.epochs, entry.facts.max_batches) == (3, 5)
        world.complete(number)
        await running.until(number, State.CLAIMABLE)
        assert await ask(running, "claim", number) == ("taken", "")
        await running.until(number, State.CLAIMED)


async def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    """Each step of a round's life refuses the requests that don't fit."""

    async def refused(kind: str, words: str) -> None:
        state, answer = await ask(running, kind, number)
        assert state == "refused"
        assert words in answer

    terms = {"auto_train": False, "auto_claim": False}
    async with a_world(tmp_path) as world, world.daemon(terms=terms) as running:
        number = 77
        await refused("join", "round 77 is not on chain (`decloud-trainer list`")
        number = world.post()
        await running.until(number, State.FETCHED)
        await refused("train", "is not joined (first: `decloud-trainer join 0`)")
        await refused("claim", "is not joined")
        await refused("dance", "this version can't dance a round")
        world.take(number)
        await running.until(number, State.JOINED)
        await refused("join", "already joined (next: `decloud-trainer train 0`)")
        await refused("claim", "nothing was submitted in round 0")
        world.net.start_training(number)
        assert (await ask(running, "train", number))[0] == "taken"
        await running.until(number, State.SUBMITTED)
        await refused("train", "has our submission already")
        await refused("claim", "is Validating: rewards are paid once it is Completed")
        world.complete(number)
        await running.until(number, State.CLAIMABLE)
        assert (await ask(running, "claim", number))[0] == "taken"
        await running.until(number, State.CLAIMED)
        await refused("claim", "the reward of round 0 is already claimed")


async def test_a_round_that_cannot_be_joined_is_not_joined_on_request_either(
    tmp_path: Path,
) -> None:
    """The request is taken, and the row says why nothing comes of it."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        other = world.another_trainer()
        number = world.open()
        world.join_as(other, number)
        await running.until(number, State.JOINED)
        closed = world.open(dataset_index=24)
        await running.until(closed, State.SKIPPED)  # it is on chain for the daemon, too
        assert (await ask(running, "join", closed))[0] == "taken"
        entry = await running.until_reason(closed, "Dataset not found")
        assert entry.state is State.SKIPPED


async def test_a_failed_round_is_tried_anew_on_request(tmp_path: Path) -> None:
    """`train` after a failure is another job, with what the user wishes now."""
    async with a_world(tmp_path) as world:
        async with world.daemon(script={"train": {"fail": "Diverged"}}) as running:
            number = world.open()
            await running.until(number, State.JOINED)
            world.net.start_training(number)
            await running.until(number, State.FAILED)
        async with world.daemon() as running:
            assert await ask(running, "train", number) == ("taken", "")
            await running.until(number, State.SUBMITTED)
            assert len(running.jobs_of(number, "train")) == 2


async def test_a_request_for_another_network_or_wallet_is_refused(tmp_path: Path) -> None:
    """Round ids repeat everywhere: a daemon must not join its own round of the same number."""
    async with a_world(tmp_path) as world, world.daemon(terms={"auto_train": False}) as running:
        number = world.post()
        await running.until(number, State.FETCHED)
        journal = Journal(world.home / "journal.sqlite")
        mine = world.scope.key(number)
        for key in (
            RowKey("other genesis", mine.program, mine.wallet, number),
            RowKey(mine.genesis, mine.program, "other wallet", number),
        ):
            state, why = await answer(journal, asking.ask(journal, "join", key, {}))
            assert state == "refused"
            assert f"works for wallet {mine.wallet}" in why
        journal.close()
        entry = await running.until(number, State.FETCHED)
        assert not entry.facts.asked_join


async def test_a_request_during_a_step_is_not_lost(tmp_path: Path) -> None:
    """The running step would write its own facts over the wish: it waits for the step's end."""
    async with a_world(tmp_path) as world:
        journal = Journal(world.home / "journal.sqlite")
        script = {"inspect": {"seconds": 0.6}}
        async with world.daemon(script=script, steps={State.FETCHED: hang}) as running:
            number = world.post()
            await running.until(number, State.WATCHING)
            await until(lambda: bool(running.jobs_of(number, "inspect")))
            request = asking.ask(journal, "join", world.scope.key(number), {})
            await running.until(number, State.FETCHED)
            assert asking.answer_of(journal, request)[0] == "new"
        async with world.daemon() as running:
            assert await answer(journal, request) == ("taken", "")
            entry = await running.entry(number)
            assert entry is not None
            assert entry.facts.asked_join
        journal.close()


async def test_a_withdrawn_request_is_never_carried_out(tmp_path: Path) -> None:
    """The command that asked has ended before a daemon took it: days later nothing is joined."""
    async with a_world(tmp_path) as world:
        number = world.open()
        journal = Journal(world.home / "journal.sqlite")
        request = asking.ask(journal, "join", world.scope.key(number), {})
        asking.withdraw(journal, request)
        terms = {"datasets": frozenset({"mnist"})}
        async with world.daemon(terms=terms) as running:
            await running.until(number, State.SKIPPED)
            await asyncio.sleep(0.5)
            assert world.transactions() == {}
        assert asking.answer_of(journal, request)[0] == "refused"
        journal.close()


async def test_requests_wait_for_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that answers nothing is no reason to refuse."""
    monkeypatch.setattr(daemon, "NETWORK_PAUSE_S", 0.05)
    terms = {"datasets": frozenset({"mnist"})}
    async with a_world(tmp_path) as world, world.daemon(terms=terms) as running:
        number = world.open()
        await running.until(number, State.SKIPPED)
        world.net.rpc._attempts = 1
        world.net.faults.switch("rpc_429")
        journal = Journal(world.home / "journal.sqlite")
        request = asking.ask(journal, "join", world.scope.key(number), {})
        await asyncio.sleep(0.6)
        assert asking.answer_of(journal, request)[0] == "new"
        world.net.faults.switch("rpc_429", on=False)
        assert await answer(journal, request) == ("taken", "")
        await running.until(number, State.JOINED)
        journal.close()
