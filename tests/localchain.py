"""A local chain for tests: ledger, servers and program in this process, and its other people."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.transaction import VersionedTransaction

from decloud_trainer.chain import v1
from decloud_trainer.chain.client import SolanaChain
from decloud_trainer.chain.generation import Generation
from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.chain.sending import Pace, SolanaSender
from decloud_trainer.chain.wallet import Wallet
from decloud_trainer.localnet.faults import Faults
from decloud_trainer.localnet.history import Landed
from decloud_trainer.localnet.ledger import Commitment, Ledger
from decloud_trainer.localnet.program.image import Params, program_image
from decloud_trainer.localnet.rpc_server import LedgerEndpoints, serve_ledger

SOL = 10**9
# Of each transaction, and of the accounts that a join makes: 121 bytes and their overhead.
FEE = 5000
RENT = (128 + 121) * 6960
MODEL_CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
GRADIENT_CID = "QmPZ9gcCEpqKTo6aq61g2nXGUhM4iCL3ewB6LDXZCtioEB"
# For what takes a moment on a calm machine: only a test that fails waits for so long.
PATIENCE_S = 30.0
FAST = Pace(first_poll=0.02, max_poll=0.05, rebroadcast=0.1, patience=3, amounts=2, grace=2)


@dataclass
class LocalChain:
    """A served ledger, its creator and validator, and one trainer's client of it."""

    ledger: Ledger
    faults: Faults
    endpoints: LedgerEndpoints
    rpc: Rpc
    generation: str
    creator: Keypair = field(default_factory=Keypair)
    validator: Keypair = field(default_factory=Keypair)
    trainer: Keypair = field(default_factory=Keypair)

    def __post_init__(self) -> None:
        for keypair in (self.creator, self.validator, self.trainer):
            self.ledger.airdrop(keypair.pubkey(), 10 * SOL)
        self.run(v1.initialize(self.creator.pubkey()), self.creator)
        self.wallet = Wallet(self.trainer, "test")
        self.chain = SolanaChain(self.rpc, self.wallet.pubkey)
        self.settle_slots()

    def sender(self, *, generation: str = "auto", pace: Pace = FAST) -> SolanaSender:
        found = Generation(self.rpc, self.wallet.pubkey, setting=generation)
        return SolanaSender(self.rpc, self.wallet, found, pace=pace)

    def run(self, instruction: Instruction, payer: Keypair) -> Landed:
        """Another actor's transaction, straight into the ledger; it must succeed.

        It is confirmed when this returns: whoever reads the chain sees it."""
        blockhash = self.ledger.blockhash_at(Commitment.PROCESSED)
        message = Message.new_with_blockhash([instruction], payer.pubkey(), blockhash)
        landed = self.ledger.submit(VersionedTransaction(message, [payer]))
        assert landed.error is None, (landed.error, landed.meta["logMessages"])
        self.ledger.advance_slot()
        return landed

    def settle_slots(self, slots: int = 9) -> None:
        """Let so many slots pass; after 9 all that has happened is finalized."""
        for _ in range(slots):
            self.ledger.advance_slot()

    def post_round(
        self, *, cid: str = MODEL_CID, reward_lamports: int = SOL, dataset_index: int = 98
    ) -> int:
        address, _ = v1.counter_address()
        counter = self.ledger.account(address)
        assert counter is not None
        number = v1.decode_counter(counter.data)
        key = self.creator.pubkey()
        self.run(v1.create_round(number, cid, dataset_index, reward_lamports, key), self.creator)
        return number

    def open_round(self, **options: object) -> int:
        """A round that waits for trainers."""
        number = self.post_round(**options)  # type: ignore[arg-type]
        self.run(v1.claim_round(number, self.validator.pubkey()), self.validator)
        return number

    def start_training(self, number: int, baseline_score: int = 5000) -> None:
        key = self.validator.pubkey()
        self.run(v1.start_training(number, baseline_score, key), self.validator)

    def complete(self, number: int, shares: Sequence[tuple[Keypair, int]]) -> None:
        """Score and complete a round whose submissions are all in."""
        key = self.validator.pubkey()
        for trainer, bps in shares:
            self.run(v1.set_contribution(number, trainer.pubkey(), bps, key), self.validator)
        self.run(v1.complete_validation(number, key, generation=self.generation), self.validator)


@contextlib.asynccontextmanager
async def local_chain(
    generation: str = "v1.2", *, slot_s: float = 0.02, params: Params | None = None
) -> AsyncIterator[LocalChain]:
    """With `slot_s=0` slots pass only by `LocalChain.settle_slots`."""
    ledger, faults = Ledger(), Faults()
    try:
        ledger.add_program(v1.PROGRAM_ID, program_image(generation, params or Params()))
        async with (
            serve_ledger(ledger, port=0, slot_s=slot_s, faults=faults) as endpoints,
            Rpc(endpoints.rpc_url, timeout_s=2.0) as rpc,
        ):
            yield LocalChain(ledger, faults, endpoints, rpc, generation)
    finally:
        ledger.close()


async def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
