"""Bad credentials, lying gateways, lost events, full disks: the daemon goes on, and says so."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from daemonworld import a_world, hang
from localchain import until
from processes import processes_in

from decloud_trainer.chain import lifecycle
from decloud_trainer.chain.watch import WatchPace
from decloud_trainer.errors import CorruptionError, DecloudError
from decloud_trainer.ipfs.cid import Cid
from decloud_trainer.rounds import daemon as daemon_module
from decloud_trainer.rounds.daemon import run_until
from decloud_trainer.rounds.engine import Told
from decloud_trainer.rounds.entry import Request, State
from decloud_trainer.rounds.intake import take_request
from decloud_trainer.rounds.journal import Journal, JournalThread


async def test_refused_credentials_can_be_mended_while_the_round_is_open(tmp_path: Path) -> None:
    """It says what is wrong; a restart with the right ones pins what was trained, once."""
    async with a_world(tmp_path) as world:
        async with world.daemon(jwt="wr0ng-secret") as running:
            number = world.open()
            await running.until(number, State.JOINED)
            world.net.start_training(number)
            entry = await running.until_reason(number, "Failed to upload gradients")
            assert entry.state is State.TRAINED
            assert "wr0ng-secret" not in entry.reason
            world.warp(21)
            await asyncio.sleep(0.1)
        async with world.daemon() as running:
            await running.until(number, State.SUBMITTED)
            assert len(running.jobs_of(number, "train")) == 1


async def test_a_pin_service_that_is_down_is_tried_again(tmp_path: Path) -> None:
    """Every failure waits longer, and less long when the deadline is near."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        number = world.open()
        await running.until(number, State.JOINED)
        world.net.faults.switch("pin_down")
        world.net.start_training(number)
        entry = await running.until_reason(number, "Failed to upload gradients")
        assert entry.failures == 1
        world.net.faults.switch("pin_down", on=False)
        world.warp(61)
        await running.until(number, State.SUBMITTED)


async def test_wrong_bytes_from_the_gateway_are_not_the_end_of_a_round(tmp_path: Path) -> None:
    """The model is asked for again; nothing wrong is kept."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        world.net.faults.switch("gateway_wrong_bytes")
        number = world.open()
        entry = await running.until_reason(number, "gateway")
        assert entry.state is State.WATCHING
        assert list((world.home / "models").iterdir()) == []
        world.net.faults.switch("gateway_wrong_bytes", on=False)
        await running.until(number, State.JOINED)


async def test_an_upload_that_got_lost_is_never_submitted(tmp_path: Path) -> None:
    """The service took it and has nothing: no CID goes on chain until it can be fetched."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        world.net.faults.switch("pin_lost")
        number = world.open()
        await running.until(number, State.JOINED)
        world.net.start_training(number)
        entry = await running.until_reason(number, "no gateway delivers it")
        assert entry.state is State.TRAINED
        assert world.transactions() == {"JoinRound": 1}
        world.net.faults.switch("pin_lost", on=False)
        entry = await running.until(number, State.SUBMITTED)
        assert world.store.public.get(Cid.parse(entry.facts.gradient_cid))


async def test_a_model_that_never_comes_makes_room_for_others(tmp_path: Path) -> None:
    """After some tries its round steps back, and the next one is taken."""
    async with a_world(tmp_path) as world:
        async with world.daemon() as running:
            world.net.faults.switch("gateway_wrong_bytes")
            first = world.open()
            entry = await running.until_reason(first, "gateway")
            world.net.faults.switch("gateway_wrong_bytes", on=False)
        with sqlite3.connect(world.home / "journal.sqlite") as db:
            db.execute("UPDATE rounds SET failures = 7")
        db.close()
        world.net.faults.switch("gateway_wrong_bytes", count=2)
        async with world.daemon() as running:
            entry = await running.until(first, State.SKIPPED)
            assert "can't be had for now" in entry.reason
            second = world.open()
            await running.until(second, State.JOINED)
            assert (await running.until(first, State.SKIPPED)).reason == entry.reason


async def test_a_lost_event_is_made_up_for_by_looking(tmp_path: Path) -> None:
    """Notifications that never come cost the interval between two looks."""
    pace = WatchPace(poll_interval_s=0.1, safety_interval_s=0.3, first_retry_s=0.05)
    async with a_world(tmp_path) as world, world.daemon(pace=pace) as running:
        number = world.open()
        await running.until(number, State.JOINED)
        world.net.faults.switch("ws_lose_event")
        world.net.start_training(number)
        await running.until(number, State.SUBMITTED)
        world.complete(number)
        await running.until(number, State.CLAIMED)


async def test_an_endpoint_that_refuses_everything_is_sat_out(tmp_path: Path) -> None:
    """Steps fail and are tried again; nothing is given up and nothing is paid twice."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        world.net.rpc._attempts = 1
        number = world.open()
        await running.until(number, State.JOINED)
        world.net.faults.switch("rpc_429")
        world.net.start_training(number)
        world.warp(31)  # the row's next look is due, and fails
        await running.until_reason(number, "limits our requests")
        world.net.faults.switch("rpc_429", on=False)
        await running.until(number, State.SUBMITTED)
        assert world.transactions() == {"JoinRound": 1, "SubmitGradients": 1}


async def test_training_stops_in_time_to_submit(tmp_path: Path) -> None:
    """The child's deadline leaves room for pinning and landing."""
    script = {"train": {"seconds": 5}}
    async with a_world(tmp_path, submit_s=5) as world, world.daemon(script=script) as running:
        number = world.open()
        await running.until(number, State.JOINED)
        world.net.start_training(number)
        await running.until(number, State.SUBMITTED)
        batches = [told.values["batch"] for told in running.progress if told.kind == "train"]
        assert 4 < max(batches) < 10


async def test_a_deadline_that_has_passed_ends_the_round(tmp_path: Path) -> None:
    """Nothing is sent that can't count any more."""
    async with a_world(tmp_path) as world:
        async with world.daemon(steps={State.PINNED: hang}) as running:
            number = world.open()
            await running.until(number, State.JOINED)
            world.net.start_training(number)
            await running.until(number, State.PINNED)
        world.warp(3601)
        async with world.daemon() as running:
            entry = await running.until(number, State.LOST)
            assert entry.reason == "the submit deadline passed before our submission"
            assert world.transactions() == {"JoinRound": 1}


async def test_what_isnt_better_is_not_submitted_if_the_user_says_so(tmp_path: Path) -> None:
    """submit_only_if_improved ends the round with its reason; without it the numbers decide."""
    script = {"train": {"preview": {"before": 50.0, "after": 50.0}}}
    terms = {"submit_only_if_improved": True}
    async with a_world(tmp_path) as world:
        async with world.daemon(script=script, terms=terms) as running:
            number = world.open()
            await running.until(number, State.JOINED)
            world.net.start_training(number)
            entry = await running.until(number, State.LOST)
            assert "not submitted: previewed +0.00 points" in entry.reason
        async with world.daemon(script=script) as running:
            number = world.open()
            await running.until(number, State.JOINED)
            world.net.start_training(number)
            await running.until(number, State.SUBMITTED)
            told = [event for event in running.told if event.entry.state is State.PINNED]
            assert "expected share 0.882 SOL against 0.00001 SOL of fees" in told[0].entry.reason


async def test_a_closed_terminal_does_not_stop_the_daemon(tmp_path: Path) -> None:
    """Whoever listens may fail: the round is finished all the same."""

    def broken(told: Told) -> None:
        raise BrokenPipeError("nobody reads")

    async with a_world(tmp_path) as world, world.daemon(on_event=broken) as running:
        number = world.open()
        await running.until(number, State.JOINED)
        world.net.start_training(number)
        await running.until(number, State.SUBMITTED)


async def test_a_journal_that_cannot_write_for_a_while_is_outlived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk stops work, doesn't spin, and ends nothing."""
    monkeypatch.setattr(daemon_module, "FAILURE_PAUSE_S", 0.3)
    failing = False
    tries = 0
    real = JournalThread.__call__

    async def full(self: JournalThread, method: Any, *args: Any, **options: Any) -> Any:
        nonlocal tries
        if failing and method in (Journal.move, Journal.wait, Journal.saw):
            tries += 1
            raise DecloudError("can't use the journal: database or disk is full")
        return await real(self, method, *args, **options)

    monkeypatch.setattr(JournalThread, "__call__", full)
    async with a_world(tmp_path) as world, world.daemon() as running:
        number = world.post()
        await running.until(number, State.FETCHED)
        failing = True
        world.take(number)
        await until(lambda: tries > 0)
        await asyncio.sleep(1.0)
        assert tries < 20
        failing = False
        await running.until(number, State.JOINED)


async def test_a_damaged_journal_ends_the_daemon_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't be trusted isn't worked with: the error says what to do."""
    real = JournalThread.__call__
    damaged = False

    async def call(self: JournalThread, method: Any, *args: Any, **options: Any) -> Any:
        if damaged and method is Journal.due:
            raise CorruptionError("the journal can't be read")
        return await real(self, method, *args, **options)

    monkeypatch.setattr(JournalThread, "__call__", call)
    async with a_world(tmp_path) as world:
        running = None
        with contextlib.suppress(CorruptionError):
            async with world.daemon() as running:
                damaged = True
                await until(running.task.done)
                running.stop.set()
        assert running is not None
        assert isinstance(running.task.exception(), CorruptionError)


async def test_an_unexpected_error_in_one_round_leaves_the_others_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect is logged in full, tried again later, and shown as the row's reason."""
    async with a_world(tmp_path) as world:

        async def defect(parts: Any, entry: Any) -> Any:
            if entry.key.round_id == 0:
                raise ZeroDivisionError("a defect")
            return await lifecycle.V1.steps[State.SEEN](parts, entry)

        async with world.daemon(steps={State.SEEN: defect}) as running:
            first, second = world.open(), world.open()
            await running.until_reason(first, "unexpected ZeroDivisionError: a defect")
            await running.until(second, State.JOINED)
        assert "Traceback" in caplog.text


async def test_one_round_by_hand_without_a_daemon(tmp_path: Path) -> None:
    """A command runs the same steps to where it was asked to bring the round."""
    async with a_world(tmp_path) as world:
        number = world.open()
        async with world.daemon(terms={"datasets": frozenset({"mnist"})}) as running:
            await running.until(number, State.SKIPPED)
            engine = running.engine
            running.stop.set()
            await until(lambda: running.task.done())
            request = Request(0, "join", world.scope.key(number), {})
            entry = await take_request(engine, world.scope, request)
            entry = await run_until(engine, entry, lambda row: row.state is State.JOINED)
            assert entry.state is State.JOINED
            world.net.start_training(number)
            request = Request(0, "train", world.scope.key(number), {})
            entry = await take_request(engine, world.scope, request)
            entry = await run_until(engine, entry, lambda row: row.state is State.SUBMITTED)
            assert entry.state is State.SUBMITTED


async def test_stopping_is_prompt_whatever_is_under_way(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a training ends the child and the daemon within a moment."""
    async with a_world(tmp_path) as world:
        script = {"train": {"seconds": 60}}
        async with world.daemon(script=script) as running:
            number = world.open()
            await running.until(number, State.JOINED)
            world.net.start_training(number)
            await until(lambda: any(told.kind == "train" for told in running.progress))
            assert processes_in(world.home)
            began = time.monotonic()
        assert time.monotonic() - began < 3
        assert not processes_in(world.home)
