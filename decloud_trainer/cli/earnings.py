"""``earnings``: what the wallet got and paid, from the journal alone."""

from __future__ import annotations

import csv
import io
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli.output import (
    JSON_OPTION,
    folded,
    print_json,
    print_pairs,
    print_table,
    shows_signs,
    terminal_width,
)
from decloud_trainer.money import format_sol
from decloud_trainer.settings import NETWORKS

if TYPE_CHECKING:
    from decloud_trainer.rounds.entry import RowKey
    from decloud_trainer.rounds.ledger import Posting, Success, Totals

EPILOG = """\b
Examples:
  decloud-trainer earnings
  decloud-trainer earnings --since 7d
  decloud-trainer earnings --since 2026-01-01 --by round --by transaction
  decloud-trainer earnings --csv > earnings.csv
  decloud-trainer earnings --network localnet --json

Nothing is asked of the network: this is what the journal recorded of this home's wallets.
Networks are never added up: without --network it is the one in the settings.
"""

VIEWS = ("day", "dataset", "round", "transaction")
DEFAULT_VIEWS = ("day", "dataset", "round")
# Without --by a table shows no more rows than these, the latest.
FEW = 15
# Width of the chart's longest bar, and between two columns.
BAR, GAP = 24, 2
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

_SPAN = re.compile(r"(\d{1,5})\s*([hdw])", re.IGNORECASE)
_SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}


@dataclass(frozen=True, slots=True)
class Book:
    """What is reported: postings of one network, in a stretch of time.

    Attributes:
        since: unix seconds of its beginning: what was asked for, or the first posting.
        elsewhere: other networks that the journal has postings of.
    """

    network: str
    postings: list[Posting]
    success: Success
    totals: Totals
    since: float | None
    now: float
    elsewhere: tuple[str, ...]

    @property
    def hours(self) -> float:
        """Since the first join, or since the asked time if that is later."""
        if not self.postings:
            return 0.0
        begin = max(self.postings[0].line.at, self.since or 0.0)
        return max(self.now - begin, 0.0) / 3600

    @property
    def net_per_hour(self) -> int | None:
        """Lamports, rounded to a whole one; None for less than a minute."""
        if self.hours < 1 / 60:
            return None
        return round(self.totals.net_lamports / self.hours)


def parse_since(text: str, now: float) -> float:
    """Unix seconds of ``7d``, ``12h``, ``2w`` ago, or of a local date or time."""
    if found := _SPAN.fullmatch(text.strip()):
        return now - int(found[1]) * _SECONDS[found[2].lower()]
    try:
        return datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{text!r} is neither a date such as 2026-01-31 nor a span such as 7d, 12h or 2w",
            param_hint="--since",
        ) from None


@click.command(epilog=EPILOG)
@click.option("--since", metavar="DATE|7d", help="Only from then on: a date, or 12h, 7d, 2w ago.")
@click.option(
    "--by",
    "views",
    type=click.Choice(VIEWS),
    multiple=True,
    help="Which tables, each in full; without it the latest of day, dataset and round.",
)
@click.option("--network", type=click.Choice(NETWORKS), help="Instead of the one in the settings.")
@click.option("--csv", "as_csv", is_flag=True, help="One line per transaction, for spreadsheets.")
@JSON_OPTION
def earnings(
    since: str | None,
    views: tuple[str, ...],
    network: str | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show every lamport in and out, by day, dataset and round.

    Net is rewards less the rent that joining costs and the transactions' fees.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    now = time.time()
    begin = None if since is None else parse_since(since, now)
    book = _book(network or settings_file.load().settings.network, begin, now)
    if as_csv:
        click.echo(csv_text(book.postings), nl=False)
    elif as_json:
        print_json(book_json(book))
    else:
        _print(book, views)


def _book(network: str, since: float | None, now: float) -> Book:
    from decloud_trainer.rounds import ledger
    from decloud_trainer.rounds.journal import Journal
    from decloud_trainer.rounds.transfers import transfers
    from decloud_trainer.wiring import journal_path

    entries, intents, stored = [], {}, []
    if journal_path().exists():
        journal = Journal(journal_path())
        try:
            entries, intents = journal.entries(), journal.intents_by_row()
            stored = transfers(journal)
        finally:
            journal.close()
    everything = ledger.postings(entries, intents, stored)
    postings = [
        posting
        for posting in everything
        if posting.network == network and posting.line.at >= (since or 0.0)
    ]
    of_network = [entry for entry in entries if ledger.network_name(entry.key.genesis) == network]
    return Book(
        network=network,
        postings=postings,
        success=ledger.success(of_network, intents, since=since or 0.0),
        totals=ledger.totals(posting.line for posting in postings),
        since=since,
        now=now,
        elsewhere=tuple(sorted({posting.network for posting in everything} - {network})),
    )


# For scripts


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
        "round": "" if _of_no_round(posting) else line.round_id,
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
        "days": [{"day": day, **sums} for day, sums in _sums(book.postings, _day)],
        "datasets": [
            {"dataset": name, **sums} for name, sums in _sums(_of_rounds(book.postings), _dataset)
        ],
        "rounds": [
            {"round": key.round_id, "dataset": dataset, "wallet": key.wallet, **sums}
            for (key, dataset), sums in _sums(_of_rounds(book.postings), _round)
        ],
        "transactions": [
            _row(posting)
            | {
                "landed": posting.line.landed,
                "round": None if _of_no_round(posting) else posting.line.round_id,
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
        for group, totals, number in _groups(postings, group_of)
    ]


def _groups(
    postings: Sequence[Posting], group_of: Callable[[Posting], Any]
) -> list[tuple[Any, Totals, int]]:
    from decloud_trainer.rounds.ledger import grouped, totals

    return [
        (group, totals(posting.line for posting in book), len(book))
        for group, book in grouped(postings, group_of).items()
    ]


def _of_no_round(posting: Posting) -> bool:
    """A transfer to the cold address."""
    from decloud_trainer.rounds.model import NO_ROUND

    return posting.line.round_id == NO_ROUND


def _of_rounds(postings: Sequence[Posting]) -> list[Posting]:
    return [posting for posting in postings if not _of_no_round(posting)]


def _day(posting: Posting) -> str:
    """The local day."""
    return time.strftime("%Y-%m-%d", time.localtime(posting.line.at))


def _dataset(posting: Posting) -> str:
    return posting.dataset or "unknown"


def _round(posting: Posting) -> tuple[RowKey, str]:
    """Its whole key: numbers repeat from one local network to the next."""
    return posting.key, _dataset(posting)


# For people


def _print(book: Book, views: tuple[str, ...]) -> None:
    if not book.postings:
        when = "" if book.since is None else " since then"
        click.echo(f"no transaction on {book.network}{when} is in the journal")
    else:
        _print_summary(book)
        for view in views or DEFAULT_VIEWS:
            click.echo()
            _print_view(book, view, shortened=not views)
    if book.elsewhere:
        click.echo(f"\nalso in the journal: {', '.join(book.elsewhere)} (--network shows it)")


def _print_summary(book: Book) -> None:
    totals, success = book.totals, book.success
    first = book.since or book.postings[0].line.at
    rate = "-" if success.rate is None else f"{100 * success.rate:.0f} %"
    still = f", {success.open} still open" if success.open else ""
    priority, stored = "", {}
    if totals.priority_lamports:
        priority = f" (of it {format_sol(-totals.priority_lamports)} to land early)"
    if totals.stored_lamports:
        stored["Stored"] = f"{format_sol(totals.stored_lamports)} sent to the cold address"
    print_pairs(
        {
            "Network": book.network,
            "Since": f"{_local_time(first)} ({_hours_text(book.hours)})",
            "Rewards": format_sol(totals.rewards_lamports),
            "Rent": f"{format_sol(-totals.rent_lamports)} (of joining; it never comes back)",
            "Fees": format_sol(-totals.fees_lamports) + priority,
            "Net": format_sol(totals.net_lamports),
            "Per hour": "-" if book.net_per_hour is None else format_sol(book.net_per_hour),
            "Success": f"{rate} ({success.claimed} of {success.joined} joined rounds claimed"
            f"{still})",
            **stored,
        }
    )


def _print_view(book: Book, view: str, *, shortened: bool) -> None:
    if view == "transaction":
        _print_transactions(book.postings)
        return
    group_of = {"day": _day, "dataset": _dataset, "round": _round}[view]
    kept = book.postings if view == "day" else _of_rounds(book.postings)
    groups = _groups(kept, group_of)
    shown = groups[-FEW:] if shortened else groups
    sums = [totals for _, totals, _ in shown]
    columns = _labels(view, [group for group, _, _ in shown]) | {
        "Rewards": amounts([totals.rewards_lamports for totals in sums]),
        "Rent": amounts([-totals.rent_lamports for totals in sums]),
        "Fees": amounts([-totals.fees_lamports for totals in sums]),
        "Net (SOL)": amounts([totals.net_lamports for totals in sums]),
    }
    width = terminal_width() if sys.stdout.isatty() else None
    columns = fitting(columns, width)
    if view == "day" and (size := _bar_size(columns, width)):
        columns[" "] = bars([totals.net_lamports for totals in sums], size)
    print_table(list(columns), list(zip(*columns.values(), strict=True)))
    if len(shown) < len(groups):
        click.echo(f"and {len(groups) - len(shown)} more (--by {view} shows all)")


def _labels(view: str, groups: Sequence[Any]) -> dict[str, list[str]]:
    if view == "round":
        rounds = [str(key.round_id) for key, _ in groups]
        return {"Round": rounds, "Dataset": [dataset for _, dataset in groups]}
    return {view.capitalize(): list(groups)}


def fitting(columns: Mapping[str, list[str]], width: int | None) -> dict[str, list[str]]:
    """Without the columns that a narrow terminal has no room for: an amount is never cut off."""
    kept = dict(columns)
    for name in ("Fees", "Rent", "Dataset", "Rewards"):
        if width is None or _width(kept) <= width or len(kept) == 2:
            break
        kept.pop(name, None)
    return kept


def _width(columns: Mapping[str, list[str]]) -> int:
    return sum(max(map(len, [name, *texts])) + GAP for name, texts in columns.items()) - GAP


def _bar_size(columns: Mapping[str, list[str]], width: int | None) -> int:
    """What the other columns leave; 0 if that is too little to draw in."""
    left = BAR if width is None else min(BAR, width - _width(columns) - GAP)
    return left if left >= 8 else 0


def _print_transactions(postings: Sequence[Posting]) -> None:
    for posting in postings:
        line = posting.line
        what = line.kind.value if line.landed else f"{line.kind.value} (refused)"
        where = "" if _of_no_round(posting) else f"round {line.round_id}  "
        head = f"{_local_time(line.at)}  {where}{what}  "
        sign = "+" if line.change_lamports > 0 else ""
        click.echo(folded(head, sign + format_sol(line.change_lamports), indent=2))
        click.echo(f"  {line.signature}")


def amounts(lamports: Sequence[int]) -> list[str]:
    """Exact SOL, with the decimal points below each other."""
    texts = [format_sol(amount).removesuffix(" SOL") for amount in lamports]
    places = max((len(text.partition(".")[2]) for text in texts), default=0)
    aligned = []
    for text in texts:
        whole, _, part = text.partition(".")
        aligned.append(f"{whole}.{part:0<{places}}" if places else whole)
    width = max(map(len, aligned), default=0)
    return [f"{text:>{width}}" for text in aligned]


def bars(lamports: Sequence[int], size: int) -> list[str]:
    """As long as the amounts are large, a gain other than a loss."""
    gain, loss = ("█", "░") if shows_signs() else ("#", "-")
    most = max((abs(amount) for amount in lamports), default=0)
    return [
        (gain if amount > 0 else loss) * max(1, round(size * abs(amount) / most)) if amount else ""
        for amount in lamports
    ]


def _local_time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _hours_text(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.0f} minutes ago"
    return f"{hours:.1f} hours ago" if hours < 48 else f"{hours / 24:.1f} days ago"
