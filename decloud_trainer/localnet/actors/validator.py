"""The validator: takes rounds, lets trainers in, scores their work, pays by its shares.

It goes by the chain alone: each look reads all rounds and does what is due, so it may be stopped
and started at any point. Rounds are attended to one at a time; claiming comes before scoring.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from decloud_trainer.chain import v1
from decloud_trainer.errors import ChainError
from decloud_trainer.files import make_private_dir
from decloud_trainer.localnet.actors.actor_chain import ActorChain
from decloud_trainer.localnet.actors.child import Report, Settings, patiently, repeat, start
from decloud_trainer.localnet.actors.content import Content
from decloud_trainer.localnet.actors.datasets import data_folder
from decloud_trainer.localnet.actors.keys import actor_key
from decloud_trainer.rounds.model import Round, RoundStatus, Submission

if TYPE_CHECKING:
    from decloud_trainer.localnet.actors.scoring import HeldOut, Verdict

FUNDS_LAMPORTS = 1_000_000_000
CRANK_S = 10.0  # between two tries to have the program apply a round's time-outs

log = logging.getLogger(__name__)


class Validator:
    """One validator.

    Args:
        settings: `folder`, `state` (paths), `min_trainers`, `join_grace_s`.
    """

    def __init__(
        self, chain: ActorChain, content: Content, settings: Settings, report: Report
    ) -> None:
        self.chain = chain
        self.content = content
        self.report = report
        self.folder = make_private_dir(Path(settings["folder"]) / "validator")
        self.state = Path(settings["state"])
        self.min_trainers = int(settings["min_trainers"])
        self.join_grace_s = float(settings["join_grace_s"])
        self._enough_since: dict[int, float] = {}
        self._cranked: dict[int, float] = {}
        self._verdicts: dict[int, Verdict] = {}

    def turn(self) -> None:
        """Look at all rounds once."""
        rounds = [found for found in self.chain.rounds() if not found.status.is_over]
        now = self.chain.now() if rounds else 0
        for found in sorted(rounds, key=lambda r: (r.status_index, r.id)):
            try:
                self._attend(found, now)
            except ChainError as error:
                log.warning("round %d: %s", found.id, error)

    def _attend(self, found: Round, now: int) -> None:
        mine = found.validator == self.chain.pubkey
        match found.status:
            case RoundStatus.WAITING_VALIDATOR if now <= found.validator_deadline:
                self.chain.send(v1.claim_round(found.id, self.chain.pubkey))
                self.report("claimed", round_id=found.id)
                _load_torch()  # while nobody waits for it yet
            case RoundStatus.WAITING_VALIDATOR:
                self._crank(found)
            case RoundStatus.WAITING_TRAINERS:
                if mine and self._may_start(found, now):
                    self._start(found)
                elif now > found.join_deadline and not found.trainers_count:
                    self._crank(found)
            case RoundStatus.TRAINING if now > found.submit_deadline:
                self._crank(found)
            case RoundStatus.VALIDATING if mine:
                self._validate(found)
            case RoundStatus.VALIDATING:
                self._crank(found)

    def _may_start(self, found: Round, now: int) -> bool:
        """Enough trainers, and the grace for more is over; or nobody can join any more."""
        if now > found.join_deadline:
            return found.trainers_count > 0
        if found.trainers_count < self.min_trainers:
            return False
        since = self._enough_since.setdefault(found.id, time.monotonic())
        return time.monotonic() - since >= self.join_grace_s

    def _start(self, found: Round) -> None:
        baseline = self._baseline(found)
        self.chain.send(v1.start_training(found.id, baseline, self.chain.pubkey))
        self.report("started", round_id=found.id, baseline_score=baseline)

    def _baseline(self, found: Round) -> int:
        from decloud_trainer.localnet.actors.scoring import baseline_score

        try:
            return baseline_score(self._model(found), self._held_out(found))
        except Exception:  # the network's rule: any failure is a baseline of 0
            log.warning("round %d has no baseline", found.id, exc_info=True)
            return 0

    def _validate(self, found: Round) -> None:
        if found.id not in self._verdicts:
            self._verdicts[found.id] = self._score(found)
        verdict = self._verdicts[found.id]
        if not verdict.settled:
            self._crank(found)
            return
        known = {s.trainer: s.contribution_bps for s in self._submitted(found)}
        for score in verdict.scores:
            if known.get(score.trainer) != score.bps:
                self.chain.send(
                    v1.set_contribution(found.id, score.trainer, score.bps, self.chain.pubkey)
                )
        signature = self.chain.send(
            v1.complete_validation(found.id, self.chain.pubkey, generation=self.chain.generation)
        )
        self.report("completed", round_id=found.id, signature=signature)
        self._forget(found.id)

    def _score(self, found: Round) -> Verdict:
        from decloud_trainer.localnet.actors.scoring import score_round

        submitted = self._submitted(found)
        fetches = [
            (entry.trainer, partial(self._gradient, found.id, index, entry.gradient_cid))
            for index, entry in enumerate(submitted)
        ]
        verdict = score_round(partial(self._model, found), partial(self._held_out, found), fetches)
        self.report("scored", round_id=found.id, **asdict(verdict))
        return verdict

    def _submitted(self, found: Round) -> list[Submission]:
        return [s for s in self.chain.submissions(round_id=found.id) if s.submitted]

    def _model(self, found: Round) -> Path:
        path = self.folder / f"{found.id}-model.pt"
        return path if path.exists() else self._fetch(found.model_cid, path)

    def _gradient(self, round_id: int, index: int, cid: str) -> Path:
        return self._fetch(cid, self.folder / f"{round_id}-gradient-{index}.pt")

    def _fetch(self, cid: str, path: Path) -> Path:
        from decloud_trainer.localnet.actors.scoring import MAX_FILE_BYTES

        return self.content.fetch(cid, path, max_bytes=MAX_FILE_BYTES)

    def _held_out(self, found: Round) -> HeldOut:
        from decloud_trainer.localnet.actors.scoring import HeldOut

        return HeldOut(data_folder(self.state, found.dataset.key))

    def _forget(self, round_id: int) -> None:
        """Its files are of no use any more."""
        for path in self.folder.glob(f"{round_id}-*"):
            path.unlink()
        self._verdicts.pop(round_id)
        self._cranked.pop(round_id, None)
        self._enough_since.pop(round_id, None)

    def _crank(self, found: Round) -> None:
        """Have the program apply a time-out. It may be too early for one: that is no news."""
        now = time.monotonic()
        if now - self._cranked.get(found.id, -CRANK_S) < CRANK_S:
            return
        self._cranked[found.id] = now
        try:
            self.chain.send(v1.check_round(found.id, found.creator))
        except ChainError as error:
            log.info("round %d: check_round changed nothing: %s", found.id, error)
        else:
            after = self.chain.round(found.id)
            if after is not None and after.status is not found.status:
                self.report("checked", round_id=found.id, status=after.status.value)


def _load_torch() -> None:
    """Import what scoring needs, on one thread: the machine belongs to the trainers."""
    import torch

    import decloud_trainer.localnet.actors.scoring  # noqa: F401

    torch.set_num_threads(1)


def run(settings: Settings, report: Report) -> None:
    """Serve until the end of the process."""
    key = actor_key(Path(settings["folder"]), "validator")
    chain = ActorChain(settings["rpc_url"], settings["generation"], key)
    validator = Validator(chain, Content.of(settings), settings, report)

    def fund() -> None:
        if chain.balance() < FUNDS_LAMPORTS:
            chain.airdrop(FUNDS_LAMPORTS)

    patiently(fund)
    report("ready", validator=chain.pubkey)
    repeat(validator.turn, float(settings["poll_s"]))


if __name__ == "__main__":
    run(*start())
