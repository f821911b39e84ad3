"""The engine: one step at a time, recorded; failures wait, and end only what they must."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from pathlib import Path as FilePath
from typing import Any, cast

import pytest
from localchain import until
from roundvalues import KEY, NOW, a_round, terms

from decloud_trainer import errors
from decloud_trainer.chain import lifecycle
from decloud_trainer.errors import DecloudError, ProgramError
from decloud_trainer.rounds.engine import Busy, Engine, Told
from decloud_trainer.rounds.entry import NOTHING_KNOWN, Entry, Facts, RowKey, State
from decloud_trainer.rounds.journal import Journal, JournalThread
from decloud_trainer.rounds.model import RoundStatus
from decloud_trainer.rounds.parts import Move, Parts, Result, Step, Wait
from decloud_trainer.rounds.path import Path


class World:
    """An engine over a real journal; its steps are the test's."""

    def __init__(self, journal: JournalThread) -> None:
        self.journal = journal
        self.now = NOW
        self.told: list[Told] = []

    def engine(self, steps: Mapping[State, Step]) -> Engine:
        unused = cast(Any, None)
        parts = Parts(
            chain=unused,
            sender=unused,
            pins=unused,
            jobs=unused,
            journal=self.journal,
            terms=terms(),
            plan=unused,
            models_dir=FilePath("/nowhere"),
            max_model_bytes=1,
            clock=lambda: self.now,
            to_local=lambda at: at,
            on_progress=lambda told: None,
        )
        return Engine(parts, Path(steps), self.told.append)

    async def entry(
        self, state: State = State.SEEN, *, facts: Facts = NOTHING_KNOWN, **round: Any
    ) -> Entry:
        await self.journal(Journal.saw, KEY, a_round(**round), state=state, facts=facts)
        return await self.again()

    async def again(self) -> Entry:
        entry = await self.journal(Journal.entry, KEY)
        assert entry is not None
        return entry


@pytest.fixture
async def world(tmp_path: FilePath) -> AsyncIterator[World]:
    journal = JournalThread(tmp_path / "journal.sqlite", clock=lambda: NOW)
    yield World(journal)
    journal.close()


def to(state: State, pause_s: float = 0.0) -> Step:
    async def step(parts: Parts, entry: Entry) -> Result:
        return Move(state, f"to {state.value}", entry.facts, pause_s)

    return step


def failing(error: BaseException) -> Step:
    async def step(parts: Parts, entry: Entry) -> Result:
        raise error

    return step


def waiting(reason: str, seconds: float) -> Step:
    async def step(parts: Parts, entry: Entry) -> Result:
        return Wait(reason, seconds, entry.facts)

    return step


async def test_a_path_without_a_join_runs_from_seen_to_claimed(world: World) -> None:
    """Other generations leave states out: the engine only follows the path."""
    states = [State.SEEN, State.FETCHED, State.TRAINED, State.SUBMITTED, State.CLAIMED]
    steps = {state: to(after) for state, after in itertools.pairwise(states)}
    engine = world.engine(steps)
    entry = await world.entry()
    for after in states[1:]:
        entry = await engine.advance(entry)
        assert entry.state is after
    assert [told.entry.state for told in world.told] == states[1:]
    assert all(told.moved and not told.problem for told in world.told)
    assert await engine.advance(entry) == entry


def test_final_states_have_no_step_and_all_others_of_v1_have_one() -> None:
    """A path that forgets this is refused when it is made."""
    with pytest.raises(ValueError, match="claimed"):
        Path({State.CLAIMED: to(State.SEEN)})
    assert set(lifecycle.V1.steps) == {state for state in State if not state.is_final}


async def test_a_wait_is_told_once_for_each_reason(world: World) -> None:
    """The row is due again after the time; the same reason isn't repeated to the user."""
    engine = world.engine({State.SEEN: waiting("patience", 30)})
    entry = await engine.advance(await world.entry())
    assert (entry.not_before, entry.reason) == (NOW + 30, "patience")
    await engine.advance(entry)
    assert [told.entry.reason for told in world.told] == ["patience"]


async def test_a_move_may_rest_before_its_next_step(world: World) -> None:
    """Else a refused round would be decided again at once, for ever."""
    engine = world.engine({State.SEEN: to(State.SKIPPED, pause_s=30)})
    entry = await engine.advance(await world.entry())
    assert (entry.state, entry.not_before) == (State.SKIPPED, NOW + 30)


async def test_the_pause_after_failures_grows_to_a_minute_and_starts_anew(world: World) -> None:
    """A retryable failure is told, counted, and forgotten by the first success."""
    step = failing(errors.RpcError("no answer", hint="look at the cable"))
    engine = world.engine({State.SUBMITTED: step})
    entry = await world.entry(State.SUBMITTED)
    pauses = []
    for _ in range(9):
        entry = await engine.advance(entry)
        pauses.append(entry.not_before - NOW)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert entry.reason == "no answer (look at the cable)"
    assert [(told.moved, told.problem) for told in world.told] == [(False, True)]
    entry = await world.engine({State.SUBMITTED: waiting("fine", 1)}).advance(entry)
    assert entry.failures == 0


@pytest.mark.parametrize(
    ("state", "round"),
    [
        (State.FETCHED, {"join_deadline": int(NOW) + 100}),
        (State.JOINED, {"status": RoundStatus.TRAINING, "submit_deadline": int(NOW) + 100}),
        (State.TRAINED, {"status": RoundStatus.TRAINING, "submit_deadline": int(NOW) + 100}),
        (State.PINNED, {"status": RoundStatus.TRAINING, "submit_deadline": int(NOW) + 100}),
    ],
)
async def test_near_a_deadline_the_pauses_are_short(
    world: World, state: State, round: dict[str, Any]
) -> None:
    """A service that comes back in the last minute still finds us trying."""
    engine = world.engine({state: failing(errors.PinError("down"))})
    entry = await world.entry(state, **round)
    for _ in range(6):
        entry = await engine.advance(entry)
    assert entry.not_before == NOW + 10
    world.now = NOW + 99
    assert (await engine.advance(entry)).not_before == NOW + 100


UNTRUSTED = [
    errors.InvalidCid("x"),
    errors.TooLarge("x"),
    errors.HostileFile("x"),
]
TRAINING = [
    errors.UnknownArchitecture("x"),
    errors.DatasetUnavailable("x"),
    errors.OutOfTime("x"),
    errors.Diverged("x"),
    errors.JobFailed("x"),
]
RETRYABLE = [
    errors.RpcError("x"),
    errors.GatewayError("x"),
    errors.PinError("x"),
    errors.TransactionExpired("x"),
]
PASSING = [errors.LayoutError("x"), errors.ContentMismatch("x")]
OTHERS = [
    errors.RoundError("x"),
    errors.PinRefused("x"),
    errors.ChainError("x"),
    errors.InsufficientFunds("x"),
    ProgramError("x", name="NotSubmitted", number=6014),
    errors.SettingsError("x"),
    DecloudError("x"),
]
OPEN = [state for state in State if not state.is_final]
BEFORE_JOIN = (State.WATCHING, State.FETCHED)


def expected(state: State, error: DecloudError) -> State:
    """Where a failure leads to; the same state: it is tried again."""
    if error in RETRYABLE:
        return state
    if state in BEFORE_JOIN:
        return State.SKIPPED
    if state is State.SEEN and error in UNTRUSTED + PASSING:
        return State.SKIPPED
    if state is State.JOINED and error in UNTRUSTED + TRAINING:
        return State.FAILED
    return state


@pytest.mark.parametrize("state", OPEN, ids=[state.value for state in OPEN])
async def test_what_each_failure_does_to_each_state(world: World, state: State) -> None:
    """Before the join a failure costs nothing, a hopeless training frees its slot, and from the
    artefact on nothing is given up; a retryable error never ends anything."""
    for number, error in enumerate([*UNTRUSTED, *TRAINING, *RETRYABLE, *PASSING, *OTHERS]):
        key = RowKey("genesis", "program", "wallet", 100 + number)
        await world.journal(Journal.saw, key, a_round(id=key.round_id), state=state)
        entry = await world.journal(Journal.entry, key)
        assert entry is not None
        after = await world.engine({state: failing(error)}).advance(entry)
        assert after.state is expected(state, error), (state, error)
        assert after.not_before > NOW or after.state.is_final, "no step may run without a pause"


@pytest.mark.parametrize("kind", [errors.PinRefused, errors.InsufficientFunds])
async def test_who_waits_hears_what_only_people_can_mend(
    world: World, kind: type[DecloudError]
) -> None:
    """It is recorded as ever, to be tried again; and a command ends with it."""
    engine = world.engine({State.TRAINED: failing(kind("no"))})
    with pytest.raises(kind):
        await engine.advance(await world.entry(State.TRAINED), watched=True)
    after = await world.again()
    assert (after.state, after.reason, after.failures) == (State.TRAINED, "no", 1)


async def test_a_skipped_round_that_cannot_be_read_waits_long(world: World) -> None:
    """An account that doesn't decode isn't asked for again and again."""
    engine = world.engine({State.SKIPPED: failing(errors.LayoutError("strange"))})
    entry = await engine.advance(await world.entry(State.SKIPPED))
    assert (entry.state, entry.not_before) == (State.SKIPPED, NOW + 600)


async def test_a_defect_is_logged_and_tried_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that nobody expected ends neither the round nor the program."""
    engine = world.engine({State.JOINED: failing(KeyError("oops"))})
    entry = await engine.advance(await world.entry(State.JOINED))
    assert (entry.state, entry.reason) == (State.JOINED, "unexpected KeyError: 'oops'")
    assert entry.not_before == NOW + 1
    assert "Traceback" in caplog.text


async def test_a_damaged_journal_is_no_rounds_failure(world: World) -> None:
    """It goes up, to end the program."""
    engine = world.engine({State.JOINED: failing(errors.CorruptionError("torn"))})
    with pytest.raises(errors.CorruptionError):
        await engine.advance(await world.entry(State.JOINED))
    assert (await world.again()).failures == 0


async def test_a_cancelled_step_leaves_the_row_as_it_was(world: World) -> None:
    """And lets go of it: the next run begins the step again."""

    async def forever(parts: Parts, entry: Entry) -> Result:
        return cast(Result, await asyncio.Event().wait())

    engine = world.engine({State.JOINED: forever})
    entry = await world.entry(State.JOINED)
    task = asyncio.create_task(engine.advance(entry))
    await until(lambda: engine.is_held(KEY))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await world.again() == entry
    assert not engine.is_held(KEY)


async def test_a_row_is_in_one_hand_at_a_time(world: World) -> None:
    """A second step, or a request, is told to come again; nothing overwrites anything."""
    engine = world.engine({State.JOINED: to(State.TRAINED)})
    entry = await world.entry(State.JOINED)
    with engine.hold(KEY):
        with pytest.raises(Busy):
            await engine.advance(entry)
        with pytest.raises(Busy), engine.hold(KEY):
            pass
    assert (await engine.advance(entry)).state is State.TRAINED


async def test_a_step_works_with_the_row_as_it_is_now(world: World) -> None:
    """Between reading a row and beginning its step a request may have changed it."""

    async def step(parts: Parts, entry: Entry) -> Result:
        return Move(State.WATCHING, "yes", entry.facts)

    engine = world.engine({State.SEEN: step})
    old = await world.entry()
    await world.journal(Journal.revise, old, Facts(asked_join=True))
    assert (await engine.advance(old)).facts.asked_join


async def test_decisions_are_made_one_after_the_other(world: World) -> None:
    """Two at once could both take the last slot."""
    deciding = 0

    async def step(parts: Parts, entry: Entry) -> Result:
        nonlocal deciding
        deciding += 1
        assert deciding == 1
        await asyncio.sleep(0.01)
        in_use = await parts.journal(Journal.slots_in_use, entry.key, with_early=True)
        deciding -= 1
        state = State.WATCHING if in_use == 0 else State.SKIPPED
        return Move(state, "decided", entry.facts)

    engine = world.engine({State.SEEN: step, State.SKIPPED: step})
    entries = []
    for number in range(5):
        key = RowKey("genesis", "program", "wallet", number)
        await world.journal(Journal.saw, key, a_round(id=number))
        entries.append(await world.journal(Journal.entry, key))
    after = await asyncio.gather(*(engine.advance(entry) for entry in entries if entry))
    assert [entry.state for entry in after].count(State.WATCHING) == 1


async def test_a_listener_that_fails_changes_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The row has moved, and the failure is in the log."""

    def broken(told: Told) -> None:
        raise BrokenPipeError

    engine = world.engine({State.SEEN: to(State.WATCHING)})
    engine._on_event = broken
    assert (await engine.advance(await world.entry())).state is State.WATCHING
    assert "can't be shown" in caplog.text
