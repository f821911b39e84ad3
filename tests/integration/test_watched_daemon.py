"""A daemon that loses rounds on the local network: what it does, says, and leaves on record."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from daemonworld import Running, World, a_world, lose
from localchain import PATIENCE_S
from processes import free_port

from decloud_trainer.chain.watch import RoundWatch
from decloud_trainer.cli.main import main
from decloud_trainer.cli.watched import watched
from decloud_trainer.errors import DecloudError
from decloud_trainer.files import single_instance
from decloud_trainer.rounds import marks
from decloud_trainer.rounds.entry import State
from decloud_trainer.rounds.figures import Lately, lately, unclaimed
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.marks import SESSION
from decloud_trainer.rounds.watchdog import Missed, Patience
from decloud_trainer.settings import Settings
from decloud_trainer.watching.flight import Places, recorded, written
from decloud_trainer.watching.notices import Notice, Notifier
from decloud_trainer.watching.tally import Tally
from decloud_trainer.watching.watchman import View, Watchman
from decloud_trainer.wiring import Trainer

TWO = Patience(losses=2, back_off_s=300.0, quiet_s=36_000.0)


async def a_cost() -> int:
    return 2_000_000


class Kept:
    """A channel that keeps what it is sent, or refuses it."""

    name = "a test"

    def __init__(self) -> None:
        self.got: list[Notice] = []
        self.is_down = False

    async def send(self, notice: Notice) -> None:
        if self.is_down:
            raise DecloudError("nobody there")
        self.got.append(notice)

    @property
    def told(self) -> list[str]:
        """Events and alarms since the last time this was asked."""
        found = [f"{notice.event} {notice.alarm}" for notice in self.got]
        self.got.clear()
        return found


def a_watchman(running: Running, channel: Kept, *, silent_s: float = 0.0) -> Watchman:
    view = View(
        journal=running.engine.parts.journal,
        key=running.world.scope.key(0),
        network="localnet",
        patience=TWO,
        clock=running.world.clock,
        silent_s=lambda: silent_s,
        needed_lamports=a_cost,
    )
    return Watchman(view, Notifier([channel]))


async def decided(running: Running, number: int) -> None:
    """Until a new daemon has looked at the skipped round and put it off."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            entry = await running.entry(number)
            if entry is not None and entry.not_before > 0:
                return
            await asyncio.sleep(0.02)


async def test_after_losses_their_creator_is_left_alone_and_it_is_said(tmp_path: Path) -> None:
    """Skipped with the reason, told once over restarts, taken again when the time is over."""
    channel = Kept()
    script = {"train": {"seconds": 60}}
    async with a_world(tmp_path) as world:
        async with world.daemon(terms={"patience": TWO}, script=script) as running:
            first = await lose(world, running)
            assert await a_watchman(running, channel).look() == ()
            second = await lose(world, running)
            third = world.open()
            entry = await running.until_reason(third, "2 losses in a row with")
            assert entry.state is State.SKIPPED
            assert f"(rounds {second}, {first}): none of its rounds until" in entry.reason
            watchman = a_watchman(running, channel)
            names = [alarm.name for alarm in await watchman.look()]
            assert names == ["losing", "backing_off", "backing_off"]
            assert channel.told == ["alarm losing", "alarm backing_off", "alarm backing_off"]
            await watchman.look()
            assert channel.told == []
        async with world.daemon(terms={"patience": TWO}, script=script) as running:
            watchman = a_watchman(running, channel)
            assert len(await watchman.look()) == 3
            assert channel.told == []
            await decided(running, third)
            world.warp(301)
            await running.until(third, State.JOINED)
            assert [alarm.name for alarm in await watchman.look()] == ["losing"]
            assert channel.told == ["alarm_over backing_off", "alarm_over backing_off"]
            world.warp(24 * 3600.0)
            await watchman.look()
            assert "alarm losing" in channel.told


async def test_alarms_that_come_and_go_are_told_once_an_hour(tmp_path: Path) -> None:
    """And what can't be sent now is sent at a later look."""
    channel = Kept()
    channel.is_down = True
    async with a_world(tmp_path) as world, world.daemon() as running:
        poor = {"wallet": world.scope.wallet, "balance": 1_999_999}
        rich = {**poor, "balance": 2_000_000}
        journal = running.engine.parts.journal
        watchman = a_watchman(running, channel)
        await journal(marks.set_mark, SESSION, poor)
        assert [alarm.name for alarm in await watchman.look()] == ["low_balance"]
        channel.is_down = False
        await watchman.look()
        assert channel.told == ["alarm low_balance"]
        await journal(marks.set_mark, SESSION, rich)
        assert await watchman.look() == ()
        assert channel.told == ["alarm_over low_balance"]
        await journal(marks.set_mark, SESSION, poor)
        await watchman.look()
        assert channel.told == []
        await journal(marks.set_mark, SESSION, rich)
        await watchman.look()
        world.warp(3601)
        await journal(marks.set_mark, SESSION, poor)
        await watchman.look()
        assert channel.told == ["alarm low_balance"]
        blind = a_watchman(running, channel, silent_s=700.0)
        assert {alarm.name for alarm in await blind.look()} == {"blind", "low_balance"}
        assert channel.told == ["alarm blind"]


async def test_a_look_back_sees_rounds_missed_joined_and_unclaimed(tmp_path: Path) -> None:
    """Counted from the journal's events since a time, of this wallet alone."""
    async with a_world(tmp_path) as world, world.daemon(terms={"auto_claim": False}) as running:
        journal, key = running.engine.parts.journal, world.scope.key(0)
        began = world.clock()
        missed = world.post()
        await running.until_reason(missed, "waiting for a validator")
        world.warp(100_000)
        await running.until(missed, State.SKIPPED)
        found: Lately = await journal(lately, key, began)
        assert [one.round_id for one in found.missed] == [missed]
        assert isinstance(found.missed[0], Missed)
        number = world.open()
        await running.until(number, State.JOINED)
        since = world.clock()
        found = await journal(lately, key, began)
        assert (found.joined, found.last_event_at > began) == (1, True)
        world.net.start_training(number)
        await running.until(number, State.SUBMITTED)
        world.complete(number)
        await running.until_reason(number, "auto_claim is off")
        (waiting,) = await journal(unclaimed, key)
        assert (waiting.round_id, waiting.tries) == (number, 0)
        found = await journal(lately, key, since)
        assert (found.joined, found.missed) == (0, ())
        other = dataclasses.replace(key, wallet="another")
        assert (await journal(lately, other, began)).missed == ()


SECRET = "s3cretJWTofThePinService"
KEY_OF_A_WALLET = "5" * 88


async def test_the_flight_recorder_tells_a_whole_round_and_no_secret(tmp_path: Path) -> None:
    """Transitions, decisions, transactions, jobs with their logs, the daemon's lines."""
    script = {"train": {"log": f"trained at https://u:{SECRET}@gw.example/{SECRET}"}}
    async with a_world(tmp_path) as world:
        async with world.daemon(script=script) as running:
            number = world.open()
            await running.until(number, State.JOINED)
            world.net.start_training(number)
            await running.until(number, State.SUBMITTED)
            world.complete(number)
            entry = await running.until(number, State.CLAIMED)
        log = tmp_path / "daemon.log"
        lines = [
            f"round {number} joined with {KEY_OF_A_WALLET}",
            f"round {number}0 is another one",
            f"pinata did not pin gradient_round_{number}.pt: {SECRET[:12]} is refused",
        ]
        log.write_text("\n".join(lines))
        (job,) = (world.home / "jobs").glob(f"r{number}-*-train*")
        (job / "run.json").write_text(json.dumps({"format": 1, "curve": [{"loss": 0.5}]}))
        places = Places(
            world.home / "jobs.sqlite", world.home / "jobs", [tmp_path / "gone", log], [SECRET]
        )
        journal = Journal(world.home / "journal.sqlite")
        record = recorded(journal, entry, places)
        for name in ("run.json", "worker.log"):
            (job / name).unlink()
            (job / name).symlink_to(a_key(tmp_path, world))
        linked = recorded(journal, entry, places)
        journal.close()
    content = written(record).decode()
    assert json.loads(content) == record
    assert SECRET[:12] not in content
    assert KEY_OF_A_WALLET not in content
    moves = [event["to"] for event in record["events"] if event["kind"] == "state"]
    assert moves[-3:] == ["submitted", "claimable", "claimed"]
    assert any("reward 1 SOL" in event["text"] for event in record["events"])
    sent = {one["kind"]: one for one in record["transactions"]}
    assert set(sent) == {"join", "submit", "claim"}
    assert all(one["outcome"] == "landed" and one["slot"] for one in sent.values())
    assert all(len(one["signature"]) > 80 for one in sent.values())
    assert f"signed {sent['join']['signature']}" in content
    assert "raw" not in sent["join"]
    jobs = {one["kind"]: one for one in record["jobs"]}
    assert jobs["train"]["state"] == "done"
    assert jobs["train"]["run"]["curve"] == [{"loss": 0.5}]
    assert any("gw.example" in line for line in jobs["train"]["log"])
    # What a training child leaves in its folder can't have its user's key exported.
    (trained,) = (one for one in linked["jobs"] if one["kind"] == "train")
    assert (trained["run"][:24], trained["log"]) == ("run.json can't be read: ", [])
    assert record["facts"]["artifact_sha256"] in content
    assert record["as_last_seen_on_chain"]["id"] == number
    assert len(record["log"]) == 2


def a_key(home: Path, world: World) -> str:
    """A file with the trainer's key, as the Solana CLI has it."""
    path = home / "id.json"
    path.write_text(json.dumps(list(bytes(world.net.trainer))))
    path.chmod(0o600)
    return str(path)


async def test_status_exports_a_round_and_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Offline: from the home's journal alone; the file is for its owner only."""
    async with a_world(tmp_path) as world:
        async with world.daemon() as running:
            number = world.open()
            await running.until(number, State.JOINED)
            look = a_watchman(running, Kept(), silent_s=700.0)
            assert len(await look.look()) == 1
        key = a_key(tmp_path, world)
    monkeypatch.setenv("DECLOUD_HOME", str(world.home))
    target = tmp_path / "round.json"
    assert main(["--keypair", key, "status", str(number), "--export", str(target)]) == 0
    assert target.stat().st_mode & 0o777 == 0o600
    assert json.loads(target.read_text())["round"] == number
    assert main(["--keypair", key, "status", str(number), "--export", "-"]) == 0
    capsys.readouterr()
    assert main(["--keypair", key, "status", "999", "--export", "-"]) == 1
    assert "nothing was done for round 999" in capsys.readouterr().err
    assert main(["--keypair", key, "status", "--export", "-"]) == 2
    capsys.readouterr()
    with single_instance(world.home / "daemon.lock", "a daemon"):
        assert main(["--keypair", key, "status"]) == 0
        said = capsys.readouterr().out
        assert "ALARM blind since" in said
        assert "nothing could be read from the chain for 12 min" in said
        assert main(["--keypair", key, "status", "--json"]) == 0
        (alarm,) = json.loads(capsys.readouterr().out)["alarms"]
        assert alarm["alarm"] == "blind"
    assert main(["--keypair", key, "status"]) == 0
    assert "ALARM" not in capsys.readouterr().out


def a_trainer(world: World, running: Running, watch: RoundWatch, **settings: Any) -> Trainer:
    """The parts of a running daemon as the command has them."""
    return Trainer(
        settings=Settings(network="localnet", **settings),
        wallet=world.net.wallet,
        chain=world.net.chain,
        engine=running.engine,
        watch=watch,
        followed=set(),
        scope=world.scope,
        mended=(),
        generation="v1.2",
        endpoints=world.net.rpc.health,
    )


async def test_the_command_shows_what_a_daemon_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the figures of the real parts; without a daemon it says that nothing answers."""
    port = free_port()
    async with a_world(tmp_path) as world, world.daemon() as running:
        monkeypatch.setenv("DECLOUD_HOME", str(world.home))
        watch = RoundWatch(world.net.chain, world.net.endpoints.ws_url)
        number = world.open()
        await running.until(number, State.JOINED)
        trainer = a_trainer(world, running, watch, metrics_port=port)
        (world.home / "config.json").write_text(json.dumps({"metrics_port": port}))
        async with watched(trainer, Tally(), lambda notice: None):
            assert await asyncio.to_thread(main, ["metrics"]) == 0
            text = capsys.readouterr().out
            assert 'decloud_rounds{state="joined"} 1\n' in text
            assert "decloud_round_cost_lamports 1748040\n" in text
            assert 'decloud_rpc_up{place="0",endpoint="127.0.0.1"} 1\n' in text
            assert await asyncio.to_thread(main, ["metrics", "--health"]) == 0
            assert json.loads(capsys.readouterr().out)["healthy"] is True
        assert await asyncio.to_thread(main, ["metrics"]) == 1
        assert f"nothing answers at 127.0.0.1:{port}" in capsys.readouterr().err


def test_without_a_port_or_a_way_to_tell_the_commands_say_what_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, as for all settings; the dashboard needs none."""
    assert main(["metrics"]) == 2
    assert "config --set metrics_port=9464" in capsys.readouterr().err
    assert main(["notify"]) == 2
    assert "notify_webhook, notify_command or notify_desktop" in capsys.readouterr().err
    assert main(["metrics", "--dashboard"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "DECLOUD trainer"


def test_a_test_message_goes_all_ways_that_are_configured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What fails is named, and is the exit code; a webhook's path is not shown."""
    told = tmp_path / "told"
    assert main(["config", "--set", f"notify_command=tee {told}"]) == 0
    assert main(["notify"]) == 0
    assert "the command tee: took it" in capsys.readouterr().out
    assert told.read_text().startswith("DECLOUD trainer: test\n\nThis is a test")
    assert main(["config", "--set", "notify_webhook=http://127.0.0.1:1/s3cret"]) == 0
    capsys.readouterr()
    assert main(["notify", "--json"]) == 1
    said = capsys.readouterr().out
    assert "s3cret" not in said
    found = {one["to"]: one["error"] for one in json.loads(said)}
    assert found["the command tee"] == ""
    assert "can't be reached" in found["the webhook at 127.0.0.1"]
