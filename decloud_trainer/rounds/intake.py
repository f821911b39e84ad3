"""How rows come into the journal besides the watch: a user's requests, and what the chain has."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from dataclasses import dataclass

from decloud_trainer.errors import DecloudError, NetworkError, RoundError
from decloud_trainer.faultpoints import reach
from decloud_trainer.rounds.engine import Engine
from decloud_trainer.rounds.entry import NOTHING_KNOWN, Entry, Facts, Request, RowKey, State
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.model import Round, RoundStatus, Submission, existing

log = logging.getLogger(__name__)

REQUESTS = ("join", "train", "claim")


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose rounds these are: a network, its program, our wallet."""

    genesis: str
    program: str
    wallet: str

    def key(self, round_id: int) -> RowKey:
        return RowKey(self.genesis, self.program, self.wallet, round_id)


def standing(submission: Submission | None) -> State:
    """The state that the chain alone gives a round."""
    if submission is None:
        return State.SEEN
    return State.SUBMITTED if submission.submitted else State.JOINED


async def sweep(engine: Engine, scope: Scope) -> int:
    """Take up every unclaimed submission of the wallet that nobody here works on; their number.

    Claimable rewards are claimed whatever their age, also those of rounds that were given up
    here. Rounds under way are adopted: another machine may be at work on them, so they are
    trained only on request or near the deadline.
    """
    found = 0
    reach("sweep.begin")
    for submission in await engine.parts.chain.submissions(unclaimed=True):
        key = scope.key(submission.round_id)
        known = await engine.parts.journal(Journal.entry, key)
        if not _is_news(submission, known):
            continue
        try:
            round = await engine.parts.chain.round(submission.round_id)
        except NetworkError:
            raise
        except DecloudError as error:
            log.warning("submission of round %s: %s", submission.round_id, error)
            continue
        if round is None or round.status in (RoundStatus.EXPIRED, RoundStatus.CANCELLED):
            continue
        while engine.is_held(key):  # noqa: ASYNC110  by a decision, which is short
            await asyncio.sleep(0.05)
        with engine.hold(key):
            known = await engine.parts.journal(Journal.entry, key)
            if _is_news(submission, known):
                facts = known.facts if known else NOTHING_KNOWN
                facts = dataclasses.replace(facts, adopted=True, unpaid_since=None)
                reach("sweep.found")
                await _put(engine, key, round, standing(submission), "found on chain", facts)
                found += 1
    return found


def _is_news(submission: Submission, known: Entry | None) -> bool:
    if submission.reward_claimed:
        return False
    if known is None or known.state in (State.SEEN, State.SKIPPED):
        return True
    # Given up, and yet a share is there: we looked at an old state of the chain.
    given_up = known.state in (State.LOST, State.FAILED)
    return given_up and submission.submitted and submission.contribution_bps > 0


async def take_request(engine: Engine, scope: Scope, request: Request) -> Entry:
    """Do as a command asked: put the round's row where its step can run, with the user's wishes.

    A round that was skipped, lost or failed is looked at anew.

    Raises:
        RoundError: it can't be done; the message says why.
        Busy: a step has the row in hand; try again in a moment.
    """
    if request.kind not in REQUESTS:
        raise RoundError(f"this version can't {request.kind} a round")
    key = scope.key(request.round_id)
    with engine.hold(key):
        round = existing(await engine.parts.chain.round(request.round_id), request.round_id)
        submission = await engine.parts.chain.submission(request.round_id)
        _check_request(request, round, submission)
        entry = await engine.parts.journal(Journal.entry, key)
        facts = _wishes(entry.facts if entry else NOTHING_KNOWN, request)
        if entry is None or entry.state in (State.SKIPPED, State.LOST, State.FAILED):
            reason = f"asked to {request.kind}"
            return await _put(engine, key, round, standing(submission), reason, facts)
        return await engine.parts.journal(Journal.revise, entry, facts)


def _check_request(request: Request, round: Round, submission: Submission | None) -> None:
    number = f"round {round.id}"
    if request.kind == "join":
        if submission is not None:
            raise RoundError(
                f"{number} is already joined", hint=f"next: `decloud-trainer train {round.id}`"
            )
        return
    if submission is None:
        raise RoundError(
            f"{number} is not joined", hint=f"first: `decloud-trainer join {round.id}`"
        )
    if request.kind == "train" and submission.submitted:
        raise RoundError(
            f"{number} has our submission already, and the network takes only one",
            hint=f"next: `decloud-trainer claim {round.id}`",
        )
    if request.kind == "claim":
        if submission.reward_claimed:
            raise RoundError(f"the reward of {number} is already claimed")
        if not submission.submitted:
            raise RoundError(
                f"nothing was submitted in {number}, so there is nothing to claim",
                hint=f"first: `decloud-trainer train {round.id}`",
            )
        if round.status is not RoundStatus.COMPLETED:
            raise RoundError(
                f"{number} is {round.status.value}: rewards are paid once it is Completed",
                hint="a running daemon claims by itself then",
            )
        if submission.contribution_bps == 0:
            raise RoundError(f"the validator gave our submission in {number} no share")


def _wishes(facts: Facts, request: Request) -> Facts:
    if request.kind == "join":
        return dataclasses.replace(facts, asked_join=True, refused="")
    if request.kind == "claim":
        return dataclasses.replace(facts, asked_claim=True, unpaid_since=None)
    return dataclasses.replace(
        facts,
        asked_train=True,
        epochs=request.args.get("epochs"),
        max_batches=request.args.get("max_batches"),
        commits=request.args.get("commits"),
    )


async def _put(
    engine: Engine, key: RowKey, round: Round, state: State, reason: str, facts: Facts
) -> Entry:
    """The round's row, in the given state and with the facts whether it is new or not."""
    journal = engine.parts.journal
    await journal(Journal.saw, key, round, state=state, reason=reason, facts=facts)
    entry = await journal(Journal.entry, key)
    assert entry is not None, "it was written just now"
    if entry.state is state and entry.facts == facts:
        return entry
    return await journal(Journal.move, entry, state, reason, facts)
