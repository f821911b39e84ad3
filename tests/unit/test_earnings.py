"""Every lamport is in the book once, and the sums are exact."""

from __future__ import annotations

import csv
import io
import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decloud_trainer.cli.earnings import parse_since
from decloud_trainer.cli.earnings_view import amounts, bars, kept_columns
from decloud_trainer.cli.main import main
from decloud_trainer.money import lamports_from_sol
from decloud_trainer.rounds import intents, ledger, transfers
from decloud_trainer.rounds.entry import Entry, Facts, RowKey, State
from decloud_trainer.rounds.figures import counts
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import (
    NO_ROUND,
    Action,
    ActionKind,
    Dataset,
    Intent,
    Outcome,
    OutcomeState,
    Round,
    RoundStatus,
)

MAINNET = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"
LOCAL = "8Yd4LocalNetworkHash"
DAY = 86_400.0
START = 1_767_225_600.0  # 2026-01-01 00:00 UTC
FEE, RENT, REWARD = 5_000, 1_684_320, 88_200_000


def a_round(number: int, dataset: str = "Mnist") -> Round:
    return Round(
        id=number,
        creator="creator",
        model_cid="cid",
        dataset=Dataset(0, dataset),
        reward_lamports=10**8,
        status=RoundStatus.COMPLETED,
        status_index=4,
        validator=None,
        validator_fee_bps=0,
        baseline_score=0,
        created_at=0,
        validator_deadline=0,
        join_deadline=0,
        submit_deadline=0,
        trainers_count=1,
        submissions_count=1,
    )


@dataclass
class Book:
    """A journal that is filled as the daemon does it, at times of its own."""

    journal: Journal
    now: float = START

    def round(
        self, number: int, genesis: str = MAINNET, dataset: str = "Mnist", wallet: str = "wallet"
    ) -> Entry:
        key = RowKey(genesis, "program", wallet, number)
        self.journal.saw(key, a_round(number, dataset))
        entry = self.journal.entry(key)
        assert entry is not None
        return entry

    def sent(self, entry: Entry, kind: ActionKind, outcome: Outcome | None) -> str:
        key = entry.key
        signature = f"{kind.value}-{key.genesis[:4]}-{key.wallet}-{key.round_id}-{self.now:.0f}"
        intent = Intent(Action(kind, key.round_id), signature, b"raw", 1)
        intents.record(self.journal, entry, intent)
        if outcome is not None:
            intents.settle(self.journal, entry, intent, outcome)
        return signature

    def joined(self, entry: Entry) -> str:
        return self.sent(entry, ActionKind.JOIN, landed(-RENT - FEE))

    def claimed(self, entry: Entry, reward: int = REWARD) -> str:
        self.sent(entry, ActionKind.SUBMIT, landed(-FEE))
        signature = self.sent(entry, ActionKind.CLAIM, landed(reward - FEE))
        self.journal.move(entry, State.CLAIMED, "claimed", Facts())
        return signature

    def postings(self) -> list[ledger.Posting]:
        return ledger.postings(self.journal.entries(), intents.sent_by_row(self.journal))


def landed(change: int) -> Outcome:
    return Outcome(OutcomeState.LANDED, 1, FEE, change)


def refused() -> Outcome:
    return Outcome(OutcomeState.REJECTED, 1, FEE, -FEE, "RoundFull", 6010, "the round is full")


@pytest.fixture
def book(own_home: Path) -> Any:
    """The journal of this test's home, which the command reads, too."""
    made = Book(Journal(own_home / "decloud" / "journal.sqlite", clock=lambda: made.now))
    yield made
    made.journal.close()


def three_rounds(book: Book) -> list[str]:
    """Two claimed ones on two days, and one that is still open; their claims' signatures."""
    first, second, third = book.round(1), book.round(2, dataset="Cifar10"), book.round(3)
    for entry in (first, second, third):
        book.joined(entry)
        book.now += 60
    book.now = START + 1.5 * DAY
    signatures = [book.claimed(first)]
    book.now = START + 2.5 * DAY
    return [*signatures, book.claimed(second, 5)]


# The book itself


def test_sums_are_exact_and_equal_what_the_wallet_saw(book: Book) -> None:
    """Rewards less rent less fees is the change of the balance, to the lamport."""
    three_rounds(book)
    totals = ledger.totals(posting.line for posting in book.postings())
    assert totals.rewards_lamports == REWARD + 5
    assert totals.rent_lamports == 3 * RENT
    assert totals.fees_lamports == 7 * FEE
    assert totals.net_lamports == sum(p.line.change_lamports for p in book.postings())


def test_only_what_reached_the_chain_counts(book: Book) -> None:
    """A refused transaction costs its fee; one that is open, expired or was never sent nothing."""
    for number, outcome in enumerate(
        [refused(), None, Outcome(OutcomeState.EXPIRED), Outcome(OutcomeState.REJECTED)]
    ):
        book.sent(book.round(number), ActionKind.JOIN, outcome)
    (posting,) = book.postings()
    assert (posting.line.fee_lamports, posting.line.rent_lamports) == (FEE, 0)
    assert not posting.line.landed
    assert ledger.totals([posting.line]).net_lamports == -FEE


def test_rounds_of_the_same_number_on_other_networks_stay_apart(book: Book) -> None:
    """Play money is never added to real money, nor one wallet's round to another's."""
    entries = [book.round(1), book.round(1, LOCAL), book.round(1, wallet="other")]
    for entry in entries:
        book.joined(entry)
    found = book.postings()
    assert [posting.network for posting in found] == ["mainnet-beta", "localnet", "mainnet-beta"]
    assert len(ledger.grouped(found, lambda posting: posting.key)) == 3


def test_success_counts_rounds_that_we_were_in(book: Book) -> None:
    """Claimed among joined: refused joins and skipped rounds are no part of it, rounds joined by
    another machine are; since a time, those joined since then."""
    three_rounds(book)
    book.sent(book.round(4), ActionKind.JOIN, refused())
    book.round(5)
    adopted = book.round(6)
    book.journal.move(adopted, State.LOST, "nothing came of it", Facts(adopted=True))
    entries, sent = book.journal.entries(), intents.sent_by_row(book.journal)
    found = ledger.success(entries, sent)
    assert (found.joined, found.claimed, found.open) == (4, 2, 1)
    assert found.rate == 0.5
    assert ledger.success(entries, sent, since=START + 30).joined == 3
    assert ledger.success([], {}).rate is None


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(ActionKind)),
            st.integers(0, 3),
            st.integers(0, 10**6),
            st.integers(0, 10**15),
        ),
        max_size=20,
    )
)
def test_groups_lose_nothing(parts: list[tuple[ActionKind, int, int, int]]) -> None:
    """However the book is grouped, the groups' sums make up the whole."""
    postings = []
    for index, (kind, number, fee, amount) in enumerate(parts):
        change = {"claim": amount - fee, "submit": -fee}.get(kind.value, -amount - fee)
        line = ledger.Line(float(index), number, kind, str(index), fee, change)
        postings.append(ledger.Posting(line, RowKey("g", "p", "w", number), "Mnist"))
    whole = ledger.totals(posting.line for posting in postings)
    changed = sum(posting.line.change_lamports for posting in postings)
    assert whole.net_lamports - whole.stored_lamports == changed
    groups = ledger.grouped(postings, lambda posting: posting.line.round_id)
    sums = [ledger.totals(posting.line for posting in group) for group in groups.values()]
    assert sum(part.net_lamports for part in sums) == whole.net_lamports
    assert sum(part.fees_lamports for part in sums) == whole.fees_lamports


# What the command shows


def test_a_transfer_to_the_cold_address_is_no_loss(
    book: Book, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is in the book, with its fee; it is of no round, and the net doesn't count it."""
    entry = book.round(1)
    book.joined(entry)
    book.claimed(entry)
    scope = replace(entry.key, round_id=NO_ROUND)
    action = Action(ActionKind.TRANSFER, NO_ROUND, to="cold", lamports=50_000_000)
    intent = Intent(action, "transfer", b"raw", 1)
    book.now += 60
    transfers.record(book.journal, scope, intent)
    assert transfers.under_way(book.journal, scope) == intent
    transfers.settle(book.journal, intent, landed(-50_000_000 - FEE))
    assert transfers.under_way(book.journal, scope) is None
    text = told(capsys)
    assert "Stored:" in text
    assert "0.05 SOL sent to the cold address" in text
    shown = json.loads(told(capsys, "--json"))
    assert shown["stored_lamports"] == 50_000_000
    assert shown["net_lamports"] == REWARD - RENT - 4 * FEE
    assert [one["round"] for one in shown["rounds"]] == [1]
    assert [one["round"] for one in shown["transactions"]] == [1, 1, 1, None]
    tally = counts(book.journal, entry.key)
    assert tally.transactions[("transfer", "landed")] == 1
    assert tally.fees_lamports == shown["fees_lamports"]
    rows = list(csv.DictReader(io.StringIO(told(capsys, "--csv"))))
    assert sum(int(row["change_lamports"]) for row in rows) == REWARD - RENT - 4 * FEE - 50_000_000
    assert {row["round"] for row in rows if row["kind"] == "transfer"} == {""}


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["earnings", *words]) == 0
    return capsys.readouterr().out


def test_csv_has_every_transaction_exactly(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    """One line per transaction with its signature; lamports are whole numbers that add up."""
    signatures = three_rounds(book)
    rows = list(csv.DictReader(io.StringIO(told(capsys, "--csv"))))
    assert len(rows) == 7
    assert sum(int(row["change_lamports"]) for row in rows) == REWARD + 5 - 3 * RENT - 7 * FEE
    claims = [row for row in rows if row["kind"] == "claim"]
    assert [row["signature"] for row in claims] == signatures
    assert claims[0]["time"] == "2026-01-02T12:00:00+00:00"
    assert claims[0] | {"time": ""} == {
        "time": "",
        "network": "mainnet-beta",
        "wallet": "wallet",
        "round": "1",
        "dataset": "Mnist",
        "kind": "claim",
        "landed": "yes",
        "reward_lamports": str(REWARD),
        "rent_lamports": "0",
        "fee_lamports": str(FEE),
        "priority_lamports": "0",
        "change_lamports": str(REWARD - FEE),
        "signature": signatures[0],
    }


def test_json_has_totals_groups_and_transactions(
    book: Book, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts get the same numbers in lamports, with the average since the first join."""
    three_rounds(book)
    monkeypatch.setattr(time, "time", lambda: START + 100 * 3600)
    found = json.loads(told(capsys, "--json"))
    net = REWARD + 5 - 3 * RENT - 7 * FEE
    assert found["net_lamports"] == net
    assert (found["hours"], found["net_lamports_per_hour"]) == (100.0, round(net / 100))
    assert (found["joined"], found["claimed"], found["open"]) == (3, 2, 1)
    assert [part["dataset"] for part in found["datasets"]] == ["Mnist", "Cifar10"]
    assert [part["round"] for part in found["rounds"]] == [1, 2, 3]
    for groups in ("days", "datasets", "rounds"):
        assert sum(part["net_lamports"] for part in found[groups]) == net
    assert len(found["transactions"]) == 7


def test_since_leaves_out_what_was_before(
    book: Book, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The average then counts from that time, not from the first join."""
    three_rounds(book)
    monkeypatch.setattr(time, "time", lambda: START + 3 * DAY)
    found = json.loads(told(capsys, "--since", "24h", "--json"))
    assert found["net_lamports"] == 5 - 2 * FEE
    assert found["hours"] == 24.0
    assert found["joined"] == 0


def test_networks_are_shown_one_at_a_time(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    """The configured network's by default; others are named and can be asked for."""
    three_rounds(book)
    book.joined(book.round(9, LOCAL))
    assert "also in the journal: localnet" in told(capsys)
    local = json.loads(told(capsys, "--network", "localnet", "--json"))
    assert local["net_lamports"] == -RENT - FEE
    none = told(capsys, "--network", "devnet")
    assert "no transaction on devnet" in none
    assert "localnet, mainnet-beta" in none


def test_text_shows_totals_a_chart_and_signatures(
    book: Book, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a pipe the chart is plain ASCII; transactions are listed in full when asked for."""
    signatures = three_rounds(book)
    text = told(capsys)
    assert "67 % (2 of 3 joined rounds claimed, 1 still open)" in text
    assert f"-{3 * RENT / 1e9:.8f}" in text
    assert "####" in text
    assert text.isascii()
    assert signatures[0] not in text
    listed = told(capsys, "--by", "transaction")
    assert all(signature in listed for signature in signatures)
    assert "Dataset" not in listed


def test_a_long_book_is_shortened_for_people_alone(
    book: Book, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the latest rounds are shown unless all are asked for; JSON always has all."""
    for number in range(20):
        book.joined(book.round(number))
        book.now += 1
    assert "and 5 more (--by round shows all)" in told(capsys)
    assert "more (" not in told(capsys, "--by", "round")
    assert len(json.loads(told(capsys, "--json"))["rounds"]) == 20


def test_without_a_journal_there_is_nothing_to_show(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new user gets a sentence, and no file is made by looking."""
    assert "no transaction on mainnet-beta" in told(capsys)
    assert told(capsys, "--csv").count("\n") == 1
    assert not (own_home / "decloud" / "journal.sqlite").exists()


def test_csv_and_json_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage, exit code 2."""
    assert main(["earnings", "--csv", "--json"]) == 2
    assert main(["earnings", "--since", "soon"]) == 2
    assert "2026-01-31" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 7 * DAY), ("12h", 43_200), ("2W", 14 * DAY), (" 1 d ", DAY)]
)
def test_spans_count_back_from_now(text: str, seconds: float) -> None:
    """Hours, days and weeks."""
    assert parse_since(text, START) == START - seconds


def test_dates_are_local() -> None:
    """A date is its local midnight; a time with an offset is that moment."""
    local = datetime.fromtimestamp(parse_since("2026-03-01", START)).astimezone()
    assert (local.day, local.hour, local.minute) == (1, 0, 0)
    assert parse_since("2026-01-01T00:00:00+00:00", 0) == START
    assert datetime.fromtimestamp(START, UTC).year == 2026
    for wrong in ("", "7", "7y", "yesterday", "2026-13-01", "99999h d"):
        with pytest.raises(click.BadParameter):
            parse_since(wrong, START)


@given(st.lists(st.integers(-(10**18), 10**18), min_size=1, max_size=6))
def test_amounts_are_exact_and_aligned(lamports: list[int]) -> None:
    """Points stand below each other, and reading the text back gives the lamports."""
    texts = amounts(lamports)
    assert len({len(text) for text in texts}) == 1
    assert len({len(text.partition(".")[2]) for text in texts}) == 1
    for text, amount in zip(texts, lamports, strict=True):
        assert lamports_from_sol(text.strip().lstrip("-")) == abs(amount)
        assert text.strip().startswith("-") is (amount < 0)


def test_bars_tell_gains_from_losses() -> None:
    """The largest amount has the whole width, a small one at least a sign, nothing none."""
    assert bars([100, -50, 1, 0], 10) == ["#" * 10, "-" * 5, "#", ""]
    assert bars([0], 10) == [""]


def test_a_narrow_terminal_gets_fewer_columns_and_whole_amounts() -> None:
    """What doesn't fit is left out, the net amount never; without a terminal nothing is."""
    names = ("Round", "Dataset", "Rewards", "Rent", "Fees", "Net (SOL)")
    columns = {name: ["-0.123456789"] for name in names}
    for width, left in {None: 6, 82: 6, 81: 5, 60: 4, 12: 2}.items():
        kept = kept_columns(columns, width)
        assert len(kept) == left, width
        assert {"Round", "Net (SOL)"} <= kept.keys()
    about_datasets = {name: columns[name] for name in names[1:]}
    assert list(kept_columns(about_datasets, 12)) == ["Dataset", "Net (SOL)"]


def test_a_line_without_a_round_has_no_dataset(book: Book) -> None:
    """A row whose round was never read is booked all the same."""
    entry = replace(book.round(1), round=None)
    book.joined(entry)
    (posting,) = ledger.postings([entry], intents.sent_by_row(book.journal))
    assert posting.dataset == ""
