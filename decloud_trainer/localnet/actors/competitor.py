"""Scripted competitors: trainers with a wallet of their own and a fixed character.

- ``good`` trains a little on the data's training part and hands that in by the rule.
- ``lazy`` joins and hands in zeros: the model as it was.
- ``hostile`` hands in, by turns: a pickle that runs code, bytes that are no file of torch, and
  good work with the sign turned round, which ruins the model.

All of them join what they can and claim what they get. One process plays all of them.
"""

from __future__ import annotations

import io
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decloud_trainer.chain import v1
from decloud_trainer.errors import ChainError, DatasetUnavailable
from decloud_trainer.localnet.actors.actor_chain import ActorChain
from decloud_trainer.localnet.actors.child import Report, Settings, patiently, repeat, start
from decloud_trainer.localnet.actors.content import Content
from decloud_trainer.localnet.actors.datasets import IMAGES, data_folder, find_idx
from decloud_trainer.localnet.actors.keys import actor_key
from decloud_trainer.rounds.model import Round, RoundStatus, Submission

if TYPE_CHECKING:
    import torch

FUNDS_LAMPORTS = 1_000_000_000
LEAST_LAMPORTS = 10_000_000
BATCHES = 20  # of 32 images: an honest competitor that leaves room to be better
EXECUTED = "hostile-code-was-executed"
"""Name of the file that the hostile pickle makes in the competitors' folder, if it is run."""

log = logging.getLogger(__name__)


class Competitor:
    """One of them.

    Args:
        settings: `folder`, `state` (paths) and `seed`.
    """

    def __init__(
        self,
        character: str,
        chain: ActorChain,
        content: Content,
        settings: Settings,
        report: Report,
    ) -> None:
        self.character = character
        self.chain = chain
        self.content = content
        self.report = report
        self.folder = Path(settings["folder"])
        self.state = Path(settings["state"])
        self.seed = int(settings["seed"])

    def fund(self) -> None:
        if self.chain.balance() < LEAST_LAMPORTS:
            self.chain.airdrop(FUNDS_LAMPORTS)

    def turn(self, rounds: list[Round]) -> None:
        """Do what is due in each of the rounds."""
        now = self.chain.now()
        own = {s.round_id: s for s in self.chain.submissions(trainer=self.chain.pubkey)}
        for found in rounds:
            try:
                self._attend(found, own.get(found.id), now)
            except (ChainError, DatasetUnavailable) as error:
                log.warning("%s, round %d: %s", self.character, found.id, error)

    def _attend(self, found: Round, own: Submission | None, now: int) -> None:
        if found.status is RoundStatus.WAITING_TRAINERS and own is None:
            if now <= found.join_deadline:
                # No joining without data: a joined trainer that never submits holds all up.
                find_idx(data_folder(self.state, found.dataset.key), "train", IMAGES)
                self.fund()
                self.chain.send(v1.join_round(found.id, self.chain.pubkey))
                self._tell("joined", found)
        elif own is None:
            return
        elif found.status is RoundStatus.TRAINING and not own.submitted:
            if now <= found.submit_deadline:
                cid = self.content.pin(self._work(found), f"{self.character}.pt")
                self.chain.send(v1.submit_gradients(found.id, cid, self.chain.pubkey))
                self._tell("submitted", found, gradient_cid=cid)
        elif found.status is RoundStatus.COMPLETED and _is_due(own):
            signature = self.chain.send(
                v1.claim_reward(found.id, self.chain.pubkey, generation=self.chain.generation)
            )
            self._tell("rewarded", found, signature=signature)

    def _tell(self, event: str, found: Round, **fields: Any) -> None:
        self.report(
            event,
            round_id=found.id,
            competitor=self.character,
            trainer=self.chain.pubkey,
            **fields,
        )

    def _work(self, found: Round) -> bytes:
        """The bytes that this character hands in."""
        if self.character == "good":
            return _saved(self._gradient(found, BATCHES))
        if self.character == "lazy":
            return _saved(self._gradient(found, 0))
        match found.id % 3:
            case 0:
                return _saved({"conv1.weight": _Payload(self.folder / EXECUTED)})
            case 1:
                return b"<html><body>404 Not Found</body></html>"
            case _:
                return _saved({n: -value for n, value in self._gradient(found, BATCHES).items()})

    def _gradient(self, found: Round, batches: int) -> dict[str, torch.Tensor]:
        """What `batches` steps of training give, in the validator's convention."""
        from decloud_trainer.localnet.actors.images import IdxImages
        from decloud_trainer.localnet.actors.learning import gradient_of, train
        from decloud_trainer.localnet.actors.scoring import MAX_FILE_BYTES, load_model

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt"
            base = load_model(self.content.fetch(found.model_cid, path, max_bytes=MAX_FILE_BYTES))
        if not batches:
            return gradient_of(base, base)
        split = IdxImages(data_folder(self.state, found.dataset.key), "train")
        return gradient_of(base, train(base, split, seed=self.seed + found.id, batches=batches))


class _Payload:
    """Unpickling it without care makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return open, (str(self._path), "w")


def _is_due(own: Submission) -> bool:
    return own.submitted and own.contribution_bps > 0 and not own.reward_claimed


def _saved(content: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _prepare_torch() -> None:
    """Import what the work needs before it is due, on one thread."""
    import torch

    import decloud_trainer.localnet.actors.learning  # noqa: F401

    torch.set_num_threads(1)


def run(settings: Settings, report: Report) -> None:
    """Play all of `competitors` until the end of the process."""
    content = Content.of(settings)
    players = []
    for character in settings["competitors"]:
        key = actor_key(Path(settings["folder"]), character)
        chain = ActorChain(settings["rpc_url"], settings["generation"], key)
        players.append(Competitor(character, chain, content, settings, report))
        patiently(players[-1].fund)
        report("ready", competitor=character, trainer=chain.pubkey)

    def turn() -> None:
        rounds = [found for found in players[0].chain.rounds() if _concerns_trainers(found)]
        for player in players:
            player.turn(rounds)
        if rounds:
            _prepare_torch()

    repeat(turn, float(settings["poll_s"]))


def _concerns_trainers(found: Round) -> bool:
    return found.status in (
        RoundStatus.WAITING_TRAINERS,
        RoundStatus.TRAINING,
        RoundStatus.COMPLETED,
    )


if __name__ == "__main__":
    run(*start())
