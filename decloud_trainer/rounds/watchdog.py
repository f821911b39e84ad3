"""Alive but not earning: what is wrong, and whom to keep away from. Pure: facts and a clock in,
alarms and back-offs out.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from decloud_trainer.money import format_sol
from decloud_trainer.rounds.entry import Entry, State
from decloud_trainer.rounds.model import RoundStatus

# Nothing could be read from the chain and nothing was told by it for so long: we are blind.
BLIND_S = 600.0
# Rounds that were taken up and given up again, with none joined, before that is a pattern.
FEW_MISSES = 3
# Refused or failed claims of one round before that is more than bad luck.
CLAIM_TRIES = 3


class Subject(enum.Enum):
    """Whom losses have in common."""

    CREATOR = "creator"
    VALIDATOR = "validator"
    DATASET = "dataset"


class Loss(enum.Enum):
    """Why a joined round brought nothing."""

    UNPAID = "ended without rewards"  # expired or cancelled
    NO_SHARE = "without a share"  # completed; the validator gave us nothing
    USELESS = "not worth handing in"  # couldn't be trained, or to no good
    LATE = "not handed in in time"  # our own doing: nobody else is to blame


# A dataset's losses only count when more than one creator had them: else that one explains them.
BLAMED: Mapping[Loss, frozenset[Subject]] = {
    Loss.UNPAID: frozenset({Subject.CREATOR, Subject.VALIDATOR}),
    Loss.NO_SHARE: frozenset(Subject),
    Loss.USELESS: frozenset({Subject.CREATOR, Subject.DATASET}),
    Loss.LATE: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Ended:
    """A round that we had joined, and what came of it.

    Attributes:
        at: unix seconds of the chain.
        loss: None if it brought a share.
        subjects: creator and validator as addresses, the dataset as its key.
        equal_shares: what it brought, where 1 is as much as each trainer would have had of an
            equal division; None if we don't know our share.
        improvement: as previewed, percentage points.
    """

    round_id: int
    at: float
    loss: Loss | None
    subjects: Mapping[Subject, str]
    equal_shares: float | None = None
    improvement: float | None = None


def ended_of(entry: Entry) -> Ended | None:
    """What came of the row's round; None while that is open, and for rows never joined."""
    seen = entry.round
    if seen is None or not (entry.state.is_final or entry.state is State.CLAIMABLE):
        return None
    subjects = {Subject.CREATOR: seen.creator, Subject.DATASET: seen.dataset.key}
    if seen.validator is not None:
        subjects[Subject.VALIDATOR] = seen.validator
    loss, bps = _loss(entry), entry.facts.contribution_bps
    earned = None if bps is None else bps * seen.trainers_count / 10_000
    return Ended(
        entry.key.round_id,
        entry.updated_at,
        loss,
        subjects,
        earned if loss is None else 0.0,
        entry.facts.improvement,
    )


def _loss(entry: Entry) -> Loss | None:
    seen, facts = entry.round, entry.facts
    assert seen is not None, "asked only for rounds that were seen"
    if entry.state in (State.CLAIMED, State.CLAIMABLE):
        return None
    if facts.contribution_bps == 0:
        return Loss.NO_SHARE
    handed_in = bool(facts.gradient_cid)
    if not handed_in and 0 < seen.submit_deadline < entry.updated_at:
        return Loss.LATE
    if seen.status in (RoundStatus.EXPIRED, RoundStatus.CANCELLED):
        return Loss.UNPAID
    return Loss.NO_SHARE if handed_in else Loss.USELESS


@dataclass(frozen=True, slots=True)
class Patience:
    """How much is put up with.

    Attributes:
        losses: in a row, before it is an alarm, and before whoever they have in common is left
            alone; 0: never.
        back_off_s: how long, from the last of them.
        quiet_s: how long nothing may happen, and no round be joined of those taken up; 0: for ever.
    """

    losses: int = 0
    back_off_s: float = 24 * 3600.0
    quiet_s: float = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class BackOff:
    """No new round is taken of this creator, validator or dataset until then.

    Attributes:
        rounds: the ids of the lost ones, the latest first.
        until: unix seconds of the chain.
    """

    subject: Subject
    name: str
    rounds: tuple[int, ...]
    until: float

    @property
    def text(self) -> str:
        """``3 losses in a row with creator Abc (rounds 9, 7, 4): none of its rounds until ...``"""
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.until))
        shown = ", ".join(str(number) for number in self.rounds[:5])
        more = ", ..." if len(self.rounds) > 5 else ""
        return (
            f"{len(self.rounds)} losses in a row with {self.subject.value} {self.name} "
            f"(rounds {shown}{more}): none of its rounds until {until}"
        )

    def bars(self, creator: str, validator: str | None, dataset: str) -> bool:
        found = {
            Subject.CREATOR: creator,
            Subject.VALIDATOR: validator,
            Subject.DATASET: dataset,
        }
        return found[self.subject] == self.name


def back_offs(ended: Sequence[Ended], now: float, patience: Patience) -> tuple[BackOff, ...]:
    """Whom to leave alone now.

    When the time is over, one round is a trial: another loss adds to the row, a share ends it.

    Args:
        ended: the latest first.
    """
    if not patience.losses:
        return ()
    found = []
    for (subject, name), row in _rows_of_losses(ended).items():
        creators = {one.subjects.get(Subject.CREATOR) for one in row}
        explained = subject is Subject.DATASET and len(creators) == 1
        until = row[0].at + patience.back_off_s
        if len(row) >= patience.losses and now < until and not explained:
            found.append(BackOff(subject, name, tuple(one.round_id for one in row), until))
    return tuple(found)


def _rows_of_losses(ended: Sequence[Ended]) -> dict[tuple[Subject, str], list[Ended]]:
    """The latest losses in a row that each is to blame for; what others are to blame for neither
    counts nor ends a row."""
    rows: dict[tuple[Subject, str], list[Ended]] = {}
    over: set[tuple[Subject, str]] = set()
    for one in ended:
        for key in one.subjects.items():
            if one.loss is None:
                over.add(key)
            elif key[0] in BLAMED[one.loss] and key not in over:
                rows.setdefault(key, []).append(one)
    return rows


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """A share that the chain didn't give us yet.

    Attributes:
        tries: claims that were refused or failed.
    """

    round_id: int
    tries: int
    reason: str


@dataclass(frozen=True, slots=True)
class Missed:
    """A round that was taken up and given up again, unjoined."""

    round_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sight:
    """What the watchdog sees of a running daemon.

    Attributes:
        now: unix seconds of the chain, as all its times.
        started_at: of the session.
        silent_s: since anything was heard of the chain.
        last_event_at: of the journal; 0 if there is none.
        balance_lamports: None if it isn't known.
        needed_lamports: that a round costs, and that must stay in the wallet.
        joined: rounds joined within `Patience.quiet_s`; missed: those given up, the latest first.
        ended: the latest first.
    """

    now: float
    started_at: float
    silent_s: float = 0.0
    last_event_at: float = 0.0
    balance_lamports: int | None = None
    needed_lamports: int = 0
    joined: int = 0
    missed: Sequence[Missed] = ()
    unclaimed: Sequence[Unclaimed] = ()
    ended: Sequence[Ended] = ()


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that keeps us from earning.

    Attributes:
        name: one of ALARMS.
        text: what, with its numbers, and what to do.
        about: tells alarms of one name apart; empty where there is only one.
    """

    name: str
    text: str
    about: str = ""


# Every name, and what it stands for; the names are those of the metrics and the log as well.
ALARMS: Mapping[str, str] = {
    "blind": "nothing can be read from the chain",
    "no_events": "nothing has happened for long",
    "none_joined": "rounds were taken up and none could be joined",
    "claims_failing": "a reward can't be claimed",
    "low_balance": "the wallet can't pay for a round",
    "losing": "the latest rounds were all lost",
    "backing_off": "a creator, validator or dataset is left alone after losses",
}


def alarms(sight: Sight, patience: Patience) -> tuple[Alarm, ...]:
    """Everything that is wrong, in the order of ALARMS."""
    return (
        *_blind(sight),
        *_no_events(sight, patience),
        *_none_joined(sight, patience),
        *_claims_failing(sight),
        *_low_balance(sight),
        *_losing(sight, patience),
        *(
            Alarm("backing_off", one.text, f"{one.subject.value} {one.name}")
            for one in back_offs(sight.ended, sight.now, patience)
        ),
    )


def _blind(sight: Sight) -> Iterable[Alarm]:
    if sight.silent_s >= BLIND_S:
        yield Alarm(
            "blind",
            f"nothing could be read from the chain for {span_text(sight.silent_s)}: "
            "`decloud-trainer doctor` tries every endpoint",
        )


def _no_events(sight: Sight, patience: Patience) -> Iterable[Alarm]:
    quiet = sight.now - max(sight.last_event_at, sight.started_at)
    if 0 < patience.quiet_s <= quiet and sight.silent_s < BLIND_S:
        yield Alarm(
            "no_events",
            f"nothing has happened for {span_text(quiet)}, though the chain can be read: "
            "`decloud-trainer list` shows whether there are rounds",
        )


def _none_joined(sight: Sight, patience: Patience) -> Iterable[Alarm]:
    if patience.quiet_s and not sight.joined and len(sight.missed) >= FEW_MISSES:
        latest = sight.missed[0]
        yield Alarm(
            "none_joined",
            f"{len(sight.missed)} rounds were taken up within {span_text(patience.quiet_s)} and "
            f"none could be joined; round {latest.round_id}: {latest.reason}",
        )


def _claims_failing(sight: Sight) -> Iterable[Alarm]:
    failing = [one for one in sight.unclaimed if one.tries >= CLAIM_TRIES]
    if failing:
        worst = max(failing, key=lambda one: one.tries)
        rewards = "a reward" if len(failing) == 1 else f"{len(failing)} rewards"
        yield Alarm(
            "claims_failing",
            f"{rewards} can't be claimed; round {worst.round_id}, {worst.tries} tries: "
            f"{worst.reason}",
        )


def _low_balance(sight: Sight) -> Iterable[Alarm]:
    balance = sight.balance_lamports
    if balance is not None and balance < sight.needed_lamports:
        yield Alarm(
            "low_balance",
            f"the wallet holds {format_sol(balance)}; a round needs "
            f"{format_sol(sight.needed_lamports)} with what must stay: send it some",
        )


def _losing(sight: Sight, patience: Patience) -> Iterable[Alarm]:
    row = list(takewhile(lambda one: one.loss is not None, sight.ended))
    if 0 < patience.losses <= len(row):
        latest = row[0]
        assert latest.loss is not None, "taken while lost"
        yield Alarm(
            "losing",
            f"{len(row)} joined rounds in a row brought nothing; the latest, round "
            f"{latest.round_id}: {latest.loss.value} "
            f"(`decloud-trainer status {latest.round_id}`)",
        )


def span_text(seconds: float) -> str:
    """``45 min``, ``6 h`` or ``3 days``."""
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 3 * 86_400 else f"{seconds / 86_400:.0f} days"
