"""Alive but not earning: what is an alarm, and whom losses keep away; all of it pure."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from roundvalues import KEY, NOW, SOL, a_round, situation, terms

from decloud_trainer.rounds.entry import NOTHING_KNOWN, Entry, Facts, State
from decloud_trainer.rounds.model import Round, RoundStatus
from decloud_trainer.rounds.policy import decide, explain
from decloud_trainer.rounds.watchdog import (
    ALARMS,
    BLAMED,
    BLIND_S,
    Alarm,
    BackOff,
    Ended,
    Loss,
    Missed,
    Patience,
    Sight,
    Subject,
    Unclaimed,
    alarms,
    back_offs,
    ended_of,
)

THREE = Patience(losses=3, back_off_s=3600.0, quiet_s=7200.0)


def an_end(number: int, loss: Loss | None, ago_s: float = 60.0, **who: str) -> Ended:
    named = {"creator": "C", "validator": "V", "dataset": "mnist", **who}
    return Ended(number, NOW - ago_s, loss, {Subject(name): text for name, text in named.items()})


def left_alone(*ended: Ended, patience: Patience = THREE, now: float = NOW) -> set[str]:
    return {f"{one.subject.value} {one.name}" for one in back_offs(ended, now, patience)}


def test_losses_in_a_row_keep_their_creator_and_validator_away() -> None:
    """The third one does, until the time is over; it is said of which rounds and until when."""
    ended = [an_end(number, Loss.UNPAID, ago_s=60 * (10 - number)) for number in (9, 7, 4)]
    found = back_offs(ended, NOW, THREE)
    assert {(one.subject, one.name) for one in found} == {
        (Subject.CREATOR, "C"),
        (Subject.VALIDATOR, "V"),
    }
    assert {one.until for one in found} == {NOW - 60 + 3600}
    assert "3 losses in a row with creator C (rounds 9, 7, 4)" in found[0].text
    assert "2027-01-15 08:59 UTC" in found[0].text
    assert left_alone(*ended[:2]) == set()
    assert left_alone(*ended, now=NOW + 3600) == set()


def test_a_share_ends_the_row_and_another_loss_goes_on_with_it() -> None:
    """What counts is the latest rounds; after the time one round is the trial."""
    old = [an_end(n, Loss.NO_SHARE, ago_s=10_000) for n in (3, 2, 1)]
    assert left_alone(*old) == set()
    assert "creator C" in left_alone(an_end(4, Loss.NO_SHARE), *old)
    assert left_alone(an_end(5, Loss.NO_SHARE), an_end(4, None), *old) == set()


@pytest.mark.parametrize(
    ("loss", "blamed"),
    [
        (Loss.UNPAID, {"creator", "validator"}),
        (Loss.NO_SHARE, {"creator", "validator", "dataset"}),
        (Loss.USELESS, {"creator", "dataset"}),
        (Loss.LATE, set()),
    ],
)
def test_only_who_can_be_to_blame_is_left_alone(loss: Loss, blamed: set[str]) -> None:
    """A validator isn't left alone for what couldn't be trained; nobody is for our own delays."""
    ended = [an_end(n, loss, creator=f"C{n % 2}") for n in (1, 2, 3, 4, 5, 6)]
    assert {name.partition(" ")[0] for name in left_alone(*ended)} == blamed
    assert set(BLAMED) == set(Loss)


def test_a_dataset_is_only_left_alone_for_losses_with_several_creators() -> None:
    """Those of one creator are that creator's."""
    ended = [an_end(n, Loss.USELESS) for n in (1, 2, 3)]
    assert left_alone(*ended) == {"creator C"}
    others = [an_end(n, Loss.USELESS, creator=f"C{n}") for n in (1, 2, 3)]
    assert left_alone(*others) == {"dataset mnist"}


def test_without_a_limit_nobody_is_left_alone() -> None:
    """max_losses=0 turns it off, and the alarm as well."""
    ended = [an_end(n, Loss.NO_SHARE) for n in range(50)]
    assert left_alone(*ended, patience=Patience(losses=0)) == set()
    assert alarms(a_sight(ended=ended), Patience(losses=0)) == ()


BARRED = BackOff(Subject.CREATOR, "creator", (7, 6, 5), NOW + 60)


def test_a_round_of_somebody_left_alone_is_skipped_with_the_reason() -> None:
    """It may be taken when the time is over, and at once when a user asks for it."""
    decision = decide(a_round(), terms(), situation(back_offs=(BARRED,)))
    assert (decision.take, decision.lasting) == (False, False)
    assert decision.reason == BARRED.text
    assert decide(a_round(), terms(), situation(back_offs=(BARRED,)), asked=True).take
    assert decide(a_round(creator="another"), terms(), situation(back_offs=(BARRED,))).take
    verdict = next(
        one
        for one in explain(a_round(), terms(), situation(back_offs=(BARRED,)))
        if one.rule == "no row of losses"
    )
    assert not verdict.passed


@pytest.mark.parametrize(
    ("subject", "name", "changes"),
    [
        (Subject.VALIDATOR, "validator", {"validator": None}),
        (
            Subject.DATASET,
            "mnist",
            {"dataset": dataclasses.replace(a_round().dataset, name="Digits")},
        ),
    ],
)
def test_validators_and_datasets_bar_their_rounds_alone(
    subject: Subject, name: str, changes: dict[str, Any]
) -> None:
    """A round that no validator has taken isn't barred by one."""
    barred = BackOff(subject, name, (3, 2, 1), NOW + 60)
    assert not decide(a_round(), terms(), situation(back_offs=(barred,))).take
    assert decide(a_round(**changes), terms(), situation(back_offs=(barred,))).take


def an_entry(state: State, round: Round, facts: Facts = NOTHING_KNOWN) -> Entry:
    return Entry(1, KEY, state, "", facts, round, 0.0, 0, NOW - 500, NOW - 60)


@pytest.mark.parametrize(
    ("state", "changes", "facts", "loss"),
    [
        (State.CLAIMED, {"status": RoundStatus.COMPLETED}, {"gradient_cid": "b"}, None),
        (State.CLAIMABLE, {"status": RoundStatus.COMPLETED}, {"gradient_cid": "b"}, None),
        (
            State.LOST,
            {"status": RoundStatus.COMPLETED},
            {"gradient_cid": "b", "contribution_bps": 0},
            Loss.NO_SHARE,
        ),
        (State.LOST, {"status": RoundStatus.EXPIRED}, {"gradient_cid": "b"}, Loss.UNPAID),
        (State.LOST, {"status": RoundStatus.CANCELLED}, {}, Loss.UNPAID),
        (
            State.LOST,
            {"status": RoundStatus.TRAINING, "submit_deadline": int(NOW) - 100},
            {},
            Loss.LATE,
        ),
        (
            State.LOST,
            {"status": RoundStatus.TRAINING, "submit_deadline": int(NOW) + 100},
            {"preview_after": 1.0},
            Loss.USELESS,
        ),
        (State.FAILED, {"status": RoundStatus.TRAINING}, {}, Loss.USELESS),
    ],
)
def test_how_a_round_ended_is_told_from_its_row(
    state: State, changes: dict[str, Any], facts: dict[str, Any], loss: Loss | None
) -> None:
    """From the state, the facts and the chain, never from the words of a reason."""
    ended = ended_of(an_entry(state, a_round(**changes), Facts(**facts)))
    assert ended is not None
    assert (ended.loss, ended.at) == (loss, NOW - 60)
    assert ended.subjects[Subject.DATASET] == "mnist"


def test_rounds_that_go_on_have_not_ended() -> None:
    """Neither those in work nor those that were never taken."""
    for state in (State.SKIPPED, State.JOINED, State.SUBMITTED):
        assert ended_of(an_entry(state, a_round())) is None


def a_sight(**changes: Any) -> Sight:
    """A daemon with which all is well."""
    well = Sight(
        now=NOW,
        started_at=NOW - 100_000,
        last_event_at=NOW - 10,
        balance_lamports=SOL,
        needed_lamports=3_000_000,
    )
    return dataclasses.replace(well, **changes)


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"silent_s": BLIND_S}, "blind", "nothing could be read from the chain for 10 min"),
        ({"last_event_at": NOW - 7200}, "no_events", "nothing has happened for 2 h"),
        (
            {"missed": [Missed(n, "the model is too large") for n in (9, 8, 7)]},
            "none_joined",
            "3 rounds were taken up within 2 h and none could be joined; round 9: the model is",
        ),
        (
            {"unclaimed": [Unclaimed(4, 2, ""), Unclaimed(5, 3, "vault dust")]},
            "claims_failing",
            "a reward can't be claimed; round 5, 3 tries: vault dust",
        ),
        (
            {"balance_lamports": 2_999_999},
            "low_balance",
            "the wallet holds 0.002999999 SOL; a round needs 0.003 SOL",
        ),
        (
            {"ended": [an_end(n, Loss.LATE) for n in (3, 2, 1)]},
            "losing",
            "3 joined rounds in a row brought nothing; the latest, round 3: not handed in in time",
        ),
    ],
)
def test_what_keeps_from_earning_is_an_alarm(
    changes: dict[str, Any], name: str, words: str
) -> None:
    """Each with its numbers; a hair less of it is none."""
    (alarm,) = alarms(a_sight(**changes), THREE)
    assert alarm.name == name
    assert words in alarm.text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"silent_s": BLIND_S - 1},
        {"last_event_at": NOW - 7199},
        {"last_event_at": 0.0, "started_at": NOW - 60},
        {"missed": [Missed(n, "") for n in (3, 2)]},
        {"missed": [Missed(n, "") for n in (4, 3, 2)], "joined": 1},
        {"unclaimed": [Unclaimed(5, 2, "")]},
        {"balance_lamports": 3_000_000},
        {"balance_lamports": None},
        {"ended": [an_end(4, None), *(an_end(n, Loss.LATE) for n in (3, 2, 1))]},
    ],
)
def test_what_is_usual_is_no_alarm(changes: dict[str, Any]) -> None:
    """A quiet hour, a balance that isn't known, a claim that was refused once."""
    assert alarms(a_sight(**changes), THREE) == ()


def test_every_back_off_is_an_alarm_of_its_own() -> None:
    """So a second one is told although the first goes on."""
    ended = [an_end(n, Loss.UNPAID) for n in (3, 2, 1)]
    found = [alarm for alarm in alarms(a_sight(ended=ended), THREE) if alarm.name == "backing_off"]
    assert [alarm.about for alarm in found] == ["creator C", "validator V"]


def test_every_alarm_has_a_name_that_is_listed() -> None:
    """In the order of the list, whatever comes together."""
    everything = a_sight(
        silent_s=BLIND_S,
        missed=[Missed(n, "") for n in range(3)],
        unclaimed=[Unclaimed(5, 9, "")],
        balance_lamports=0,
        ended=[an_end(n, Loss.UNPAID) for n in (3, 2, 1)],
    )
    names = [alarm.name for alarm in alarms(everything, THREE)]
    assert set(names) | {"no_events"} == set(ALARMS)
    assert names == sorted(names, key=list(ALARMS).index)
    assert isinstance(alarms(everything, THREE)[0], Alarm)
