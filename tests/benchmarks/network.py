"""What watching costs an endpoint, and how soon a round that can be joined is joined.

Bytes are counted by a relay between the client and the local network's servers, HTTP headers
included. An hour is computed from the bytes and calls of the first look and of later looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

sys.path.insert(0, str(Path(__file__).parent.parent))

from localchain import SOL, LocalChain, local_chain
from loopback import serving

from decloud_trainer.chain import v1
from decloud_trainer.chain.client import SolanaChain
from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.chain.watch import WatchPace
from decloud_trainer.config import load
from decloud_trainer.ipfs.cid import V1
from decloud_trainer.localnet.ledger import Change, Commitment
from decloud_trainer.localnet.pin_server import make_pin_app
from decloud_trainer.localnet.pin_store import Part, PinStore
from decloud_trainer.localnet.program.image import Params
from decloud_trainer.rounds.daemon import Daemon
from decloud_trainer.rounds.parts import Progress
from decloud_trainer.training.networks import SimpleCNN
from decloud_trainer.wiring import open_trainer

ROUNDS = (10, 1_000, 100_000)
POLL_S = 5.0
AHEAD, AT_FIRST_SIGHT = 30, 12
SLOT_S = 0.4


@dataclass
class Relay:
    """Counts what flows between a client and a server."""

    url: str = ""
    bytes: int = 0

    @contextlib.asynccontextmanager
    async def to(self, url: str) -> AsyncIterator[str]:
        port = int(url.rpartition(":")[2])

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    self.bytes += len(data)
                    writer.write(data)
                    await writer.drain()
            writer.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pump(reader, back), pump(there, writer))

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()


class Counting(Rpc):
    calls = 0

    async def call(self, method: str, *params: Any, **options: Any) -> Any:
        self.calls += 1
        return await super().call(method, *params, **options)


def put_finished_rounds(net: LocalChain, count: int) -> None:
    """One cancelled round, copied to many ids, and the counter moved behind them."""
    number = net.post_round()
    net.run(v1.cancel_round(number, net.creator.pubkey()), net.creator)
    model = net.ledger.account(v1.round_address(number)[0])
    counter_at = v1.counter_address()[0]
    counter = net.ledger.account(counter_at)
    assert model is not None
    assert counter is not None
    for other in range(number + 1, count):
        address, _ = v1.round_address(other)
        data = bytearray(model.data)
        data[8:16] = other.to_bytes(8, "little")
        net.ledger.set_account(address, dataclasses.replace(model, data=bytes(data)))
    data = bytearray(counter.data)
    data[8:16] = count.to_bytes(8, "little")
    net.ledger.set_account(counter_at, dataclasses.replace(counter, data=bytes(data)))
    net.settle_slots()


async def cost(count: int) -> tuple[float, float, float, float]:
    """Bytes and calls an hour: ours, then those of reading all accounts every five seconds."""
    async with local_chain(slot_s=0) as net:
        put_finished_rounds(net, count)
        net.post_round()
        net.settle_slots()
        relay = Relay()
        async with relay.to(net.endpoints.rpc_url) as url, Counting(url, timeout_s=120) as rpc:
            chain = SolanaChain(rpc, net.wallet.pubkey)
            assert len(await chain.open_rounds()) == 1
            first = relay.bytes, rpc.calls
            for _ in range(10):
                assert len(await chain.open_rounds()) == 1
            looks = 3600 / WatchPace().safety_interval_s
            # Beside the first look: one listing by filters each hour is in it, too.
            ours = first[0] + (relay.bytes - first[0]) / 10 * looks
            our_calls = first[1] + looks
            before = relay.bytes
            assert len(await rpc.program_accounts(v1.PROGRAM_ID, v1.round_filters())) >= count
            polled = (relay.bytes - before) * 3600 / POLL_S
        return ours, our_calls, polled, 3600 / POLL_S


@dataclass
class Landings:
    """When transactions that write certain accounts have landed, by the event loop's clock."""

    at: dict[Pubkey, float]

    def hear(self, change: Change) -> None:
        if change.commitment is Commitment.PROCESSED and change.landed:
            now = asyncio.get_running_loop().time()
            for address in change.accounts:
                self.at.setdefault(address, now)


@dataclass
class Trained:
    """What the daemon's training child tells."""

    batches: int = 0

    def hear(self, told: Progress) -> None:
        self.batches += told.kind == "train" and bool(told.values.get("batch"))

    async def more(self) -> None:
        """Wait until some more batches were told."""
        wanted = self.batches + 2
        async with asyncio.timeout(120):
            while self.batches < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def latencies(folder: Path, *, training: bool) -> tuple[list[float], list[float]]:
    """Seconds from joinable to the join in a block: of rounds that were seen before they could be
    joined, and of rounds that could be joined when they appeared.

    Args:
        training: have a child of the daemon train on all cores from before until after.
    """
    store = PinStore(folder / "pins")
    async with (
        local_chain(slot_s=SLOT_S, params=Params(join_s=3600)) as net,
        serving(make_pin_app(store, faults=net.faults)) as pins_url,
    ):
        net.ledger.airdrop(net.trainer.pubkey(), 50 * SOL)
        for _ in range(6):  # so that they can pay for all rounds
            net.ledger.airdrop(net.creator.pubkey(), 10 * SOL)
        keypair = folder / "id.json"
        keypair.write_text(str(list(bytes(net.trainer))))
        keypair.chmod(0o600)
        options = {
            "network": "localnet",
            "rpc_url": net.endpoints.rpc_url,
            "ws_url": net.endpoints.ws_url,
            "gateways": [pins_url],
            "pinata_api_url": pins_url,
            "pinata_upload_url": pins_url,
            "pinata_jwt": "localnet-jwt",
            "dataset_mappings": {"custom": "digits"},
            "max_concurrent_rounds": 64,
            "generation": "v1.2",
            "epochs": 1000,
            "threads": os.cpu_count() or 1,
        }
        settings = load(options=options, environ={}).settings
        landings, trained = Landings({}), Trained()
        net.ledger.listen(landings.hear)
        async with open_trainer(
            settings, str(keypair), on_event=lambda told: None, on_progress=trained.hear
        ) as trainer:
            daemon = Daemon(trainer.engine, trainer.watch, trainer.scope, trainer.followed)
            stop = asyncio.Event()
            running = asyncio.create_task(daemon.run(stop))
            bench = _Bench(net, store, folder, landings)
            await bench.one(ahead=True)  # the first one of its kind: torch, once per machine
            if training:
                net.start_training(0)
                await trained.more()
            ahead = [await bench.one(ahead=True) for _ in range(AHEAD)]
            sudden = [await bench.one(ahead=False) for _ in range(AT_FIRST_SIGHT)]
            if training:
                await trained.more()  # it still goes on
            stop.set()
            await running
        return ahead, sudden


@dataclass
class _Bench:
    net: LocalChain
    store: PinStore
    folder: Path
    landings: Landings
    posted: int = 0

    async def one(self, *, ahead: bool) -> float:
        """Post a round with a model of its own, let it be taken by a validator, wait for us."""
        torch.manual_seed(self.posted)
        path = self.folder / f"model-{self.posted}.pt"
        torch.save(SimpleCNN(10).state_dict(), path)
        pin, _ = self.store.add([Part((), path)], V1, network="public", name="model")
        key = self.net.creator.pubkey()
        number = self.posted
        self.posted += 1
        self._send(v1.create_round(number, pin.cid, 98, SOL, key), self.net.creator)
        if ahead:
            await asyncio.sleep(8 if number == 0 else 4)
        self._send(v1.claim_round(number, self.net.validator.pubkey()), self.net.validator)
        joinable = asyncio.get_running_loop().time()
        address, _ = v1.submission_address(number, self.net.wallet.pubkey)
        async with asyncio.timeout(60):
            while address not in self.landings.at:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return self.landings.at[address] - joinable

    def _send(self, instruction: Any, payer: Any) -> None:
        """Into the current slot, which goes on."""
        blockhash = self.net.ledger.blockhash_at(Commitment.PROCESSED)
        message = Message.new_with_blockhash([instruction], payer.pubkey(), blockhash)
        landed = self.net.ledger.submit(VersionedTransaction(message, [payer]))
        assert landed.error is None, landed.meta["logMessages"]


def part(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def measure() -> None:
    """Both tables."""
    print("watching, per hour: ours against reading all rounds every 5 s")
    for count in ROUNDS:
        ours, our_calls, polled, polls = asyncio.run(cost(count))
        print(
            f"  {count:>7,} rounds  ours {ours / 1e6:9.3f} MB {our_calls:6.0f} calls   "
            f"polling {polled / 1e6:12.1f} MB {polls:5.0f} calls   1 / {polled / ours:,.0f}"
        )
    show: Callable[[str, list[float]], None] = lambda name, taken: print(  # noqa: E731
        f"  {name:<28} p50 {statistics.median(taken):5.2f} s   p99 {part(taken, 0.99):5.2f} s   "
        f"n = {len(taken)}"
    )
    for training, beside in ((False, "nothing trains"), (True, "while a round trains")):
        with tempfile.TemporaryDirectory() as home:
            os.environ["DECLOUD_HOME"] = str(Path(home) / "home")
            ahead, sudden = asyncio.run(latencies(Path(home), training=training))
        print(f"from joinable to the join in a block, slots of {SLOT_S:g} s, {beside}")
        show("seen before it was joinable", ahead)
        show("joinable at first sight", sudden)


if __name__ == "__main__":
    measure()
