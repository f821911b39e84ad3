"""``earnings``: what the wallet got and paid, from the journal alone."""

from __future__ import annotations

import re
import time
from datetime import datetime

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli.earnings_book import Book, book_json, csv_text
from decloud_trainer.cli.earnings_view import print_book
from decloud_trainer.cli.output import JSON_OPTION, print_json
from decloud_trainer.settings import NETWORKS

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
_SPAN = re.compile(r"(\d{1,5})\s*([hdw])", re.IGNORECASE)
_SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}


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
        print_book(book, views)


def _book(network: str, since: float | None, now: float) -> Book:
    from decloud_trainer.rounds import ledger
    from decloud_trainer.rounds.intents import sent_by_row
    from decloud_trainer.rounds.transfers import transfers
    from decloud_trainer.wiring import open_journal

    entries, intents, stored = [], {}, []
    with open_journal() as journal:
        if journal is not None:
            entries, intents = journal.entries(), sent_by_row(journal)
            stored = transfers(journal)
    everything = ledger.postings(entries, intents, stored)
    here = [posting for posting in everything if posting.network == network]
    postings = [posting for posting in here if posting.line.at >= (since or 0.0)]
    of_network = [entry for entry in entries if ledger.network_name(entry.key.genesis) == network]
    return Book(
        network=network,
        postings=postings,
        success=ledger.success(of_network, intents, since=since or 0.0),
        totals=ledger.totals(posting.line for posting in postings),
        since=since,
        began=max(here[0].line.at, since or 0.0) if here else None,
        now=now,
        elsewhere=tuple(sorted({posting.network for posting in everything} - {network})),
    )
