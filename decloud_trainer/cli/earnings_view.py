"""``earnings`` for people: a summary and tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer.cli.earnings_book import (
    Book,
    dataset_of,
    day_of,
    grouped_totals,
    of_no_round,
    of_rounds,
    round_of,
)
from decloud_trainer.cli.output import (
    fitting,
    folded,
    local_time,
    print_pairs,
    print_table,
    shows_signs,
    terminal_width,
)
from decloud_trainer.cli.showing import change
from decloud_trainer.money import format_sol

if TYPE_CHECKING:
    from decloud_trainer.rounds.ledger import Posting

DEFAULT_VIEWS = ("day", "dataset", "round")
# Without --by a table shows no more rows than these, the latest.
FEW = 15
# What a narrow terminal does without, the first first.
DISPENSABLE = ("Fees", "Rent", "Dataset", "Rewards")
# Width of the chart's longest bar, and between two columns.
BAR, GAP = 24, 2


def print_book(book: Book, views: tuple[str, ...]) -> None:
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
            "Since": f"{local_time(book.began or book.now)} ({_hours_text(book.hours)})",
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
    group_of = {"day": day_of, "dataset": dataset_of, "round": round_of}[view]
    kept = book.postings if view == "day" else of_rounds(book.postings)
    groups = grouped_totals(kept, group_of)
    shown = groups[-FEW:] if shortened else groups
    sums = [totals for _, totals, _ in shown]
    columns = _labels(view, [group for group, _, _ in shown]) | {
        "Rewards": amounts([totals.rewards_lamports for totals in sums]),
        "Rent": amounts([-totals.rent_lamports for totals in sums]),
        "Fees": amounts([-totals.fees_lamports for totals in sums]),
        "Net (SOL)": amounts([totals.net_lamports for totals in sums]),
    }
    width = terminal_width() if sys.stdout.isatty() else None
    columns = kept_columns(columns, width)
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


def kept_columns(columns: Mapping[str, list[str]], width: int | None) -> dict[str, list[str]]:
    """Without the columns that a narrow terminal has no room for: an amount is never cut off, and
    what the rows are about and their net stay.

    Args:
        width: None: there is room for all.
    """
    if width is None:
        return dict(columns)
    about = next(iter(columns))
    dispensable = [name for name in DISPENSABLE if name != about]
    return {name: columns[name] for name in fitting(columns, dispensable, width)}


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
        where = "" if of_no_round(posting) else f"round {line.round_id}  "
        head = f"{local_time(line.at)}  {where}{what}  "
        click.echo(folded(head, change(line.change_lamports), indent=2))
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


def _hours_text(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.0f} minutes ago"
    return f"{hours:.1f} hours ago" if hours < 48 else f"{hours / 24:.1f} days ago"
