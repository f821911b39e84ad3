"""Builds the trainer from its parts. Only this module and the commands know them all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decloud_trainer.errors import AlreadyRunning, InsufficientFunds, SettingsError
from decloud_trainer.files import (
    cache_dir,
    home_dir,
    log_dir,
    remove_leftovers,
    single_instance,
    wallet_locks_dir,
)
from decloud_trainer.plans import ceilings_of, cold_of, plan_of, terms_of
from decloud_trainer.services import known_wallet, pins_of, program_of, rpc_of, services, wallet_of
from decloud_trainer.settings import Settings

if TYPE_CHECKING:
    from decloud_trainer.chain.client import SolanaChain
    from decloud_trainer.chain.generation import Generation
    from decloud_trainer.chain.guard import Book
    from decloud_trainer.chain.health import Health
    from decloud_trainer.chain.rpc import Rpc
    from decloud_trainer.chain.sending import SolanaSender
    from decloud_trainer.chain.wallet import Wallet
    from decloud_trainer.chain.watch import RoundWatch
    from decloud_trainer.rounds.engine import Engine, Told
    from decloud_trainer.rounds.entry import RowKey
    from decloud_trainer.rounds.intake import Scope
    from decloud_trainer.rounds.journal import Journal
    from decloud_trainer.rounds.parts import Progress
    from decloud_trainer.rounds.spending import ColdStore


@dataclass(frozen=True, slots=True)
class Trainer:
    """Everything a daemon, or a command in its place, works with.

    Attributes:
        followed: ids of the rounds we are in; the daemon keeps it, the watch reads it.
        generation: the program's generation, in words.
        mended: what of the home was damaged, and what was done about it.
        endpoints: host and record of each RPC endpoint.
    """

    settings: Settings
    wallet: Wallet
    chain: SolanaChain
    engine: Engine
    watch: RoundWatch
    followed: set[int]
    scope: Scope
    mended: tuple[str, ...]
    generation: str
    endpoints: Callable[[], list[tuple[str, Health]]]


def journal_path() -> Path:
    return home_dir() / "journal.sqlite"


def jobs_path() -> Path:
    return home_dir() / "jobs.sqlite"


def jobs_dir() -> Path:
    """The folder of the jobs' folders."""
    return home_dir() / "jobs"


@contextlib.contextmanager
def open_journal() -> Iterator[Journal | None]:
    """This home's journal, for whoever looks at it; None where nothing was ever kept."""
    from decloud_trainer.rounds.journal import Journal

    path = journal_path()
    if not path.exists():
        yield None
        return
    with contextlib.closing(Journal(path)) as journal:
        yield journal


@contextlib.asynccontextmanager
async def open_chain(
    settings: Settings, pubkey: str | None
) -> AsyncIterator[tuple[SolanaChain, float]]:
    """For reading alone, with the chain's time (unix seconds). Without a wallet there are no own
    submissions to be found."""
    from decloud_trainer.chain.client import SolanaChain
    from decloud_trainer.chain.clock import ChainClock
    from decloud_trainer.chain.v1 import SYSTEM_PROGRAM

    async with rpc_of(settings) as rpc:
        clock = ChainClock(rpc)
        await clock.refresh()
        chain = SolanaChain(rpc, pubkey or str(SYSTEM_PROGRAM), program=program_of(settings))
        yield chain, clock.now()


@contextlib.contextmanager
def the_only_one(wallet: str) -> Iterator[None]:
    """Hold this home, and on this machine this wallet; AlreadyRunning otherwise.

    Two daemons on one wallet would pay for each round's rent and training twice over."""
    with (
        single_instance(
            home_dir() / "daemon.lock",
            f"a decloud-trainer with the home {home_dir()}",
            hint="stop the other one first; for a second one set DECLOUD_HOME, and another wallet",
            patience_s=0.3,  # a command may just be looking (home_is_held)
        ),
        single_instance(
            wallet_locks_dir() / f"{wallet}.lock",
            f"a decloud-trainer with the wallet {wallet}",
            hint="stop the other one first, or use another wallet: two would pay twice for a round",
        ),
    ):
        yield


def home_is_held() -> bool:
    """Whether a daemon, or a command in its place, is at work in this home."""
    try:
        with single_instance(home_dir() / "daemon.lock", ""):
            return False
    except AlreadyRunning:
        return True


async def scope_of(settings: Settings, keypair: str | None) -> Scope:
    """What the journal's rows of this wallet, program and network have in common."""
    from decloud_trainer.rounds.intake import Scope

    wallet = known_wallet(settings, keypair)
    async with rpc_of(settings) as rpc:
        return Scope(await rpc.genesis_hash(), str(program_of(settings)), wallet.pubkey)


async def _described(generation: Generation) -> str:
    """The generation in words; a wallet without SOL can't simulate, and may be funded later."""
    try:
        return await generation.describe()
    except InsufficientFunds:
        return "v1, its generation not known yet (the wallet is empty)"


def worker_of(settings: Settings) -> tuple[str, ...]:
    """The command of training children."""
    from decloud_trainer.jobs.supervisor import TRAINING_WORKER, UNCONFINED_WORKER

    return TRAINING_WORKER if settings.sandbox else UNCONFINED_WORKER


def _cold_of(settings: Settings, wallet: Wallet) -> ColdStore | None:
    """Where what exceeds the float goes; SettingsError if that is back into the wallet."""
    cold = cold_of(settings)
    if cold is not None and cold.address == wallet.pubkey:
        raise SettingsError(
            "cold_address is the wallet's own address",
            hint="set it to the address of another wallet, whose key isn't on this machine",
        )
    return cold


def _signing(
    settings: Settings, rpc: Rpc, wallet: Wallet, book: Book
) -> tuple[SolanaSender, Generation]:
    """What signs and sends transactions, each looked at by a guard before, and the program's
    generation that they are made for."""
    from decloud_trainer.chain.generation import Generation
    from decloud_trainer.chain.guard import Guard
    from decloud_trainer.chain.sending import SolanaSender

    program, referrer = program_of(settings), settings.referrer or None
    generation = Generation(
        rpc, wallet.pubkey, setting=settings.generation, program=program, referrer=referrer
    )
    guard = Guard(
        rpc,
        wallet,
        program=program,
        referrer=referrer,
        ceilings=ceilings_of(settings),
        book=book,
    )
    return SolanaSender(rpc, wallet, generation, program=program, guard=guard), generation


@contextlib.asynccontextmanager
async def open_trainer(
    settings: Settings,
    keypair: str | None,
    *,
    on_event: Callable[[Told], None],
    on_progress: Callable[[Progress], None],
    worker: tuple[str, ...] | None = None,
) -> AsyncIterator[Trainer]:
    """The whole trainer, holding the home's and the wallet's lock.

    Args:
        worker: the command of training children, if not the real one.

    Raises:
        AlreadyRunning: a daemon is at work.
    """
    from decloud_trainer.chain import lifecycle
    from decloud_trainer.chain.client import SolanaChain
    from decloud_trainer.chain.clock import ChainClock
    from decloud_trainer.chain.guard import Book
    from decloud_trainer.chain.watch import RoundWatch, WatchPace
    from decloud_trainer.jobs.attempt import Limits
    from decloud_trainer.jobs.store import JobStore
    from decloud_trainer.jobs.supervisor import Supervisor
    from decloud_trainer.rounds.engine import Engine
    from decloud_trainer.rounds.intake import Scope
    from decloud_trainer.rounds.intents import spent
    from decloud_trainer.rounds.journal import JournalThread
    from decloud_trainer.rounds.mending import mend
    from decloud_trainer.rounds.parts import Parts

    wallet = wallet_of(settings, keypair)
    program = program_of(settings)
    cold = _cold_of(settings, wallet)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(the_only_one(wallet.pubkey))
        for folder in (home_dir(), log_dir(), cache_dir(), cache_dir() / "models"):
            await asyncio.to_thread(remove_leftovers, folder)
        rpc = await stack.enter_async_context(rpc_of(settings))
        clock = ChainClock(rpc)
        await clock.refresh()
        stack.callback(asyncio.create_task(rpc.keep_probing()).cancel)
        scope = Scope(await rpc.genesis_hash(), str(program), wallet.pubkey)
        store = JobStore(jobs_path(), jobs_dir())
        mended = (
            await asyncio.to_thread(mend, journal_path(), clock.now),
            await asyncio.to_thread(store.mend, clock.now()),
        )
        journal = JournalThread(journal_path(), clock=clock.now)
        stack.callback(journal.close)
        jobs = await stack.enter_async_context(
            Supervisor(
                store,
                worker or worker_of(settings),
                limits=Limits(max_parallel=settings.max_concurrent_rounds),
            )
        )
        chain = SolanaChain(rpc, wallet.pubkey, program=program)
        book = Book(lambda id, since: journal(spent, scope.key(id), since), clock.now)
        sender, generation = _signing(settings, rpc, wallet, book)
        parts = Parts(
            chain=chain,
            sender=sender,
            pins=pins_of(settings),
            jobs=jobs,
            journal=journal,
            terms=terms_of(settings),
            plan=plan_of(settings),
            models_dir=cache_dir() / "models",
            jobs_dir=jobs_dir(),
            max_model_bytes=settings.max_model_mb * 1_000_000,
            max_cached_bytes=settings.model_cache_mb * 1_000_000,
            cold=cold,
            clock=clock.now,
            to_local=clock.to_local,
            on_progress=on_progress,
        )
        followed: set[int] = set()
        watch = RoundWatch(
            chain,
            services(settings).ws_urls,
            program=program,
            follow=lambda: tuple(followed),
            pace=WatchPace(poll_interval_s=settings.poll_interval),
        )
        stack.callback(asyncio.create_task(clock.keep_refreshing(watch.look_again)).cancel)
        yield Trainer(
            settings=settings,
            wallet=wallet,
            chain=chain,
            engine=Engine(parts, lifecycle.V1, on_event),
            watch=watch,
            followed=followed,
            scope=scope,
            generation=await _described(generation),
            mended=tuple(filter(None, mended)),
            endpoints=rpc.health,
        )


def stored_progress(key: RowKey) -> dict[str, Any] | None:
    """How far the round's running child is, as it was last stored (at most a second ago)."""
    from decloud_trainer.jobs.store import JobStore
    from decloud_trainer.rounds.training_jobs import prefix

    if not jobs_path().exists():
        return None
    store = JobStore(jobs_path(), jobs_dir())
    store.open()
    try:
        running = store.running(prefix(key))
    finally:
        store.close()
    return dict(running[-1].progress or {}) if running else None
