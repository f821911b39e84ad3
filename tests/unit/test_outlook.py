"""What `list`, `explain` and a dry run decide by is what the daemon would."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from roundvalues import NOW, a_round

from decloud_trainer.chain.client import SolanaChain
from decloud_trainer.cli.outlook import Outlook, outlook_now
from decloud_trainer.rounds import marks
from decloud_trainer.rounds.entry import NOTHING_KNOWN, Facts, RowKey, State
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import Costs, RoundStatus
from decloud_trainer.services import program_of
from decloud_trainer.settings import Settings

SETTINGS = Settings()
PROGRAM = str(program_of(SETTINGS))


class Chain:
    """A network with nothing on it."""

    async def genesis_hash(self) -> str:
        return "here"

    async def balance(self) -> int:
        return 5_000_000

    async def costs(self, round_id: int | None = None) -> Costs:
        return Costs(join_rent_lamports=1, fee_lamports=1)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


async def looked(journal: Journal | None, pubkey: str | None = "wallet") -> Outlook:
    return await outlook_now(cast(SolanaChain, Chain()), SETTINGS, pubkey, NOW, journal=journal)


def joined(journal: Journal, number: int, genesis: str = "here", program: str = PROGRAM) -> None:
    key = RowKey(genesis, program, "wallet", number)
    journal.saw(key, a_round(id=number), state=State.JOINED)


async def test_only_rounds_of_this_network_hold_its_slots(journal: Journal) -> None:
    """A local network that is gone for good leaves rounds in work behind; the round itself doesn't
    stand in its own way."""
    joined(journal, 1)
    joined(journal, 2, genesis="a local network of last week")
    joined(journal, 3, program="another")
    outlook = await looked(journal)
    assert outlook.situation(a_round(id=9)).rounds_in_work == 1
    assert outlook.situation(a_round(id=1)).rounds_in_work == 0


async def test_rounds_that_wait_for_a_validator_hold_no_slot_against_others(
    journal: Journal,
) -> None:
    """As in the daemon: only against those that wait for one, too."""
    early = a_round(id=1, status=RoundStatus.WAITING_VALIDATOR)
    journal.saw(RowKey("here", PROGRAM, "wallet", 1), early, state=State.FETCHED)
    outlook = await looked(journal)
    assert outlook.situation(a_round(id=9)).rounds_in_work == 0
    waiting = a_round(id=9, status=RoundStatus.WAITING_VALIDATOR)
    assert outlook.situation(waiting).rounds_in_work == 1


async def test_a_measured_speed_and_a_pause_count(journal: Journal) -> None:
    """What the daemon measured of a round is used for that round alone."""
    measured = Facts(data_samples=600, samples_per_s=10.0)
    for number, facts in ((1, measured), (2, NOTHING_KNOWN)):
        key = RowKey("here", PROGRAM, "wallet", number)
        journal.saw(key, a_round(id=number), state=State.SKIPPED, facts=facts)
    marks.set_mark(journal, marks.PAUSED_UNTIL, time.time() + 60)
    outlook = await looked(journal)
    assert outlook.situation(a_round(id=1)).training_s == 60
    assert outlook.situation(a_round(id=2)).training_s is None
    assert "resume" in outlook.situation(a_round(id=2)).closed


async def test_what_was_refused_here_stays_refused(journal: Journal) -> None:
    """The rules know nothing of a model that could not be trained; the journal does."""
    key = RowKey("here", PROGRAM, "wallet", 7)
    facts = Facts(refused="can't be trained here: no such layer")
    journal.saw(key, a_round(), state=State.SKIPPED, facts=facts)
    outlook = await looked(journal)
    assert outlook.decide(a_round()).reason == facts.refused
    assert not outlook.decide(a_round()).take
    assert outlook.explain(a_round())[-1].text == facts.refused
    assert len(outlook.explain(a_round())) == len(outlook.explain(a_round(id=8))) + 1


async def test_without_a_wallet_or_a_journal_there_is_still_an_answer() -> None:
    """Looking needs neither."""
    situation = (await looked(None)).situation(a_round())
    assert (situation.balance_lamports, situation.rounds_in_work) == (5_000_000, 0)
    assert (await looked(None, None)).situation(a_round()).balance_lamports is None
