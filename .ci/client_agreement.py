"""Does the client work with this environment's solana-py? A whole round's life on a local network.

Runs in an environment with an older solana-py and solders (and base58), and without this
package's other dependencies, against a local network that another process serves without actors:

    decloud-trainer localnet up --no-actors --json       # in the main environment
    python .ci/client_agreement.py RPC_URL WS_URL        # in this one

It makes its own creator, validator and trainer, funds them from the faucet, and uses the client
for everything: reads, filters, detection, preparing, sending, settling, claiming, watching.
Prints one line; exit code 1 if anything is not as it should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version

from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.transaction import Transaction

from decloud_trainer.chain import v1
from decloud_trainer.chain.client import SolanaChain
from decloud_trainer.chain.generation import Generation
from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.chain.sending import SolanaSender
from decloud_trainer.chain.wallet import Wallet
from decloud_trainer.chain.watch import RoundWatch
from decloud_trainer.rounds.model import Action, ActionKind, Outcome, OutcomeState, RoundStatus

SOL = 10**9
CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
DEADLINE_S = 90
# Validating and what comes before and after it follow each other quickly, and a node tells a
# subscriber the newest state of a slot: what must be told is what lasted.
EXPECTED = {RoundStatus.WAITING_VALIDATOR, RoundStatus.WAITING_TRAINERS, RoundStatus.COMPLETED}


class Disagreement(Exception):
    pass


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Disagreement(what)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.1)


class Actor:
    """Another person on the network: signs and sends single instructions."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self.keypair = Keypair()
        self.key = self.keypair.pubkey()

    async def fund(self) -> None:
        await self._rpc.call("requestAirdrop", str(self.key), 10 * SOL)

        async def is_funded() -> bool:
            return await self._rpc.balance(self.key) > 0

        await until(is_funded)

    async def run(self, instruction: Instruction) -> None:
        blockhash, _ = await self._rpc.latest_blockhash()
        transaction = sign(instruction, self.keypair, blockhash)
        failure = await self._rpc.send(bytes(transaction), preflight=True)
        expect(failure is None, f"an actor's transaction was refused: {failure}")
        signature = str(transaction.signatures[0])

        async def is_confirmed() -> bool:
            _, status = await self._rpc.signature_status(signature, search_history=False)
            return status is not None

        await until(is_confirmed)


def sign(instruction: Instruction, keypair: Keypair, blockhash: Hash) -> Transaction:
    message = Message.new_with_blockhash([instruction], keypair.pubkey(), blockhash)
    return Transaction([keypair], message, blockhash)


async def next_round_id(rpc: Rpc, creator: Actor) -> int:
    address, _ = v1.counter_address()
    if await rpc.account(address) is None:
        await creator.run(v1.initialize(creator.key))
    account = await rpc.account(address)
    expect(account is not None, "there is no round counter")
    assert account is not None
    return v1.decode_counter(account.data)


async def complete(validator: Actor, number: int) -> None:
    """The validator's account list differs between the generations, as the trainer's does."""
    new, old = (
        v1.complete_validation(number, validator.key, generation=name) for name in ("v1.2", "v1.0")
    )
    try:
        await validator.run(new)
    except Disagreement:
        await validator.run(old)


@contextlib.asynccontextmanager
async def watching(chain: SolanaChain, ws_url: str, number: int) -> AsyncIterator[set[RoundStatus]]:
    """The statuses of the round that the watch tells, over a subscription."""
    told: set[RoundStatus] = set()
    watch = RoundWatch(chain, ws_url)

    async def collect() -> None:
        async for found in watch.changes():
            if found.id == number:
                told.add(found.status)

    async def is_connected() -> bool:
        return watch.is_connected

    task = asyncio.create_task(collect())
    await until(is_connected)
    yield told
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def life(rpc: Rpc, ws_url: str) -> str:
    """Returns the detected generation."""
    creator, validator, trainer = Actor(rpc), Actor(rpc), Actor(rpc)
    await asyncio.gather(creator.fund(), validator.fund(), trainer.fund())
    number = await next_round_id(rpc, creator)
    wallet = Wallet(trainer.keypair, "made for this run")
    chain = SolanaChain(rpc, wallet.pubkey)
    generation = Generation(rpc, wallet.pubkey)
    sender = SolanaSender(rpc, wallet, generation)

    async def settle(kind: ActionKind, cid: str = "", *, fresh: bool = True) -> Outcome:
        intent = await sender.prepare(Action(kind, number, cid))
        return await sender.settle(intent, fresh=fresh)

    async with watching(chain, ws_url, number) as told:
        await creator.run(v1.create_round(number, CID, 98, SOL, creator.key))
        expect(number in [one.id for one in await chain.open_rounds()], "the new round isn't open")
        early = await settle(ActionKind.JOIN)
        expect(early.error_name == "RoundNotWaitingTrainers", f"an early join: {early}")
        await validator.run(v1.claim_round(number, validator.key))
        joined = await settle(ActionKind.JOIN, fresh=False)
        rent = (await chain.costs()).join_rent_lamports
        expect(joined.wallet_change_lamports == -rent - 5000, f"the join: {joined}")
        await validator.run(v1.start_training(number, 5000, validator.key))
        submitted = await settle(ActionKind.SUBMIT, CID)
        expect(submitted.state is OutcomeState.LANDED, f"the submission: {submitted}")
        await validator.run(v1.set_contribution(number, trainer.key, 10_000, validator.key))
        await complete(validator, number)
        claimed = await settle(ActionKind.CLAIM)
        expect(claimed.wallet_change_lamports > SOL // 2, f"the claim: {claimed}")
        (mine,) = await chain.submissions()
        expect(mine.reward_claimed and mine.gradient_cid == CID, f"the submission: {mine}")

        async def is_all_told() -> bool:
            return told >= EXPECTED

        await until(is_all_told)
    return await generation.describe()


async def main(rpc_url: str, ws_url: str) -> int:
    versions = ", ".join(f"{name} {version(name)}" for name in ("solana", "solders", "websockets"))
    try:
        async with asyncio.timeout(DEADLINE_S), Rpc(rpc_url) as rpc:
            generation = await life(rpc, ws_url)
    except (Disagreement, TimeoutError) as error:
        print(f"client agreement FAILED with {versions}: {error!r}", file=sys.stderr)
        return 1
    print(f"client agreement: a whole round on {generation} with {versions}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: python {sys.argv[0]} RPC_URL WS_URL")
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2])))
