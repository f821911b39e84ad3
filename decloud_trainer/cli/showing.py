"""Rounds and submissions as JSON and as words: what several commands show alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from decloud_trainer import config as settings_file
from decloud_trainer.cli import completing
from decloud_trainer.errors import SettingsError, WalletError
from decloud_trainer.money import format_sol

if TYPE_CHECKING:
    from decloud_trainer.rounds.model import Round, RoundStatus, Submission

ROUND_ID = click.argument(
    "round_id", type=click.IntRange(0, 2**64 - 1), shell_complete=completing.round_ids
)
# The network's limit as its documentation states it; no account tells it.
MOST_TRAINERS = 10


def own_key(ctx: click.Context) -> str | None:
    """The wallet's public key; None without a wallet, since looking needs none."""
    from decloud_trainer.services import known_wallet

    try:
        return known_wallet(settings_file.load().settings, ctx.obj["keypair"]).pubkey
    except WalletError:
        return None


def statuses_named(name: str | None) -> tuple[RoundStatus, ...]:
    """The status of that name in any spelling; none at all for no name."""
    from decloud_trainer.rounds.model import RoundStatus

    if name is None:
        return ()
    wanted = name.replace("_", "").replace("-", "").lower()
    known = {s.value.lower(): s for s in RoundStatus if s is not RoundStatus.UNKNOWN}
    if wanted not in known:
        raise SettingsError(
            f"there is no status {name!r}",
            hint=f"statuses: {', '.join(status.value for status in known.values())}",
        )
    return (known[wanted],)


def next_deadline(round: Round) -> int:
    """The deadline that the round's status makes the next one; 0 if there is none."""
    return {
        "WaitingValidator": round.validator_deadline,
        "WaitingTrainers": round.join_deadline,
        "Training": round.submit_deadline,
    }.get(round.status.value, 0)


def change(lamports: int) -> str:
    return f"{'+' if lamports > 0 else ''}{format_sol(lamports)}"


def round_json(round: Round) -> dict[str, Any]:
    return {
        "round": round.id,
        "status": round.status.value,
        "dataset": str(round.dataset),
        "dataset_index": round.dataset.index,
        "reward_lamports": round.reward_lamports,
        "trainers": round.trainers_count,
        "submissions": round.submissions_count,
        "creator": round.creator,
        "validator": round.validator,
        "model_cid": round.model_cid,
        "baseline_score": round.baseline_score,
        "created_at": round.created_at,
        "validator_deadline": round.validator_deadline,
        "join_deadline": round.join_deadline,
        "submit_deadline": round.submit_deadline,
    }


def submission_json(submission: Submission | None) -> dict[str, Any] | None:
    if submission is None:
        return None
    return {
        "submitted": submission.submitted,
        "gradient_cid": submission.gradient_cid,
        "contribution_bps": submission.contribution_bps,
        "reward_claimed": submission.reward_claimed,
    }


def submission_text(submission: Submission | None) -> str:
    if submission is None:
        return "not joined"
    if not submission.submitted:
        return "joined, nothing submitted yet"
    claimed = "claimed" if submission.reward_claimed else "not claimed"
    return f"submitted, share {submission.contribution_bps / 100:.2f} %, {claimed}"


def submission_word(submission: Submission) -> str:
    if submission.reward_claimed:
        return "claimed"
    return "submitted" if submission.submitted else "joined"
