"""``status ID --export``: writes the flight recorder's file of a round."""

from __future__ import annotations

import os
from pathlib import Path

import click

from decloud_trainer.cli.crash import configured_secrets
from decloud_trainer.cli.logs import log_files
from decloud_trainer.cli.output import print_json
from decloud_trainer.errors import DecloudError, RoundError
from decloud_trainer.files import write_atomic


def export_round(round_id: int, pubkey: str | None, target: str, *, as_json: bool) -> None:
    """Write everything that is known here of the round to the file `target`, or print it for
    ``-``.

    Raises:
        RoundError: nothing is known of it.
        DecloudError: the file can't be written.
    """
    from decloud_trainer.rounds.figures import newest
    from decloud_trainer.watching.flight import Places, recorded, written
    from decloud_trainer.wiring import jobs_dir, jobs_path, open_journal

    with open_journal() as journal:
        entry = newest(journal, pubkey, round_id) if journal and pubkey else None
        if journal is None or entry is None:
            raise RoundError(
                f"nothing was done for round {round_id} with this wallet, so there is nothing to "
                "export",
                hint="`decloud-trainer status` shows the rounds in work",
            )
        places = Places(
            jobs_path=jobs_path(),
            jobs_dir=jobs_dir(),
            logs=log_files("daemon"),
            secrets=configured_secrets(os.environ),
        )
        record = recorded(journal, entry, places)
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
