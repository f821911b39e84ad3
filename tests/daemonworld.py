"""A daemon on a real local network, in this process; the other people are the test's.

The ledger, its program, its servers, the pin service and the training children are the shipped
ones. The children are scripted (they learn nothing), since these tests are about rounds. The
clock of the chain and of the daemon is moved by `World.warp`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any
from unittest.mock import patch

from localchain import FAST, PATIENCE_S, SOL, LocalChain, local_chain
from loopback import serving
from solders.keypair import Keypair
from solders.transaction import VersionedTransaction

from decloud_trainer.chain import lifecycle, v1
from decloud_trainer.chain.generation import Generation
from decloud_trainer.chain.guard import Book, Guard
from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.chain.sending import SolanaSender
from decloud_trainer.chain.watch import RoundWatch, WatchPace
from decloud_trainer.ipfs.cid import V1, file_cid
from decloud_trainer.ipfs.gateways import Gateways
from decloud_trainer.ipfs.pinning import PinataV3
from decloud_trainer.ipfs.pins import IpfsPins
from decloud_trainer.jobs.attempt import Limits
from decloud_trainer.jobs.store import JobStore
from decloud_trainer.jobs.supervisor import SCRIPTED_WORKER, Supervisor
from decloud_trainer.localnet.ledger import Commitment
from decloud_trainer.localnet.pin_server import make_pin_app
from decloud_trainer.localnet.pin_store import Part, PinStore
from decloud_trainer.localnet.program.image import Params
from decloud_trainer.rounds import asking
from decloud_trainer.rounds import daemon as daemon_module
from decloud_trainer.rounds import steps as steps_module
from decloud_trainer.rounds.daemon import Daemon
from decloud_trainer.rounds.engine import Engine, Told
from decloud_trainer.rounds.entry import Entry, State
from decloud_trainer.rounds.intake import Scope
from decloud_trainer.rounds.intents import spent
from decloud_trainer.rounds.journal import Journal, JournalThread
from decloud_trainer.rounds.parts import Move, Parts, Progress, Step, TrainingPlan
from decloud_trainer.rounds.path import Path
from decloud_trainer.rounds.policy import Terms
from decloud_trainer.rounds.ports import Chain, Sender
from decloud_trainer.rounds.spending import Ceilings, ColdStore
from decloud_trainer.rounds.training_jobs import prefix

TERMS = Terms(
    datasets=frozenset(),
    min_reward_lamports=0,
    max_reward_lamports=0,
    max_concurrent_rounds=1,
    trainable=frozenset({"digits", "custom", "mnist"}),
    trained_on={"custom": "digits"},
)
# Ports, so that a test can put a thin wrapper around a real part.
Wrap = Callable[[Any], Any]


def same(part: Any) -> Any:
    return part


@dataclass
class Running:
    """A daemon at work, and what it told."""

    world: World
    engine: Engine
    jobs: Supervisor
    home: FilePath
    told: list[Told] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def task(self) -> asyncio.Task[None]:
        """The daemon's own."""
        assert self.started is not None
        return self.started

    started: asyncio.Task[None] | None = None

    async def entry(self, number: int) -> Entry | None:
        return await self.engine.parts.journal(Journal.entry, self.world.scope.key(number))

    async def until(self, number: int, *states: State, timeout_s: float = PATIENCE_S) -> Entry:
        """Wait until the round's row is in one of the states."""
        found = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    found = await self.entry(number)
                    if found is not None and found.state in states:
                        return found
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"round {number} is still {found}") from None

    async def until_reason(self, number: int, words: str, timeout_s: float = PATIENCE_S) -> Entry:
        """Wait until the row's reason holds the words."""
        found = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    found = await self.entry(number)
                    if found is not None and words in found.reason:
                        return found
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"round {number} is still {found}") from None

    def jobs_of(self, number: int, kind: str) -> list[str]:
        """The folders of the jobs of that kind that were started for the round."""
        name = f"{prefix(self.world.scope.key(number))}-{kind}"
        return sorted(path.name for path in (self.home / "jobs").glob(f"{name}*"))

    async def history(self, number: int) -> list[str]:
        """The states that the row went through."""
        entry = await self.entry(number)
        assert entry is not None
        events = await self.engine.parts.journal(Journal.events, entry)
        return [event.to_state for event in events if event.kind == "state"]


@dataclass
class World:
    """A local network without actors, and one trainer's home."""

    net: LocalChain
    home: FilePath
    pins_url: str
    store: PinStore
    model_cid: str
    shift: float = 0.0

    @property
    def scope(self) -> Scope:
        return Scope(str(self.net.ledger.genesis_hash), str(v1.PROGRAM_ID), self.net.wallet.pubkey)

    def clock(self) -> float:
        return time.time() + self.shift

    def warp(self, seconds: float) -> None:
        """Let that much time pass on chain, and for the daemon."""
        self.net.ledger.warp(seconds)
        self.shift += seconds

    # What others do on chain

    def post(self, **options: Any) -> int:
        """A round that waits for a validator."""
        return self.net.post_round(**{"cid": self.model_cid, **options})

    def open(self, **options: Any) -> int:
        """A round that waits for trainers."""
        return self.net.open_round(**{"cid": self.model_cid, **options})

    def take(self, number: int) -> None:
        self.net.run(v1.claim_round(number, self.net.validator.pubkey()), self.net.validator)

    def abort(self, number: int) -> None:
        """The validator gives the round up."""
        creator, validator = self.net.creator.pubkey(), self.net.validator.pubkey()
        self.net.run(v1.abort_round(number, creator, validator), self.net.validator)

    def take_back(self, number: int) -> None:
        """Anybody tells the program that a deadline of the round has passed."""
        creator = self.net.creator.pubkey()
        self.net.run(v1.check_round(number, creator), self.net.creator)

    def join_as(self, trainer: Keypair, number: int) -> None:
        self.net.run(v1.join_round(number, trainer.pubkey()), trainer)

    def submit_as(self, trainer: Keypair, number: int) -> None:
        cid = file_cid_of(str(trainer.pubkey()).encode(), self.home)
        self.net.run(v1.submit_gradients(number, cid, trainer.pubkey()), trainer)

    def claim_as(self, trainer: Keypair, number: int) -> None:
        claim = v1.claim_reward(number, trainer.pubkey(), generation=self.net.generation)
        self.net.run(claim, trainer)

    def another_trainer(self) -> Keypair:
        keypair = Keypair()
        self.net.ledger.airdrop(keypair.pubkey(), SOL)
        return keypair

    def complete(self, number: int, bps: int = 10_000) -> None:
        self.net.complete(number, [(self.net.trainer, bps)])

    def transactions(self) -> Counter[str]:
        """How often the trainer's wallet paid for each instruction, successful or not."""
        me = self.net.trainer.pubkey()
        found: Counter[str] = Counter()
        for landed in self.net.ledger.mentioning(me, Commitment.PROCESSED):
            message = VersionedTransaction.from_bytes(landed.wire).message
            if message.account_keys[0] != me:
                continue
            for line in landed.meta["logMessages"]:
                if line.startswith("Program log: Instruction: "):
                    found[line.rpartition(" ")[2]] += 1
        return found

    def balance(self) -> int:
        account = self.net.ledger.account(self.net.trainer.pubkey())
        return account.lamports if account else 0

    def guarded(self, ceilings: Ceilings, *, rpc: Rpc | None = None) -> SolanaSender:
        """A sender that keeps to these, and books in the home's journal."""
        net, rpc = self.net, rpc or self.net.rpc

        async def past(round_id: int, since: float) -> Any:
            with contextlib.closing(Journal(self.home / "journal.sqlite")) as journal:
                return spent(journal, self.scope.key(round_id), since)

        guard = Guard(rpc, net.wallet, ceilings=ceilings, book=Book(past, self.clock))
        found = Generation(rpc, net.wallet.pubkey, setting=net.generation)
        return SolanaSender(rpc, net.wallet, found, guard=guard, pace=FAST)

    @contextlib.asynccontextmanager
    async def daemon(
        self,
        *,
        terms: Mapping[str, Any] | None = None,
        script: Mapping[str, Mapping[str, Any]] | None = None,
        steps: Mapping[State, Step] | None = None,
        home: FilePath | None = None,
        jwt: str = "localnet-jwt",
        chain: Wrap = same,
        sender: Wrap = same,
        pins: Wrap = same,
        pace: WatchPace | None = None,
        on_event: Callable[[Told], None] | None = None,
        cold: ColdStore | None = None,
    ) -> AsyncIterator[Running]:
        """A daemon over the home; leaving stops it as a signal would.

        Args:
            terms: what differs from TERMS.
            script: what the scripted children do, by the kind of job.
            steps: steps that replace those of the v1 path.
            chain, sender, pins: put around the real part.
        """
        home = home or self.home
        net = self.net
        service = PinataV3(jwt, api_url=self.pins_url, upload_url=self.pins_url)
        journal = JournalThread(home / "journal.sqlite", clock=self.clock)
        chosen = dataclasses.replace(TERMS, **(terms or {}))
        worker = (*SCRIPTED_WORKER, json.dumps({"seconds": 0.01}))
        limits = Limits(max_parallel=chosen.max_concurrent_rounds, tick_s=0.05, retry_wait_s=0.01)
        followed: set[int] = set()
        quick = WatchPace(
            poll_interval_s=0.1,
            safety_interval_s=30,
            answer_s=2,
            first_retry_s=0.05,
            max_retry_s=0.1,
        )
        async with Supervisor(
            JobStore(home / "jobs.sqlite", home / "jobs"), worker, limits=limits
        ) as jobs:
            parts = Parts(
                chain=chain(net.chain),
                sender=sender(net.sender(generation=net.generation)),
                pins=pins(
                    IpfsPins(Gateways([self.pins_url]), [service], availability_s=0.2),
                ),
                jobs=ScriptedJobs(jobs, script or {}),
                journal=journal,
                terms=chosen,
                plan=PLAN,
                models_dir=home / "models",
                max_model_bytes=10_000_000,
                clock=self.clock,
                to_local=lambda at: at - self.shift,
                on_progress=lambda told: running.progress.append(told),
                cold=cold,
            )
            engine = Engine(
                parts,
                Path({**lifecycle.V1.steps, **(steps or {})}),
                on_event or (lambda told: running.told.append(told)),
            )
            running = Running(self, engine, jobs, home)
            watch = RoundWatch(
                net.chain,
                net.endpoints.ws_url,
                follow=lambda: tuple(followed),
                pace=pace or quick,
            )
            daemon = Daemon(engine, watch, self.scope, followed)
            running.started = asyncio.create_task(daemon.run(running.stop))
            try:
                yield running
                assert running.stop.is_set() or not running.task.done(), running.task
            finally:
                running.stop.set()
                await ended(running.task)
                journal.close()


async def ended(task: asyncio.Task[None]) -> None:
    """The daemon's end, which takes a moment at most."""
    done, _ = await asyncio.wait({task}, timeout=10)
    if not done:
        for one in asyncio.all_tasks():
            one.print_stack()
    assert done, "the daemon doesn't stop"
    task.result()


PLAN = TrainingPlan(
    data={
        name: {"name": name, "path": None, "data_dir": "/nowhere"} for name in ("digits", "mnist")
    },
    epochs=1,
    batch_size=32,
    learning_rate=0.001,
    max_batches=0,
    seed=0,
    device="auto",
    threads=0,
    apply_scale=-0.1,
    dtype="float32",
)


def file_cid_of(data: bytes, folder: FilePath) -> str:
    path = folder / "some-file"
    path.write_bytes(data)
    return str(file_cid(path, version=1))


@contextlib.asynccontextmanager
async def a_world(
    folder: FilePath, *, generation: str = "v1.2", **params: int
) -> AsyncIterator[World]:
    """A local network with one pinned model; `params` are the program's."""
    store = PinStore(folder / "pins")
    model = folder / "model.pt"
    model.write_bytes(b"a model that scripted workers take")
    pin, _ = store.add([Part((), model)], V1, network="public", name="model")
    home = folder / "home"
    home.mkdir()
    with (
        patch.multiple(daemon_module, REQUESTS_S=0.05, LONGEST_SLEEP_S=0.1),
        patch.object(steps_module, "PHASE_LOOK_S", 0.1),
    ):
        async with (
            local_chain(generation, params=Params(**params)) as net,
            serving(make_pin_app(store, faults=net.faults)) as url,
        ):
            yield World(net, home, url, store, pin.cid)


class ScriptedJobs:
    """Real jobs, whose scripted workers get a script by their kind."""

    def __init__(self, real: Supervisor, scripts: Mapping[str, Mapping[str, Any]]) -> None:
        self._real = real
        self._scripts = scripts

    async def submit(self, job_id: str, kind: str, spec: Any, **options: Any) -> Any:
        script = {"script": dict(self._scripts.get(kind, {}))}
        return await self._real.submit(job_id, kind, {**spec, **script}, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Stuck:
    """A sender that stops dead at one action, as a crash would: before or after broadcasting.

    The daemon is then stopped, and the next one finds what was on disk."""

    def __init__(self, real: Sender, world: World, kind: str, *, sent: bool) -> None:
        self._real = real
        self._world = world
        self._kind = kind
        self._sent = sent
        self.reached = asyncio.Event()

    async def prepare(self, action: Any) -> Any:
        return await self._real.prepare(action)

    async def settle(self, intent: Any, *, fresh: bool) -> Any:
        if intent.action.kind.value != self._kind:
            return await self._real.settle(intent, fresh=fresh)
        if self._sent:
            await self._world.net.rpc.send(intent.raw, preflight=False)
        self.reached.set()
        return await forever()


class OldAnswers:
    """A chain whose answers can be replaced by older ones, as a lagging node gives them."""

    def __init__(self, real: Chain) -> None:
        self._real = real
        self.round_now: Callable[[Any], Any] = same
        self.submission_now: Callable[[Any], Any] = same

    async def round(self, round_id: int) -> Any:
        return self.round_now(await self._real.round(round_id))

    async def submission(self, round_id: int) -> Any:
        return self.submission_now(await self._real.submission(round_id))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def earn(world: World, running: Running) -> int:
    """A round that is won; its number."""
    number = world.open()
    await running.until(number, State.JOINED)
    world.net.start_training(number)
    await running.until(number, State.SUBMITTED)
    world.complete(number)
    await running.until(number, State.CLAIMED)
    return number


async def lose(world: World, running: Running) -> int:
    """A round that the validator gives up after we have joined it; its number."""
    number = world.open()
    await running.until(number, State.JOINED)
    world.net.start_training(number)
    world.abort(number)
    await running.until(number, State.LOST)
    return number


async def forever() -> Any:
    await asyncio.Event().wait()


async def hang(parts: Parts, entry: Entry) -> Any:
    """A step that the daemon's end cuts off before it does anything."""
    return await forever()


def unrecorded(state: State, done: asyncio.Event) -> Step:
    """The state's step, cut off when it has done all and only its result isn't recorded."""

    async def step(parts: Parts, entry: Entry) -> Any:
        result = await lifecycle.V1.steps[state](parts, entry)
        if isinstance(result, Move):
            done.set()
            await forever()
        return result

    return step


async def ask(running: Running, kind: str, number: int, **args: Any) -> tuple[str, str]:
    """A request as another terminal makes it, through a journal of its own; and its answer."""
    with contextlib.closing(Journal(running.home / "journal.sqlite")) as journal:
        request = asking.ask(journal, kind, running.world.scope.key(number), args)
        return await answer(journal, request)


async def answer(journal: Journal, request: int) -> tuple[str, str]:
    """What becomes of a request: taken or refused, and why."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := asking.answer_of(journal, request))[0] == "new":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found
