"""The journal keeps everything, tells rounds apart, and never forgets or repeats money."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from roundvalues import KEY, NOW, a_round, an_intent, landed

from decloud_trainer.errors import CorruptionError, DecloudError
from decloud_trainer.rounds import asking, intents
from decloud_trainer.rounds.entry import NEVER, NOTHING_KNOWN, Entry, Facts, RowKey, State
from decloud_trainer.rounds.journal import Journal, JournalThread
from decloud_trainer.rounds.model import ActionKind, Dataset, Outcome, OutcomeState, RoundStatus


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "journal.sqlite"


@pytest.fixture
def journal(path: Path, clock: Clock) -> Iterator[Journal]:
    journal = Journal(path, clock=clock)
    yield journal
    journal.close()


def entry_in(
    journal: Journal, state: State, *, number: int = 7, facts: Facts = NOTHING_KNOWN
) -> Entry:
    key = RowKey("genesis", "program", "wallet", number)
    journal.saw(key, a_round(id=number), state=state, facts=facts)
    entry = journal.entry(key)
    assert entry is not None
    return entry


def kinds(journal: Journal, entry: Entry) -> list[tuple[str, str, str]]:
    return [(event.kind, event.from_state, event.to_state) for event in journal.events(entry)]


def test_the_same_number_elsewhere_is_another_round(journal: Journal) -> None:
    """Ids repeat on other clusters, programs and wallets: nothing of one reaches the other."""
    others = [
        RowKey("other", "program", "wallet", 7),
        RowKey("genesis", "other", "wallet", 7),
        RowKey("genesis", "program", "other", 7),
    ]
    mine = entry_in(journal, State.JOINED)
    for key in others:
        assert journal.entry(key) is None
        assert journal.saw(key, a_round(), state=State.JOINED)
    journal.move(mine, State.LOST, "gone", mine.facts)
    for key in others:
        entry = journal.entry(key)
        assert entry is not None
        assert entry.state is State.JOINED
        assert journal.slots_in_use(entry.key, with_early=True) == 0
        assert [row.row for row in journal.due(key, NOW)] == [entry.row]
        assert journal.active_ids(key) == {7}
    assert journal.due(KEY, NOW) == []
    assert len(journal.entries()) == 4
    assert len(journal.entries(KEY)) == 1


def test_every_number_that_the_chain_can_have_is_kept(journal: Journal) -> None:
    """Ids are unsigned 64-bit numbers, SQLite's are signed."""
    for number in (0, 2**63 - 1, 2**63, 2**64 - 1):
        entry = entry_in(journal, State.JOINED, number=number)
        assert entry.key.round_id == number
    assert journal.active_ids(KEY) == {0, 2**63 - 1, 2**63, 2**64 - 1}


def test_every_transition_is_an_event(journal: Journal, clock: Clock) -> None:
    """With its time, both states and the reason; waiting for the same reason is told once."""
    entry = entry_in(journal, State.SEEN)
    entry = journal.move(entry, State.WATCHING, "worth it", entry.facts)
    clock.now += 5
    entry = journal.wait(entry, "slow gateway", NOW + 9, facts=entry.facts, failed=True)
    entry = journal.wait(entry, "slow gateway", NOW + 9, facts=entry.facts, failed=True)
    assert entry.failures == 2
    entry = journal.move(entry, State.FETCHED, "verified", Facts(architecture="simple_cnn"))
    assert (entry.failures, entry.facts.architecture) == (0, "simple_cnn")
    assert kinds(journal, entry) == [
        ("state", "", "seen"),
        ("state", "seen", "watching"),
        ("problem", "watching", "watching"),
        ("state", "watching", "fetched"),
    ]
    told = journal.events(entry)[2]
    assert (told.at, told.text, told.round_id) == (NOW + 5, "slow gateway", 7)


def test_everything_that_was_known_is_read_back(journal: Journal) -> None:
    """Round, facts and times survive as they were."""
    facts = Facts(epochs=0, preview_before=10.5, preview_after=None, refused="why", adopted=True)
    seen = a_round(dataset=Dataset(200, None), validator=None, status=RoundStatus.UNKNOWN)
    journal.saw(KEY, seen, facts=facts)
    entry = journal.entry(KEY)
    assert entry is not None
    assert (entry.round, entry.facts) == (seen, facts)
    assert (entry.created_at, entry.not_before) == (NOW, 0.0)


def test_only_news_makes_a_row_due(journal: Journal) -> None:
    """The same round told again changes nothing."""
    entry = entry_in(journal, State.JOINED)
    journal.wait(entry, "waiting", NOW + 60, facts=entry.facts)
    assert not journal.saw(KEY, a_round())
    assert journal.due(KEY, NOW) == []
    assert journal.next_time(KEY) == NOW + 60
    assert journal.saw(KEY, a_round(trainers_count=1))
    assert [row.state for row in journal.due(KEY, NOW)] == [State.JOINED]


@pytest.mark.parametrize("how", ["wait", "move"])
def test_a_change_during_a_step_is_not_overslept(journal: Journal, how: str) -> None:
    """The step decided on what it had read; what came meanwhile makes the row due at once."""
    entry = entry_in(journal, State.SEEN)
    journal.saw(KEY, a_round(status=RoundStatus.TRAINING))
    if how == "wait":
        entry = journal.wait(entry, "later", NOW + NEVER, facts=entry.facts)
    else:
        entry = journal.move(entry, State.SKIPPED, "no", entry.facts, until=NOW + NEVER)
    assert entry.not_before == 0
    entry = journal.wait(entry, "later", NOW + NEVER, facts=entry.facts)
    assert entry.not_before == NOW + NEVER


def test_a_failed_step_keeps_its_pause_although_the_round_changed(journal: Journal) -> None:
    """Else a busy round would make a broken step run without any pause."""
    entry = entry_in(journal, State.JOINED)
    journal.saw(KEY, a_round(trainers_count=3))
    entry = journal.wait(entry, "broken", NOW + 8, facts=entry.facts, failed=True)
    assert entry.not_before == NOW + 8


def test_the_next_time_passes_over_rows_that_are_at_work(journal: Journal) -> None:
    """A training that runs for an hour must not have the scheduler look all the time."""
    busy, other = entry_in(journal, State.JOINED), entry_in(journal, State.SUBMITTED, number=8)
    journal.wait(other, "waiting", NOW + 30, facts=other.facts)
    assert journal.next_time(KEY) == 0
    assert journal.next_time(KEY, [busy.row]) == NOW + 30
    assert journal.next_time(KEY, [busy.row, other.row]) is None


def test_slots_are_counted_by_state_and_by_what_holds_them_up(journal: Journal) -> None:
    """Idle rounds hold none; those that only wait for a validator don't count against others."""
    me = entry_in(journal, State.SEEN, number=1)
    for number, state in enumerate((State.FETCHED, State.JOINED, State.PINNED), 2):
        entry_in(journal, state, number=number)
    entry_in(journal, State.SUBMITTED, number=10)
    entry_in(journal, State.JOINED, number=11, facts=Facts(idle=True))
    early = a_round(id=12, status=RoundStatus.WAITING_VALIDATOR)
    journal.saw(RowKey("genesis", "program", "wallet", 12), early, state=State.FETCHED)
    assert journal.slots_in_use(me.key, with_early=True) == 4
    assert journal.slots_in_use(me.key, with_early=False) == 3
    mine = journal.entries(KEY)[1]
    assert journal.slots_in_use(mine.key, with_early=True) == 3


def test_a_free_slot_is_offered_to_those_who_wait_for_one(journal: Journal) -> None:
    """Not to rounds that are refused for good, nor to those that let others go first."""
    holder = entry_in(journal, State.JOINED, number=1)
    pauses = {2: 30.0, 3: 600.0, 4: NEVER}
    for number, pause in pauses.items():
        row = entry_in(journal, State.SEEN, number=number)
        journal.move(row, State.SKIPPED, "no", row.facts, until=NOW + pause)
    journal.wait(holder, "still", NOW + 60, facts=holder.facts)
    assert journal.due(KEY, NOW) == []
    journal.wait(holder, "late", NOW + 60, facts=Facts(idle=True))
    assert [row.key.round_id for row in journal.due(KEY, NOW)] == [2]


def test_a_round_that_gives_up_its_own_slot_is_not_offered_it(journal: Journal) -> None:
    """It would be decided, refused and offered the slot again, without end."""
    entry = entry_in(journal, State.FETCHED)
    entry = journal.move(entry, State.SKIPPED, "refused", entry.facts, until=NOW + 30)
    assert entry.not_before == NOW + 30


def test_reconsidering_reaches_what_can_still_be_joined(journal: Journal) -> None:
    """What was refused here gets another chance; rounds that are over stay where they are."""
    for number, status in ((1, RoundStatus.WAITING_TRAINERS), (2, RoundStatus.COMPLETED)):
        key = RowKey("genesis", "program", "wallet", number)
        journal.saw(key, a_round(id=number, status=status), facts=Facts(refused="no data"))
        entry = journal.entry(key)
        assert entry is not None
        journal.move(entry, State.SKIPPED, "no data", entry.facts, until=NOW + NEVER)
    journal.reconsider(KEY)
    (due,) = journal.due(KEY, NOW)
    assert (due.key.round_id, due.facts.refused) == (1, "")


def test_an_intent_is_open_until_it_is_settled(journal: Journal) -> None:
    """Then its outcome is in the book, and another of the kind may be made."""
    entry = entry_in(journal, State.FETCHED)
    intent = an_intent()
    intents.record(journal, entry, intent)
    assert intents.under_way(journal, entry, ActionKind.JOIN) == intent
    assert intents.under_way(journal, entry, ActionKind.CLAIM) is None
    assert [sent.outcome for sent in intents.sent(journal, entry)] == [None]
    intents.settle(journal, entry, intent, Outcome(OutcomeState.EXPIRED))
    assert intents.under_way(journal, entry, ActionKind.JOIN) is None
    second = an_intent(signature="second")
    intents.record(journal, entry, second)
    intents.settle(journal, entry, second, landed(-1_738_040))
    found = intents.sent(journal, entry)
    assert [sent.intent for sent in found] == [intent, second]
    assert found[1].outcome == landed(-1_738_040)
    texts = [event.text for event in journal.events(entry) if event.kind == "intent"]
    assert texts[0] == "join: signed signature"
    assert texts[-1] == "join: landed second"


def test_two_of_a_kind_are_never_under_way_for_one_round(journal: Journal) -> None:
    """The database itself refuses, whatever the code above it does."""
    entry = entry_in(journal, State.FETCHED)
    other = entry_in(journal, State.FETCHED, number=8)
    intents.record(journal, entry, an_intent())
    with pytest.raises(sqlite3.IntegrityError):
        intents.record(journal, entry, an_intent(signature="second"))
    intents.record(journal, entry, an_intent(ActionKind.CLAIM, "third"))
    intents.record(journal, other, an_intent(signature="fourth", round_id=8))
    assert len(intents.sent(journal)) == 3


def test_the_same_bytes_may_come_again_after_a_refusal_that_sent_nothing(journal: Journal) -> None:
    """Signing is deterministic; what has reached the chain is never opened again."""
    entry = entry_in(journal, State.CLAIMABLE)
    intent = an_intent(ActionKind.CLAIM)
    intents.record(journal, entry, intent)
    intents.settle(journal, entry, intent, Outcome(OutcomeState.REJECTED, error="dust"))
    intents.record(journal, entry, intent)
    assert intents.under_way(journal, entry, ActionKind.CLAIM) == intent
    intents.settle(journal, entry, intent, landed(100))
    intents.record(journal, entry, intent)
    assert intents.under_way(journal, entry, ActionKind.CLAIM) is None
    assert [sent.outcome for sent in intents.sent(journal, entry)] == [landed(100)]


def test_requests_are_answered_once(journal: Journal, path: Path) -> None:
    """Another process leaves them, through its own connection, and reads the answer."""
    terminal = Journal(path)
    number = asking.ask(terminal, "train", KEY, {"epochs": 3})
    (request,) = asking.new_requests(journal)
    assert (request.id, request.kind, request.key) == (number, "train", KEY)
    assert (request.round_id, request.args) == (7, {"epochs": 3})
    assert asking.answer_of(terminal, number) == ("new", "")
    asking.answer(journal, number, "")
    assert asking.answer_of(terminal, number) == ("taken", "")
    asking.withdraw(terminal, number)
    assert asking.answer_of(terminal, number) == ("taken", "")
    second = asking.ask(terminal, "join", KEY, {})
    asking.withdraw(terminal, second)
    asking.answer(journal, second, "")
    assert asking.answer_of(terminal, second)[0] == "refused"
    assert asking.new_requests(journal) == []
    terminal.close()


def test_files_are_private(path: Path, journal: Journal) -> None:
    """The database and its helpers, also when an older file was more open."""
    entry_in(journal, State.SEEN)
    found = list(path.parent.iterdir())
    assert len(found) == 3
    assert {stat.S_IMODE(one.stat().st_mode) for one in found} == {0o600}
    journal.close()
    path.chmod(0o644)
    journal = Journal(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    journal.close()


def test_a_newer_journal_is_refused_and_left_alone(path: Path, journal: Journal) -> None:
    """An older program must not touch what it doesn't understand."""
    journal.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(DecloudError, match="newer version") as caught:
        Journal(path)
    assert not isinstance(caught.value, CorruptionError)
    assert "upgrade" in caught.value.hint


def test_a_file_that_is_no_journal_is_corruption(path: Path) -> None:
    """It says what to do; rewards aren't lost by doing it."""
    path.parent.mkdir()
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(CorruptionError, match="can't be read") as caught:
        Journal(path)
    assert "rewards are found again from the chain" in caught.value.hint
    assert caught.value.exit_code == 4


def test_damage_inside_the_file_is_corruption_when_it_is_met(path: Path) -> None:
    """In a page of the table as in a value of a row."""
    journal = Journal(path)
    for number in range(300):
        entry_in(journal, State.JOINED, number=number)
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + os.urandom(len(whole) - 16384) + whole[-8192:])
    damaged = Journal(path)
    with pytest.raises(CorruptionError):
        damaged.entries()
    damaged.close()
    path.write_bytes(whole)
    journal = Journal(path)
    journal._db.execute("UPDATE rounds SET state = 'dancing' WHERE round_id = 3")
    with pytest.raises(CorruptionError, match="row 4 of rounds"):
        journal.entries()
    journal.close()


def test_a_journal_that_cannot_be_used_now_is_not_called_damaged(tmp_path: Path) -> None:
    """Nobody should move it away because of a full disk or a lock."""
    (tmp_path / "journal.sqlite").mkdir()
    with pytest.raises(DecloudError, match="can't use the journal") as caught:
        Journal(tmp_path / "journal.sqlite")
    assert not isinstance(caught.value, CorruptionError)


def test_a_failed_write_leaves_nothing_behind(path: Path, journal: Journal) -> None:
    """Row and event are one transaction."""
    entry = entry_in(journal, State.SEEN)
    journal._db.execute(
        "CREATE TRIGGER no BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'x'); END"
    )
    with pytest.raises(sqlite3.IntegrityError):
        journal.move(entry, State.WATCHING, "yes", entry.facts)
    assert journal.entry(KEY) == entry


WRITER = """
import os, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from roundvalues import KEY, a_round, an_intent
from decloud_trainer.rounds import intents
from decloud_trainer.rounds.entry import State
from decloud_trainer.rounds.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.saw(KEY, a_round())
entry = journal.entry(KEY)
entry = journal.move(entry, State.FETCHED, "ready", entry.facts)
intents.record(journal, entry, an_intent())
print("written", flush=True)
journal._db.execute("BEGIN IMMEDIATE")
journal._db.execute("UPDATE rounds SET state = 'lost'")
print("in the middle", flush=True)
time.sleep(60)
"""


def test_a_kill_loses_nothing_that_was_written(path: Path) -> None:
    """After kill -9 in the middle of a transaction, all before it is there and it is not."""
    tests = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", WRITER, str(path), tests]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert [writer.stdout.readline() for _ in range(2)] == ["written\n", "in the middle\n"]
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
    journal = Journal(path)
    entry = journal.entry(KEY)
    assert entry is not None
    assert entry.state is State.FETCHED
    assert intents.under_way(journal, entry, ActionKind.JOIN) == an_intent()
    journal.close()


READER = """
import sys
from pathlib import Path
from decloud_trainer.rounds.journal import Journal

journal = Journal(Path(sys.argv[1]))
print(*(entry.key.round_id for entry in journal.entries()), flush=True)
journal.close()
"""


def test_a_journal_opened_twice_here_is_whole_to_other_processes(
    path: Path, journal: Journal
) -> None:
    """The metrics open it beside the daemon: commands that come and go take nothing away."""
    beside = Journal(path)

    def read_elsewhere() -> str:
        command = [sys.executable, "-c", READER, str(path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    entry_in(journal, State.SEEN, number=1)
    assert read_elsewhere() == "1\n"
    entry_in(journal, State.SEEN, number=2)
    assert read_elsewhere() == "1 2\n"
    assert len(beside.entries()) == 2
    beside.close()


async def test_a_cancelled_caller_does_not_undo_a_write(path: Path) -> None:
    """What was asked of the thread is done, in the order in which it was asked."""
    thread = JournalThread(path)
    started, goes_on = threading.Event(), threading.Event()

    def slow(journal: Journal) -> None:
        started.set()
        goes_on.wait(5)
        journal.saw(KEY, a_round())

    task = asyncio.create_task(thread(slow))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    goes_on.set()
    assert await thread(Journal.entry, KEY) is not None
    thread.close()


def test_a_thread_over_a_damaged_file_raises_and_ends(path: Path) -> None:
    """Opening fails as `Journal` does, and no thread stays behind."""
    path.parent.mkdir()
    path.write_bytes(b"x" * 5000)
    before = threading.active_count()
    with pytest.raises(CorruptionError):
        JournalThread(path)
    assert threading.active_count() == before
