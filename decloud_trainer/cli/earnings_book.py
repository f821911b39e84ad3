"""What ``earnings`` reports: the wallet's transactions in a stretch of time, for scripts as CSV and
JSON."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decloud_trainer.rounds.entry import RowKey
    from decloud_trainer.rounds.ledger import Posting, Success, Totals

CSV_COLUMNS = (
    "time",
    "network",
    "wallet",
    "round",
    "dataset",
    "kind",
    "landed",
    "reward_lamports",
    "rent_lamports",
    "fee_lamports",
    "priority_lamports",
    "change_lamports",
    "signature",
)


@dataclass(frozen=True, slots=True)
class Book:
    """What is reported: postings of one network, in a stretch of time.

    Attributes:
        since: unix seconds from which on postings were asked for; None: all.
        began: where the stretch begins: at the network's first posting, or later where later
            ones were asked for; None without a posting.
        elsewhere: other networks that the journal has postings of.
    """

    network: str
    postings: list[Posting]
    success: Success
    totals: Totals
    since: float | None
    began: float | None
    now: float
    elsewhere: tuple[str, ...]

    @property
    def hours(self) -> float:
        """From its beginning until now."""
        return 0.0 if self.began is None else max(self.now - self.began, 0.0) / 3600

    @property
    def net_per_hour(self) -> int | None:
        """Lamports, rounded to a whole one; None for less than a minute."""
        if self.hours < 1 / 60:
            return None
        return round(self.totals.net_lamports / self.hours)


def csv_text(postings: Sequence[Posting]) -> str:
    """A header and one line per transaction, oldest first; times in UTC, money in lamports."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(posting) for posting in postings)
    return text.getvalue()


def _row(posting: Posting) -> dict[str, Any]:
    line = posting.line
    return {
        "time": datetime.fromtimestamp(line.at, UTC).isoformat(timespec="seconds"),
        "network": posting.network,
        "wallet": posting.key.wallet,
        "round": "" if of_no_round(posting) else line.round_id,
        "dataset": posting.dataset,
        "kind": line.kind.value,
        "landed": "yes" if line.landed else "no",
        "reward_lamports": line.reward_lamports,
        "rent_lamports": line.rent_lamports,
        "fee_lamports": line.fee_lamports,
        "priority_lamports": line.priority_lamports,
        "change_lamports": line.change_lamports,
        "signature": line.signature,
    }


def book_json(book: Book) -> dict[str, Any]:
    return {
        "network": book.network,
        "since": book.since,
        "hours": round(book.hours, 3),
        **_totals_json(book.totals),
        "net_lamports_per_hour": book.net_per_hour,
        "joined": book.success.joined,
        "claimed": book.success.claimed,
        "open": book.success.open,
        "success_rate": book.success.rate,
        "days": [{"day": day, **sums} for day, sums in _sums(book.postings, day_of)],
        "datasets": [
            {"dataset": name, **sums} for name, sums in _sums(of_rounds(book.postings), dataset_of)
        ],
        "rounds": [
            {"round": key.round_id, "dataset": dataset, "wallet": key.wallet, **sums}
            for (key, dataset), sums in _sums(of_rounds(book.postings), round_of)
        ],
        "transactions": [
            _row(posting)
            | {
                "landed": posting.line.landed,
                "round": None if of_no_round(posting) else posting.line.round_id,
            }
            for posting in book.postings
        ],
    }


def _totals_json(totals: Totals) -> dict[str, int]:
    return {
        "rewards_lamports": totals.rewards_lamports,
        "rent_lamports": totals.rent_lamports,
        "fees_lamports": totals.fees_lamports,
        "priority_lamports": totals.priority_lamports,
        "stored_lamports": totals.stored_lamports,
        "net_lamports": totals.net_lamports,
    }


def _sums(
    postings: Sequence[Posting], group_of: Callable[[Posting], Any]
) -> list[tuple[Any, dict[str, int]]]:
    return [
        (group, {**_totals_json(totals), "transactions": number})
        for group, totals, number in grouped_totals(postings, group_of)
    ]


def grouped_totals(
    postings: Sequence[Posting], group_of: Callable[[Posting], Any]
) -> list[tuple[Any, Totals, int]]:
    from decloud_trainer.rounds.ledger import grouped, totals

    return [
        (group, totals(posting.line for posting in book), len(book))
        for group, book in grouped(postings, group_of).items()
    ]


def of_no_round(posting: Posting) -> bool:
    """A transfer to the cold address."""
    from decloud_trainer.rounds.model import NO_ROUND

    return posting.line.round_id == NO_ROUND


def of_rounds(postings: Sequence[Posting]) -> list[Posting]:
    return [posting for posting in postings if not of_no_round(posting)]


def day_of(posting: Posting) -> str:
    """The local day."""
    return time.strftime("%Y-%m-%d", time.localtime(posting.line.at))


def dataset_of(posting: Posting) -> str:
    return posting.dataset or "unknown"


def round_of(posting: Posting) -> tuple[RowKey, str]:
    """Its whole key: numbers repeat from one local network to the next."""
    return posting.key, dataset_of(posting)
