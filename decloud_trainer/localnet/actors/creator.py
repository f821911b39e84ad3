"""The creator: pins a model and posts rounds that pay for training it.

As a child process it posts the rounds that the network was started with, then waits for its end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from solders.keypair import Keypair

from decloud_trainer.chain import v1
from decloud_trainer.errors import ProgramError
from decloud_trainer.localnet.actors.actor_chain import ActorChain
from decloud_trainer.localnet.actors.child import Report, Settings, patiently, start
from decloud_trainer.localnet.actors.content import Content
from decloud_trainer.localnet.actors.keys import actor_key

SPARE_LAMPORTS = 100_000_000  # rent and fees of a round, many times over
# Another creator's round counts only once it is confirmed, some slots later.
ATTEMPTS, PAUSE_S = 20, 0.3


@dataclass(frozen=True, slots=True)
class Offer:
    """A round to be posted.

    Attributes:
        dataset_index: what it names on chain.
        model: the file to be pinned and trained.
    """

    dataset_index: int
    reward_lamports: int
    model: Path


@dataclass(frozen=True, slots=True)
class Posted:
    round_id: int
    model_cid: str
    signature: str


def post_round(chain: ActorChain, content: Content, offer: Offer) -> Posted:
    """Pin the model and create the round, with money from the local faucet.

    Raises:
        ProgramError: the program refuses the offer, e.g. a reward below the rent of its vault.
    """
    model_cid = content.pin(offer.model.read_bytes(), offer.model.name)
    needed = offer.reward_lamports + SPARE_LAMPORTS
    if chain.balance() < needed:
        chain.airdrop(needed)
    attempts = ATTEMPTS
    while True:
        round_id = ensure_counter(chain)
        create = v1.create_round(
            round_id, model_cid, offer.dataset_index, offer.reward_lamports, chain.pubkey
        )
        attempts -= 1
        try:
            return Posted(round_id, model_cid, chain.send(create))
        except ProgramError as error:
            # Another creator was quicker with this number: its account exists.
            if error.name not in ("InvalidRoundId", "AlreadyInUse") or not attempts:
                raise
            time.sleep(PAUSE_S)


def ensure_counter(chain: ActorChain) -> int:
    """The next round's id; initialises the program when nobody has yet."""
    count = chain.counter()
    if count is not None:
        return count
    if chain.balance() < SPARE_LAMPORTS:
        chain.airdrop(SPARE_LAMPORTS)
    chain.send(v1.initialize(chain.pubkey))
    return 0


def temporary_creator(rpc_url: str, generation: str) -> ActorChain:
    """A creator for one round more, with a key that nobody keeps."""
    return ActorChain(rpc_url, generation, Keypair())


def run(settings: Settings, report: Report) -> None:
    """Post `rounds` rounds, one every `interval_s` seconds."""
    key = actor_key(Path(settings["folder"]), "creator")
    chain = ActorChain(settings["rpc_url"], settings["generation"], key)
    content = Content.of(settings)
    offer = Offer(settings["dataset_index"], settings["reward_lamports"], Path(settings["model"]))
    for number in range(settings["rounds"]):
        if number:
            time.sleep(settings["interval_s"])
        posted = patiently(lambda: post_round(chain, content, offer))
        report(
            "posted",
            round_id=posted.round_id,
            model_cid=posted.model_cid,
            signature=posted.signature,
            creator=chain.pubkey,
        )
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    run(*start())
