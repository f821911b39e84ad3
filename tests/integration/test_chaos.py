"""Daemons that are killed at every named point, and at random ones, lose and spend nothing."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from chaosworld import (
    Chaos,
    Life,
    chaos,
    finish,
    once_each,
    one_round,
    random_life,
    two_rounds,
)

import decloud_trainer
from decloud_trainer.chain import lifecycle
from decloud_trainer.faultpoints import (
    ERRNOS,
    JOBS_WRITES,
    JOURNAL_WRITES,
    POINTS,
    STEPS,
    TRANSACTIONS,
)
from decloud_trainer.rounds.entry import State
from decloud_trainer.rounds.model import ActionKind

PACKAGE = Path(decloud_trainer.__file__).parent
# A command's, not a daemon's.
OF_COMMANDS = ("journal.ask.writing", "journal.ask.written")
# Only a daemon whose child is at work when the round is aborted comes by here, once.
AT_THE_ABORT = ("jobs.keep_wish.writing", "jobs.keep_wish.written")
WITH_TORCH = (
    "child.started",
    "child.ended",
    "publish.begin",
    "jobs.finish.written",
    "journal.record_intent.written",
    "send.join.sent",
    "step.joined.done",
    "step.trained.begin",
    "pin.replied",
    "send.submit.recorded",
    "send.claim.settled",
    "journal.settle_intent.writing",
)
# The writes of a start, in their order. Without them there is no daemon.
AT_START = (
    "journal.create.writing",
    "jobs.create.writing",
    "jobs.take_over.writing",
    "journal.reconsider.writing",
    "journal.catch_up.writing",
    "journal.set_mark.writing",
)
OF_FILES = ("file.begin", "file.torn", "file.written", "publish.begin")
RENAMES = {
    "config.py": "the file as it was, kept aside once",
    "training/data/download.py": "in a child, whose death is another test's",
    "jobs/scripted.py": "the worker of tests",
    "migration.py": "not of files but of settings",
}


async def test_killed_at_every_named_point(tmp_path: Path) -> None:
    """Eight daemons that share all points there are; scripted worker. Five rounds each:
    one from the beginning, two that another machine joined (one of them is at its training), one
    that was asked for, and one that its validator aborts in the middle of the training."""
    points = [point for point in POINTS if point not in (*OF_COMMANDS, *AT_THE_ABORT)]
    async with chaos(tmp_path) as world:
        for number in range(6):
            world.life(str(number), once_each(points[number::6]))
        for point in AT_THE_ABORT:
            world.life(point, once_each([point]))
        await five_rounds(world)
        struck = [point for life in world.lives for point in life.struck]
        assert sorted(struck) == sorted([*points, *AT_THE_ABORT])


async def five_rounds(world: Chaos) -> None:
    datasets = ("digits", "digits", "digits", "mnist", "digits")
    plain, elsewhere, found, asked, aborted = rounds = [world.post(name) for name in datasets]
    world.scripts = {
        f"train r{plain}": {"crash_attempts": 1},
        f"train r{aborted}": {"seconds": 60},
    }
    world.take(world.post("mnist"))  # skipped, and decided again at each start
    for number in (elsewhere, found, asked):
        world.take(number)
    for number in (elsewhere, found):
        world.join_elsewhere(number)
    # It can't be joined any more: the sweep alone finds it, the watch tells of open rounds.
    world.net.start_training(found)
    await world.start()
    await world.all_in(asked, State.SKIPPED)
    world.ask("join", asked)
    for number in (plain, aborted):
        world.take(number)
    for number in rounds:
        await world.all_joined(number)
        if number != found:
            world.net.start_training(number)
    await world.all_at_work(aborted)
    world.abort(aborted)
    paid = (plain, elsewhere, found, asked)
    for number in paid:
        await world.all_submitted(number)
        world.complete(number)
    await finish(world, *paid, lost=[aborted])


async def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Thirty daemons, each killed three times at whatever point its seed says; scripted worker."""
    async with chaos(tmp_path) as world:
        for seed in range(30):
            random_life(world, seed)
        await two_rounds(world)
        assert sum(len(life.struck) for life in world.lives) > 60


@pytest.mark.slow
async def test_killed_with_the_real_worker(tmp_path: Path) -> None:
    """Two daemons whose children train on handwritten digits, killed at six points each."""
    async with chaos(tmp_path, worker="torch") as world:
        for number in range(2):
            world.life(str(number), once_each(WITH_TORCH[number::2]))
        await one_round(world)
        struck = [point for life in world.lives for point in life.struck]
        assert sorted(struck) == sorted(WITH_TORCH)


async def test_a_failing_disk_stops_and_spoils_nothing(tmp_path: Path) -> None:
    """Three daemons whose disk is full, broken or read-only once at each kind of write. Those that
    can't start for it say so in a sentence; all go on when it works again; scripted worker."""
    async with chaos(tmp_path) as world:
        for name in ERRNOS:
            life = world.life(name, failing(name))
            life.may_end_with = (1,)
        await two_rounds(world)
        for life in world.lives:
            assert len(life.reasons) == len(AT_START), life.reasons
            assert all("can't use" in reason for reason in life.reasons), life.reasons
            log = life.log.read_text("utf-8", "replace")
            assert os.strerror(ERRNOS[life.name]) in log


async def test_a_home_that_is_lost_in_the_middle_is_rebuilt(tmp_path: Path) -> None:
    """Two daemons find their journal and their jobs damaged after a crash, one with its join just
    sent, one with its training done. Both are rebuilt from the chain; nothing is paid twice."""
    async with chaos(tmp_path) as world:
        for point in ("send.join.sent", "step.trained.begin"):
            world.life(point, damaged_after(point))
        await one_round(world)
        for life in world.lives:
            assert len(list(life.home.glob("*.damaged-*.sqlite"))) == 2
            assert "Not rebuilt: why rounds were skipped" in life.log.read_text("utf-8")


def damaged_after(point: str) -> Callable[[Life], str]:
    """Kill there, once, and leave rubbish where the databases were."""

    def faults(life: Life) -> str:
        if life.runs == 0:
            return f"{point}=kill"
        for name in ("journal", "jobs") if life.runs == 1 else ():
            for end in ("-wal", "-shm"):
                (life.home / f"{name}.sqlite{end}").unlink(missing_ok=True)
            (life.home / f"{name}.sqlite").write_bytes(b"no database " * 500)
        return ""

    return faults


def failing(name: str) -> Callable[[Life], str]:
    """Every write fails once: those of the start end a daemon, one after the other."""
    writes = [point for point in POINTS if point.endswith(".writing")]
    others = [point for point in writes if point not in (*AT_START, *OF_COMMANDS)]

    def faults(life: Life) -> str:
        armed = [*AT_START[life.runs :], *others, *OF_FILES]
        return ",".join(f"{point}={name}" for point in armed)

    return faults


def test_every_step_and_every_write_has_its_points() -> None:
    """A step of a round, a kind of transaction or a durable write without fault points fails
    here, and so does a point that nothing reaches."""
    assert {state.value for state in lifecycle.V1.steps} == set(STEPS)
    assert {kind.value for kind in ActionKind} == set(TRANSACTIONS)
    reached, written = set(), {"journal": set(), "jobs": set()}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name == "reach":
                reached.add(pattern(node.args[0]))
            elif (
                name in ("_transaction", "transaction", "change") and path.name != "faultpoints.py"
            ):
                base = "jobs" if path.parent.name == "jobs" else "journal"
                text = node.args[0]
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    written[base].add(text.value)
    assert written == {"journal": set(JOURNAL_WRITES), "jobs": set(JOBS_WRITES)}
    for point in POINTS:
        assert any(re.fullmatch(found, point) for found in reached), point
    for found in reached:
        assert any(re.fullmatch(found, point) for point in POINTS), found


def pattern(node: ast.expr) -> str:
    """What the names look like that this expression can give."""
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    assert isinstance(node, ast.JoinedStr), ast.dump(node)
    return "".join(
        re.escape(str(part.value)) if isinstance(part, ast.Constant) else "[a-z_]+"
        for part in node.values
    )


def test_nothing_renames_files_past_the_fault_points() -> None:
    """Files are put in their place by `files` alone, but for those listed here with a reason."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        text = path.read_text("utf-8")
        if room not in ("localnet", "files.py") and re.search(
            r"os\.(replace|rename)\(|\w\.rename\(|(path|latest|temporary)\.replace\(", text
        ):
            found.add(str(path.relative_to(PACKAGE)))
    assert found <= set(RENAMES), found - set(RENAMES)
