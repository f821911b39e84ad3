"""Whole lives of rounds under crashes: many daemons on one local network, killed and restarted.

Each `Life` is a wallet and a home. Its daemons are real processes (see daemonfork.py) that die at
armed fault points; the harness starts the next one until every round is over. Then it counts, on
chain and in the transactions that reached it. Outcomes are asserted, never times.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localchain import FEE, RENT, SOL, LocalChain, local_chain
from loopback import serving
from processes import processes_in
from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from decloud_trainer.chain import v1
from decloud_trainer.chain.codec import Idl
from decloud_trainer.errors import LayoutError
from decloud_trainer.faultpoints import KILLED
from decloud_trainer.files import single_instance
from decloud_trainer.ipfs.cid import V1
from decloud_trainer.localnet.actors.shipped import MODEL
from decloud_trainer.localnet.ledger import Commitment
from decloud_trainer.localnet.pin_server import make_pin_app
from decloud_trainer.localnet.pin_store import Part, PinStore
from decloud_trainer.localnet.posting import dataset_index
from decloud_trainer.localnet.program.image import Params
from decloud_trainer.rounds import asking, coldstore, transfers
from decloud_trainer.rounds.entry import Entry, State
from decloud_trainer.rounds.intake import Scope
from decloud_trainer.rounds.journal import Journal
from decloud_trainer.rounds.training_jobs import prefix

BUDGET = SOL
# Of the wallet; the rest goes to the cold address, again and again.
FLOAT = BUDGET // 2
TRANSFER = (-1, "transfer")
PATIENCE_S = 60.0
# A daemon passes some 150 points in the two rounds.
LATEST_VISIT = 120
PROGRAM = Idl.load(v1.GENERATIONS[-1])
KINDS = {"join_round": "join", "submit_gradients": "submit", "claim_reward": "claim"}


@dataclass
class Life:
    """A wallet, its home and what struck its daemons.

    Attributes:
        faults: what to arm for the daemon whose number (from 0) is given.
        struck: the fault points at which its daemons were killed.
        endings: exit codes of daemons that ended by themselves.
        may_end_with: exit codes after which the next daemon is started, as a service manager does.
        reasons: what those said for a reason.
    """

    name: str
    home: Path
    faults: Callable[[Life], str] = lambda _: ""
    wallet: Keypair = field(default_factory=Keypair)
    cold: Pubkey = field(default_factory=lambda: Keypair().pubkey())
    runs: int = 0
    struck: list[str] = field(default_factory=list)
    endings: list[int] = field(default_factory=list)
    may_end_with: tuple[int, ...] = ()
    reasons: list[str] = field(default_factory=list)
    pid: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def log(self) -> Path:
        """Beside the home: it is to be read whatever becomes of that."""
        return self.home.with_name(f"{self.home.name}.log")


@dataclass
class Sent:
    """A transaction that a wallet of ours handed to the network, whether it landed or not."""

    wallet: Pubkey
    purpose: tuple[int, str]
    signature: str
    blockhash: Hash


@dataclass
class Chaos:
    """A network, a creator, a validator, and lives whose daemons are killed.

    Attributes:
        worker: scripted, or torch: the real one.
        scripts: what scripted children do, by "kind" or "kind rN" of a round's number.
    """

    net: LocalChain
    url: str
    cid: str
    folder: Path
    worker: str
    scripts: dict[str, Any] = field(default_factory=dict)
    lives: list[Life] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    twice: list[tuple[Sent, Sent]] = field(default_factory=list)
    _fork: asyncio.subprocess.Process | None = None
    _hearing: asyncio.Task[None] | None = None
    _by_pid: dict[int, Life] = field(default_factory=dict)
    _ending: bool = False
    _broken: str = ""

    def life(self, name: str, faults: Callable[[Life], str]) -> Life:
        home = self.folder / f"home-{name}"
        home.mkdir(mode=0o700)
        life = Life(name, home, faults)
        self.net.ledger.airdrop(life.wallet.pubkey(), BUDGET)
        self.lives.append(life)
        return life

    def scope(self, life: Life) -> Scope:
        genesis = str(self.net.ledger.genesis_hash)
        return Scope(genesis, str(v1.PROGRAM_ID), str(life.wallet.pubkey()))

    # The other people

    def post(self, dataset: str = "digits") -> int:
        return self.net.post_round(cid=self.cid, dataset_index=dataset_index(dataset))

    def take(self, number: int) -> None:
        self.net.run(v1.claim_round(number, self.net.validator.pubkey()), self.net.validator)

    def abort(self, number: int) -> None:
        creator, validator = self.net.creator.pubkey(), self.net.validator.pubkey()
        self.net.run(v1.abort_round(number, creator, validator), self.net.validator)

    def join_elsewhere(self, number: int) -> None:
        """Every wallet joins by another machine, which nobody here remembers."""
        for life in self.lives:
            self.net.run(v1.join_round(number, life.wallet.pubkey()), life.wallet)

    def complete(self, number: int) -> None:
        self.net.complete(number, [(life.wallet, self._share(life)) for life in self.lives])

    def _share(self, life: Life) -> int:
        """In hundredths of a percent: equal ones, the first life's with what is left over."""
        rest = 10_000 % len(self.lives) if life is self.lives[0] else 0
        return 10_000 // len(self.lives) + rest

    # What the chain and the journals show

    def submission(self, life: Life, number: int) -> Any:
        address, _ = v1.submission_address(number, str(life.wallet.pubkey()), v1.PROGRAM_ID)
        account = self.net.ledger.account(address)
        if account is None:
            return None
        return v1.decode_submission(account.data, address=address, program=v1.PROGRAM_ID)

    def entries(self, life: Life) -> list[Entry]:
        with closing(Journal(life.home / "journal.sqlite")) as journal:
            return journal.entries(self.scope(life).key(0))

    def state(self, life: Life, number: int) -> State | None:
        found = [entry for entry in self.entries(life) if entry.key.round_id == number]
        return found[0].state if found else None

    async def until(self, what: str, holds: Callable[[Life], bool]) -> None:
        """Wait until it holds for every life; what their daemons said, if it never does."""
        for life in self.lives:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while not holds(life):
                        assert not self._broken, self._broken
                        assert self._hearing is None or not self._hearing.done(), self._hearing
                        await asyncio.sleep(0.03)
            except TimeoutError:
                rows = [(e.key.round_id, e.state.value, e.reason) for e in self.entries(life)]
                raise AssertionError(f"{what}: {life.name} {rows}\n{_tail(life)}") from None

    async def all_joined(self, number: int) -> None:
        await self.until("joined", lambda life: self.submission(life, number) is not None)

    async def all_submitted(self, number: int) -> None:
        await self.until("submitted", lambda life: self.submission(life, number).submitted)

    async def all_claimed(self, number: int) -> None:
        await self.until("claimed", lambda life: self.submission(life, number).reward_claimed)

    async def all_in(self, number: int, *states: State) -> None:
        names = ", ".join(state.value for state in states)
        await self.until(f"round {number} {names}", lambda life: self.state(life, number) in states)

    async def all_at_work(self, number: int) -> None:
        """Each has a training child for the round, which its daemon has told its work."""
        await self.until(f"training {number}", lambda life: self._is_training(life, number))

    def _is_training(self, life: Life, number: int) -> bool:
        name = f"{prefix(self.scope(life).key(number))}-train*"
        return any(map(processes_in, life.home.glob(f"jobs/{name}")))

    def ask(self, kind: str, number: int) -> None:
        """What a command beside each daemon asks for."""
        for life in self.lives:
            with closing(Journal(life.home / "journal.sqlite")) as journal:
                asking.ask(journal, kind, self.scope(life).key(number), {})

    async def all_swept(self) -> None:
        """What exceeds the float is at the cold address, and booked."""
        await self.until("swept", self._is_swept)

    def _is_swept(self, life: Life) -> bool:
        account = self.net.ledger.account(life.wallet.pubkey())
        assert account is not None
        with closing(Journal(life.home / "journal.sqlite")) as journal:
            open_one = transfers.under_way(journal, self.scope(life).key(0))
        return open_one is None and account.lamports < FLOAT + coldstore.LEAST_LAMPORTS

    # The daemons

    async def start(self) -> None:
        for life in self.lives:
            await self._start(life)

    async def _start(self, life: Life) -> None:
        life.gone.clear()
        order = {
            "id": life.name,
            "home": str(life.home),
            "log": str(life.log),
            "worker": self.worker,
            "scripts": self.scripts,
            "faults": life.faults(life),
            "settings": self._settings(life),
        }
        life.runs += 1
        assert self._fork is not None
        assert self._fork.stdin is not None
        self._fork.stdin.write(json.dumps(order).encode() + b"\n")

    def _settings(self, life: Life) -> dict[str, Any]:
        where = self.net.endpoints
        return {
            "network": "localnet",
            "rpc_url": where.rpc_url,
            "ws_url": where.ws_url,
            "private_key": str(life.wallet),
            "generation": self.net.generation,
            "datasets": ["custom"],
            "dataset_mappings": {"custom": "digits"},
            "max_concurrent_rounds": 6,
            "gateways": [self.url],
            "pinata_jwt": "localnet-jwt",
            "pinata_api_url": self.url,
            "pinata_upload_url": self.url,
            "availability_wait": 1,
            "poll_interval": 0.2,
            "max_batches": 4,
            "device": "cpu",
            "threads": 1,
            "precision": "float32",
            "gradient_dtype": "float16",
            "checkpoint_seconds": 0.1,
            "cold_address": str(life.cold),
            "sweep_above_lamports": FLOAT,
        }

    async def _hear(self) -> None:
        """Restart what was killed, until the end."""
        assert self._fork is not None
        assert self._fork.stdout is not None
        while line := await self._fork.stdout.readline():
            told = json.loads(line)
            if "id" in told:
                life = next(one for one in self.lives if one.name == told["id"])
                life.pid = told["pid"]
                self._by_pid[life.pid] = life
                continue
            life = self._by_pid[told["pid"]]
            if told["status"] == -signal.SIGKILL:
                life.struck.append(_last_point(life))
                await self._start(life)
            elif told["status"] in life.may_end_with and not self._ending:
                life.endings.append(told["status"])
                life.reasons.append(_last_error(life))
                await self._start(life)
            else:
                life.endings.append(told["status"])
                life.gone.set()
                if not self._ending:
                    self._broken = f"{life.name} ended with {told['status']}\n{_tail(life)}"

    async def stop(self) -> None:
        """End the daemons as a signal does; all must end well."""
        self._ending = True
        for life in self.lives:
            if not life.gone.is_set():
                os.kill(life.pid, signal.SIGTERM)
        for life in self.lives:
            async with asyncio.timeout(30):
                await life.gone.wait()
            assert life.endings[-1] == 0, _tail(life)

    # Counting

    def count(self, *, claimed: Sequence[int], lost: Sequence[int] = ()) -> None:
        """Nothing sent twice, nothing owed and unclaimed, nothing stuck, nothing left behind."""
        for life in self.lives:
            where = f"{life.name}, struck at {life.struck}\n{_tail(life)}"
            landed = self._landed(life)
            refused = {key: n for key, n in landed.items() if key[2] != "ok"}
            assert not refused, (refused, where)
            for number in claimed:
                for kind in ("join", "submit", "claim"):
                    assert landed[number, kind, "ok"] == 1, (number, kind, landed, where)
                assert self.submission(life, number).reward_claimed, where
            assert all(
                entry.state in (State.CLAIMED, State.LOST, State.SKIPPED)
                for entry in self.entries(life)
            ), where
            self._check_balance(life, len(claimed), len(lost), where)
            self._check_left(life, where)
        assert not self.twice, self.twice

    def _landed(self, life: Life) -> Counter[tuple[int, str, str]]:
        """(round, kind, ok or the error) of all transactions that the wallet paid for."""
        me = life.wallet.pubkey()
        found: Counter[tuple[int, str, str]] = Counter()
        for landed in self.net.ledger.mentioning(me, Commitment.PROCESSED):
            transaction = VersionedTransaction.from_bytes(landed.wire)
            purpose = _purpose(transaction)
            if transaction.message.account_keys[0] == me and purpose is not None:
                found[(*purpose, "ok" if landed.error is None else str(landed.error))] += 1
        return found

    def _check_balance(self, life: Life, claimed: int, lost: int, where: str) -> None:
        """To the lamport: rewards in, one rent and one fee for each thing done, nothing else."""
        share = SOL * 9 // 10 * self._share(life) // 10_000
        reward = share - share * 2 // 100
        wanted = BUDGET + claimed * (reward - RENT - 3 * FEE) - lost * (RENT + FEE)
        accounts = map(self.net.ledger.account, (life.wallet.pubkey(), life.cold))
        left = sum(account.lamports for account in accounts if account is not None)
        moved = self._landed(life)[*TRANSFER, "ok"]
        assert left == wanted - moved * FEE, (left, wanted, moved, where)

    def _check_left(self, life: Life, where: str) -> None:
        left = [
            path
            for pattern in ("*.tmp", "*.part")
            for path in life.home.rglob(pattern)
            if path.name.startswith(".")
        ]
        assert not left, (left, where)
        assert not list(processes_in(life.home)), where
        with single_instance(life.home / "daemon.lock", "a daemon"):
            pass

    def note_sent(self, transaction: VersionedTransaction) -> None:
        """Keep what reaches the network, and where two for one purpose could both have landed."""
        purpose = _purpose(transaction)
        if purpose is None:
            return
        message = transaction.message
        signature = str(transaction.signatures[0])
        one = Sent(message.account_keys[0], purpose, signature, message.recent_blockhash)
        for other in self.sent:
            same = (other.wallet, other.purpose) == (one.wallet, one.purpose)
            if same and other.signature != one.signature:
                ledger = self.net.ledger
                landed = ledger.transaction(Signature.from_string(other.signature))
                done = landed is not None and purpose != TRANSFER
                if done or (
                    landed is None
                    and ledger.blockhash_is_valid(other.blockhash, Commitment.PROCESSED)
                ):
                    self.twice.append((other, one))
        self.sent.append(one)


def _purpose(transaction: VersionedTransaction) -> tuple[int, str] | None:
    """(round, kind) of a trainer's transaction."""
    for instruction in transaction.message.instructions:
        with contextlib.suppress(LayoutError):
            name, _ = PROGRAM.decode_instruction(bytes(instruction.data))
            if name in KINDS:
                return int.from_bytes(bytes(instruction.data)[8:16], "little"), KINDS[name]
        if bytes(instruction.data)[:4] == b"\x02\0\0\0":  # the system program's transfer
            return TRANSFER
    return None


def _last_point(life: Life) -> str:
    lines = life.log.read_text("utf-8", "replace").splitlines() if life.log.exists() else []
    if lines and lines[-1].startswith(KILLED):
        return lines[-1].removeprefix(KILLED)
    return "a random moment"


def _last_error(life: Life) -> str:
    lines = life.log.read_text("utf-8", "replace").splitlines()
    return next((line for line in reversed(lines) if line.startswith("error: ")), "")


def _tail(life: Life) -> str:
    return "\n".join(life.log.read_text("utf-8", "replace").splitlines()[-40:])


def once_each(points: Sequence[str]) -> Callable[[Life], str]:
    """Kill at every one of these points once, in whatever order a life comes by."""

    def faults(life: Life) -> str:
        return ",".join(f"{point}=kill" for point in points if point not in life.struck)

    return faults


def at_visits(visits: Sequence[int]) -> Callable[[Life], str]:
    """Kill each daemon at so many visits of whatever point; then let one go on to the end."""

    def faults(life: Life) -> str:
        return f"*@{visits[life.runs]}=kill" if life.runs < len(visits) else ""

    return faults


async def two_rounds(world: Chaos) -> None:
    """One from posting to reward, and one that another machine joined."""
    first, second = world.post(), world.post()
    world.take(second)
    world.join_elsewhere(second)
    await world.start()
    world.take(first)
    for number in (first, second):
        await world.all_joined(number)
        world.net.start_training(number)
    for number in (first, second):
        await world.all_submitted(number)
        world.complete(number)
    await finish(world, first, second)


async def one_round(world: Chaos) -> None:
    number = world.post()
    await world.start()
    world.take(number)
    await world.all_joined(number)
    world.net.start_training(number)
    await world.all_submitted(number)
    world.complete(number)
    await finish(world, number)


async def finish(world: Chaos, *rounds: int, lost: Sequence[int] = ()) -> None:
    """To the rewards; then the daemons are ended and everything is counted."""
    for number in rounds:
        await world.all_claimed(number)
        await world.all_in(number, State.CLAIMED)
    for number in lost:
        await world.all_in(number, State.LOST)
    await world.all_swept()
    await world.stop()
    world.count(claimed=rounds, lost=lost)


def random_life(world: Chaos, seed: int) -> Life:
    """Three daemons after each other, each killed at whatever point the seed says."""
    source = random.Random(seed)
    return world.life(str(seed), at_visits([source.randint(1, LATEST_VISIT) for _ in range(3)]))


@contextlib.asynccontextmanager
async def chaos(folder: Path, *, worker: str = "scripted") -> AsyncIterator[Chaos]:
    """A network and the process that forks daemons; both are gone afterwards."""
    store = PinStore(folder / "pins")
    model = MODEL
    if worker == "scripted":
        model = folder / "model.pt"
        model.write_bytes(b"a model that scripted workers take")
    pin, _ = store.add([Part((), model)], V1, network="public", name="model")
    params = Params(join_s=3600, submit_s=500, max_trainers=100)
    async with (
        local_chain("v1.2", slot_s=0.1, params=params) as net,
        serving(make_pin_app(store, faults=net.faults)) as url,
    ):
        world = Chaos(net, url, pin.cid, folder, worker)
        _note_sent(world)
        world._fork = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("daemonfork.py")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        world._hearing = asyncio.create_task(world._hear())
        try:
            yield world
        finally:
            world._hearing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await world._hearing
            await world._fork.communicate(b"")  # and close its pipes


def _note_sent(world: Chaos) -> None:
    """Keep a note of all that reaches the network, whatever becomes of it."""
    ledger = world.net.ledger
    submit = ledger.submit

    def noted(transaction: VersionedTransaction) -> Any:
        world.note_sent(transaction)
        return submit(transaction)

    ledger.submit = noted  # type: ignore[method-assign]
