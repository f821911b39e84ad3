"""What the journal amounts to, for those who watch: counts and looks back, each one query.

Functions for a `JournalThread`, which runs them beside its own; none of them writes.
"""

from __future__ import annotations

from dataclasses import dataclass

from decloud_trainer.rounds.entry import Entry, Event, RowKey, State
from decloud_trainer.rounds.journal import IN_WORK, Journal
from decloud_trainer.rounds.journal_rows import (
    entry_of,
    event_of,
    key_values,
    read_id,
    stored_id,
)
from decloud_trainer.rounds.model import ActionKind
from decloud_trainer.rounds.watchdog import Ended, Missed, Unclaimed, ended_of

# Of the rounds that ended, only so many are looked back at.
MOST_ENDED = 500

_MINE = "r.genesis = ? AND r.program = ? AND r.wallet = ?"
_REACHED = "i.slot IS NOT NULL"


def newest(journal: Journal, wallet: str, round_id: int) -> Entry | None:
    """The wallet's row of a round of that number; where several networks have one, the row that
    changed last."""
    rows = journal.rows(
        "SELECT * FROM rounds WHERE wallet = ? AND round_id = ? ORDER BY updated_at DESC LIMIT 1",
        wallet,
        stored_id(round_id),
    )
    return entry_of(rows[0]) if rows else None


def in_work(journal: Journal, wallet: str) -> list[Entry]:
    """The wallet's rounds that we take part in, or are about to, on all networks."""
    rows = journal.rows(
        f"SELECT * FROM rounds WHERE wallet = ? AND {IN_WORK} ORDER BY row",  # noqa: S608
        wallet,
    )
    return [entry_of(row) for row in rows]


def latest_rounds(journal: Journal, most: int) -> dict[int, str]:
    """Ids of the rounds that something happened to last, the latest first, with their state."""
    found: dict[int, str] = {}
    for row in journal.rows(
        "SELECT round_id, state FROM rounds ORDER BY updated_at DESC LIMIT ?", most
    ):
        found.setdefault(read_id(row["round_id"]), row["state"])
    return found


def problems(journal: Journal, most: int) -> list[Event]:
    """The latest troubles of all rounds, newest first."""
    rows = journal.rows(
        "SELECT e.*, r.round_id FROM events e JOIN rounds r ON r.row = e.row"
        " WHERE e.kind = 'problem' OR e.to_state = 'failed' ORDER BY e.id DESC LIMIT ?",
        most,
    )
    return [event_of(row, read_id(row["round_id"])) for row in rows]


def ended(journal: Journal, scope: RowKey, most: int = MOST_ENDED) -> tuple[Ended, ...]:
    """The rounds of the scope that we had joined and that are over, the latest first."""
    numbers = journal.rows(
        f"SELECT r.row FROM rounds r WHERE {_MINE}"  # noqa: S608
        " AND r.state IN ('claimable', 'claimed', 'lost', 'failed')"
        " ORDER BY r.updated_at DESC, r.row DESC LIMIT ?",
        *key_values(scope)[:3],
        most,
    )
    # One whole row at a time: the daemon asks after each round, and its memory would keep the size
    # of what it needs for a moment.
    found = (
        ended_of(entry_of(row))
        for number in numbers
        for row in journal.rows("SELECT * FROM rounds WHERE row = ?", number["row"])
    )
    return tuple(one for one in found if one is not None)


@dataclass(frozen=True, slots=True)
class Lately:
    """What happened since a time.

    Attributes:
        last_event_at: of all events, whenever; 0 if there is none.
        joined: rounds of the scope joined since then; missed: those that were taken up and given
            up again, the latest first.
    """

    last_event_at: float
    joined: int
    missed: tuple[Missed, ...]


def lately(journal: Journal, scope: RowKey, since: float) -> Lately:
    """A look back at the events, newest first: as long as `since` is, not as the journal is."""
    mine = key_values(scope)[:3]
    last = journal.rows("SELECT at FROM events ORDER BY id DESC LIMIT 1")
    rows = journal.rows(
        "SELECT e.from_state, e.to_state, e.text, r.round_id, r.state"  # noqa: S608
        " FROM events e CROSS JOIN rounds r ON r.row = e.row"
        " WHERE e.id > COALESCE((SELECT id FROM events WHERE at < ? ORDER BY id DESC LIMIT 1), 0)"
        f" AND {_MINE}"
        " AND e.kind = 'state' ORDER BY e.id DESC",
        since,
        *mine,
    )
    joined = {row["round_id"] for row in rows if row["to_state"] == State.JOINED.value}
    missed: dict[int, Missed] = {}
    for row in rows:
        was_taken = row["from_state"] in (State.WATCHING.value, State.FETCHED.value)
        if was_taken and row["to_state"] == row["state"] == State.SKIPPED.value:
            number = read_id(row["round_id"])
            missed.setdefault(number, Missed(number, row["text"]))
    return Lately(last[0]["at"] if last else 0.0, len(joined), tuple(missed.values()))


def unclaimed(journal: Journal, scope: RowKey) -> tuple[Unclaimed, ...]:
    """Shares that wait for their claim, with how often that was tried."""
    rows = journal.rows(
        "SELECT r.round_id, r.reason, r.failures + ("  # noqa: S608
        "  SELECT COUNT(*) FROM intents i WHERE i.row = r.row"
        "  AND i.kind = 'claim' AND i.state = 'rejected') AS tries"
        f" FROM rounds r WHERE {_MINE} AND r.is_open AND r.state = 'claimable'",
        *key_values(scope)[:3],
    )
    return tuple(Unclaimed(read_id(row["round_id"]), row["tries"], row["reason"]) for row in rows)


def latest_intent(journal: Journal) -> int:
    """The number of the latest transaction that was recorded; 0 if there is none."""
    (row,) = journal.rows("SELECT COALESCE(MAX(rowid), 0) AS number FROM intents")
    return int(row["number"])


def earned(journal: Journal, scope: RowKey, after: int) -> int:
    """Lamports: rewards less rent and fees of the scope's rounds, of transactions after that one
    (see `latest_intent`)."""
    (row,) = journal.rows(
        "SELECT COALESCE(SUM(i.change), 0) AS net"  # noqa: S608
        " FROM intents i CROSS JOIN rounds r ON r.row = i.row"
        f" WHERE i.rowid > ? AND {_MINE} AND {_REACHED}",
        after,
        *key_values(scope)[:3],
    )
    return int(row["net"])


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one wallet on one network, since the journal began.

    Attributes:
        rounds: number by state; every state is there.
        transactions: number by kind and outcome (``landed``, ``rejected``, ``expired``, ``open``).
        rewards_lamports, rent_lamports, fees_lamports: as the ledger has them.
    """

    rounds: dict[str, int]
    transactions: dict[tuple[str, str], int]
    rewards_lamports: int
    rent_lamports: int
    fees_lamports: int


def counts(journal: Journal, scope: RowKey) -> Counts:
    mine = key_values(scope)[:3]
    states = journal.rows(
        f"SELECT r.state, COUNT(*) AS n FROM rounds r WHERE {_MINE} GROUP BY r.state",  # noqa: S608
        *mine,
    )
    sums = journal.rows(
        "SELECT i.kind, i.state, COUNT(*) AS n,"  # noqa: S608
        f" COALESCE(SUM(i.change) FILTER (WHERE {_REACHED}), 0) AS change,"
        f" COALESCE(SUM(i.fee) FILTER (WHERE {_REACHED}), 0) AS fee"
        f" FROM intents i JOIN rounds r ON r.row = i.row WHERE {_MINE} GROUP BY i.kind, i.state",
        *mine,
    )
    sums += journal.rows(
        "SELECT 'transfer' AS kind, i.state, COUNT(*) AS n,"  # noqa: S608
        f" COALESCE(SUM(i.change) FILTER (WHERE {_REACHED}), 0) AS change,"
        f" COALESCE(SUM(i.fee) FILTER (WHERE {_REACHED}), 0) AS fee"
        " FROM transfers i WHERE genesis = ? AND program = ? AND wallet = ? GROUP BY i.state",
        *mine,
    )
    found = {row["state"]: row["n"] for row in states}
    net = dict.fromkeys(ActionKind, 0)  # before fees
    for row in sums:
        net[ActionKind(row["kind"])] += row["change"] + row["fee"]
    return Counts(
        rounds={state.value: found.get(state.value, 0) for state in State},
        transactions={(row["kind"], row["state"]): row["n"] for row in sums},
        rewards_lamports=net[ActionKind.CLAIM],
        rent_lamports=-net[ActionKind.JOIN],
        fees_lamports=sum(row["fee"] for row in sums),
    )
