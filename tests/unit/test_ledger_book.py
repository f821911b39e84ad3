"""The book: what each transaction did to the wallet, and the sums."""

from __future__ import annotations

from roundvalues import an_intent, landed

from decloud_trainer.rounds.entry import SentIntent
from decloud_trainer.rounds.ledger import lines, totals
from decloud_trainer.rounds.model import ActionKind, Outcome, OutcomeState

RENT, FEE, REWARD = 1_733_040, 5_000, 48_809_880


def sent(kind: ActionKind, outcome: Outcome | None, *, at: float = 1.0) -> SentIntent:
    return SentIntent(7, an_intent(kind, f"{kind.value}{at}"), at, outcome)


def test_a_whole_round_adds_up_to_the_wallets_change() -> None:
    """Rent and fees out, the reward in: the net is the sum of the balance changes."""
    story = [
        sent(ActionKind.JOIN, landed(-RENT - FEE)),
        sent(ActionKind.SUBMIT, landed(-FEE)),
        sent(ActionKind.CLAIM, landed(REWARD - FEE)),
    ]
    book = lines(story)
    assert [line.rent_lamports for line in book] == [RENT, 0, 0]
    assert [line.reward_lamports for line in book] == [0, 0, REWARD]
    sums = totals(iter(book))
    assert (sums.rewards_lamports, sums.rent_lamports) == (REWARD, RENT)
    assert sums.fees_lamports == 3 * FEE
    assert sums.net_lamports == sum(line.change_lamports for line in book)


def test_what_never_reached_the_chain_is_not_in_the_book() -> None:
    """Open, expired and refused before sending: no slot, no fee."""
    story = [
        sent(ActionKind.JOIN, None),
        sent(ActionKind.JOIN, Outcome(OutcomeState.EXPIRED)),
        sent(ActionKind.JOIN, Outcome(OutcomeState.REJECTED, error="no")),
    ]
    assert lines(story) == []
    assert totals([]).net_lamports == 0


def test_a_refusal_that_was_executed_costs_its_fee_and_nothing_else() -> None:
    """It is neither rent nor reward."""
    refused = Outcome(OutcomeState.REJECTED, 12, FEE, -FEE, error="no")
    for kind in ActionKind:
        (line,) = lines([sent(kind, refused)])
        assert not line.landed
        assert (line.rent_lamports, line.reward_lamports, line.fee_lamports) == (0, 0, FEE)
        assert totals([line]).net_lamports == -FEE


def test_the_order_is_the_order_of_signing() -> None:
    """Each line carries its time and its signature."""
    story = [sent(ActionKind.SUBMIT, landed(-FEE), at=at) for at in (1.0, 2.0)]
    assert [(line.at, line.signature) for line in lines(story)] == [
        (1.0, "submit1.0"),
        (2.0, "submit2.0"),
    ]
