"""``status ID --export``: writes the flight recorder's file of a round."""

from __future__ import annotations

import os
from pathlib import Path

import click

from decloud_trainer.cli.crash import configured_secrets
from decloud_trainer.cli.logs import KEPT_LOGS
from decloud_trainer.cli.output import print_json
from decloud_trainer.errors import DecloudError, RoundError
from decloud_trainer.files import home_dir, log_dir, write_atomic


def export_round(round_id: int, pubkey: str | None, target: str, *, as_json: bool) -> None:
    """Write everything that is known here of the round to the file `target`, or print it for
    ``-``.

    Raises:
        RoundError: nothing is known of it.
        DecloudError: the file can't be written.
    """
    from decloud_trainer.rounds.journal import Journal
    from decloud_trainer.watching.flight import Places, recorded, written
    from decloud_trainer.wiring import journal_path

    nothing = RoundError(
        f"nothing was done for round {round_id} with this wallet, so there is nothing to export",
        hint="`decloud-trainer status` shows the rounds in work",
    )
    if pubkey is None or not journal_path().exists():
        raise nothing
    journal = Journal(journal_path())
    try:
        rows = [
            entry
            for entry in journal.entries()
            if entry.key.round_id == round_id and entry.key.wallet == pubkey
        ]
        if not rows:
            raise nothing
        places = Places(
            jobs_path=home_dir() / "jobs.sqlite",
            jobs_dir=home_dir() / "jobs",
            logs=_logs(),
            secrets=configured_secrets(os.environ),
        )
        record = recorded(journal, max(rows, key=lambda row: row.updated_at), places)
    finally:
        journal.close()
    content = written(record)
    if target == "-":
        click.echo(content, nl=False)
        return
    path = Path(target).absolute()
    try:
        write_atomic(path, content)
    except OSError as error:
        raise DecloudError(
            f"can't write {path}: {error.strerror}", hint="choose a file in a folder of yours"
        ) from error
    if as_json:
        print_json({"round": round_id, "file": str(path), "bytes": len(content)})
    else:
        click.echo(f"wrote {path} ({len(content):,} bytes)")


def _logs() -> list[Path]:
    """The daemon's log files, the oldest first."""
    names = ["daemon.log", *(f"daemon.log.{age}" for age in range(1, KEPT_LOGS + 1))]
    return [log_dir() / name for name in reversed(names)]
