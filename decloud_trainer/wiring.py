"""Builds the real parts from the settings. Only this module and the commands know them all."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decloud_trainer.config import Settings
from decloud_trainer.errors import AlreadyRunning, InsufficientFunds, SettingsError
from decloud_trainer.files import (
    cache_dir,
    home_dir,
    log_dir,
    remove_leftovers,
    single_instance,
    wallet_locks_dir,
)
from decloud_trainer.names import dataset_key

if TYPE_CHECKING:
    from decloud_trainer.chain.client import SolanaChain
    from decloud_trainer.chain.generation import Generation
    from decloud_trainer.chain.health import Health
    from decloud_trainer.chain.rpc import Rpc
    from decloud_trainer.chain.wallet import FoundWallet, Wallet
    from decloud_trainer.chain.watch import RoundWatch
    from decloud_trainer.ipfs.pins import PinService
    from decloud_trainer.localnet.options import Endpoints
    from decloud_trainer.rounds.engine import Engine, Told
    from decloud_trainer.rounds.entry import RowKey
    from decloud_trainer.rounds.intake import Scope
    from decloud_trainer.rounds.parts import Progress, TrainingPlan
    from decloud_trainer.rounds.policy import Terms
    from decloud_trainer.rounds.ports import Pins
    from decloud_trainer.rounds.spending import Ceilings, ColdStore
    from decloud_trainer.rounds.watchdog import Patience

PUBLIC_GATEWAYS = (
    "https://ipfs.io",
    "https://gateway.pinata.cloud",
    "https://dweb.link",
    "https://w3s.link",
)
PINATA_API = "https://api.pinata.cloud"
PINATA_UPLOADS = "https://uploads.pinata.cloud"
LOCAL_PINS = "http://127.0.0.1:8901"
# The local network's own, published credentials; see localnet/pin_server.py.
LOCAL_JWT = "localnet-jwt"

# The scoring side computes base + scale * gradient.
CONVENTIONS = {"descent-0.1": -0.1, "delta": 1.0}
V1_CONVENTION = "descent-0.1"


@dataclass(frozen=True, slots=True)
class Services:
    """Where everything outside is: the settings, or the network's own where they are empty.

    The first of several is the one that is preferred."""

    rpc_urls: tuple[str, ...] = field(repr=False)  # they may hold API keys
    ws_urls: tuple[str, ...] = field(repr=False)
    gateways: tuple[str, ...]
    pin_api_url: str
    pin_upload_url: str
    local_jwt: str


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


def running_localnet() -> Endpoints | None:
    """The endpoints of the local network that this home started, if one is running."""
    from decloud_trainer.localnet.options import Endpoints

    path = home_dir() / "localnet.json"
    return Endpoints.load(path) if path.exists() else None


def services(settings: Settings) -> Services:
    from decloud_trainer.chain.rpc import NETWORKS

    network = NETWORKS[settings.network]
    rpc_url, ws_url = network.rpc_url, network.ws_url
    gateways: tuple[str, ...] = PUBLIC_GATEWAYS
    api, uploads, jwt = PINATA_API, PINATA_UPLOADS, ""
    if settings.network == "localnet":
        gateways, api, uploads, jwt = (LOCAL_PINS,), LOCAL_PINS, LOCAL_PINS, LOCAL_JWT
        if (local := running_localnet()) is not None:
            rpc_url, ws_url = local.rpc_url, local.ws_url
            gateways, jwt = (local.gateway_url,), local.pin_jwt
            api, uploads = local.pin_api_url, local.pin_upload_url
    if settings.rpc_url:
        rpc_url = settings.rpc_url
        ws_url = settings.ws_url or _websocket_of(settings.rpc_url)
    fallbacks = settings.rpc_fallbacks
    ws_fallbacks = settings.ws_fallbacks or tuple(map(_websocket_of, fallbacks))
    return Services(
        rpc_urls=tuple(dict.fromkeys((rpc_url, *fallbacks))),
        ws_urls=tuple(dict.fromkeys((settings.ws_url or ws_url, *ws_fallbacks))),
        gateways=settings.gateways or gateways,
        pin_api_url=settings.pinata_api_url or api,
        pin_upload_url=settings.pinata_upload_url or uploads,
        local_jwt=jwt,
    )


def rpc_of(settings: Settings, **options: Any) -> Rpc:
    """The RPC endpoints, used as one; `options` are those of `Endpoints`."""
    from decloud_trainer.chain.endpoints import Use
    from decloud_trainer.chain.rpc import NETWORKS, Rpc

    use = Use(limit=settings.rpc_limit, genesis=NETWORKS[settings.network].genesis)
    return Rpc(services(settings).rpc_urls, use=use, **options)


def _websocket_of(rpc_url: str) -> str:
    """Where a node that serves this RPC URL has its WebSocket, by Solana's custom: the same
    place on hosted endpoints, the port + 1 where the URL names a port."""
    from urllib.parse import urlsplit

    parts = urlsplit(rpc_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    host = parts.netloc
    if parts.port is not None:
        host = f"{host.rpartition(':')[0]}:{parts.port + 1}"
    return parts._replace(scheme=scheme, netloc=host).geturl()


def wallet_of(settings: Settings, keypair: str | None) -> Wallet:
    """The wallet that signs; a WalletError says where none was found, or no passphrase for it.

    An encrypted one may be asked for at the terminal. Where the address is enough, see
    `known_wallet`."""
    from decloud_trainer.chain.passphrases import unlock
    from decloud_trainer.chain.wallet import LockedWallet

    found = known_wallet(settings, keypair)
    if isinstance(found, LockedWallet):
        return unlock(found, os.environ, settings.passphrase_file)
    return found


def known_wallet(settings: Settings, keypair: str | None) -> FoundWallet:
    """The wallet, an encrypted one still locked; a WalletError says where none was found."""
    from decloud_trainer.chain.wallet import find_wallet

    return find_wallet(
        keypair_option=Path(keypair) if keypair else None,
        environ=os.environ,
        private_key=settings.private_key,
        keypair_path=settings.keypair_path,
    )


def pins_of(settings: Settings) -> Pins:
    from decloud_trainer.ipfs.gateways import Gateways
    from decloud_trainer.ipfs.pins import IpfsPins
    from decloud_trainer.ipfs.scores import Scores

    return IpfsPins(
        Gateways(services(settings).gateways, scores=Scores(cache_dir() / "gateways.json")),
        pin_services_of(settings),
        availability_s=settings.availability_wait,
    )


def gateway_scores(settings: Settings) -> dict[str, float]:
    """What each IPFS gateway may cost, in seconds, as was last seen; for display."""
    from decloud_trainer.ipfs.scores import Scores

    return Scores(cache_dir() / "gateways.json").of(services(settings).gateways)


def pin_services_of(settings: Settings) -> list[PinService]:
    """The pin services that are configured, in the order in which they are tried.

    Raises:
        SettingsError: `pin_services` names one that isn't configured.
    """
    from decloud_trainer.ipfs.kubo import Kubo
    from decloud_trainer.ipfs.pinning import PinataLegacy, PinataV3
    from decloud_trainer.ipfs.pinning_api import PinningApi

    where = services(settings)
    found: dict[str, PinService] = {}
    node = Kubo(settings.kubo_api_url, settings.kubo_token) if settings.kubo_api_url else None
    if settings.pinata_jwt:
        found["pinata"] = PinataV3(
            settings.pinata_jwt, api_url=where.pin_api_url, upload_url=where.pin_upload_url
        )
    if settings.pinata_api_key and settings.pinata_secret_key:
        found["pinata-key"] = PinataLegacy(
            settings.pinata_api_key, settings.pinata_secret_key, api_url=where.pin_api_url
        )
    if settings.pinning_api_url:
        found["pinning-api"] = PinningApi(
            settings.pinning_api_url, settings.pinning_api_token, node
        )
    if node is not None:
        found["kubo"] = node
    if not found and where.local_jwt:
        found["pinata"] = PinataV3(
            where.local_jwt, api_url=where.pin_api_url, upload_url=where.pin_upload_url
        )
    if missing := [name for name in settings.pin_services if name not in found]:
        raise SettingsError(
            f"pin_services names {', '.join(missing)}, which isn't configured",
            hint="set its address and credentials, or take it out: "
            "decloud-trainer config --set pin_services=",
        )
    return [found[name] for name in settings.pin_services or found]


def datasets_dir() -> Path:
    """Downloads and decoded data."""
    return cache_dir() / "datasets"


def data_specs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Dataset key -> data spec of the training core, for all that can be trained here."""
    from decloud_trainer.training.data.published import CLASSES

    data_dir = str(datasets_dir())
    paths = {
        dataset_key(name): str(Path(path).expanduser().resolve())
        for name, path in settings.dataset_paths.items()
    }
    return {
        key: {"name": key, "path": paths.get(key), "data_dir": data_dir}
        for key in sorted({*CLASSES, *paths})
    }


def describe_data_folder(path: str) -> str:
    """What a dataset folder holds, in words; DatasetUnavailable if nothing we can read."""
    from decloud_trainer.training.data.datasets import find_format

    found = find_format(Path(path).expanduser())
    return (
        f"{found.format} format, {found.train:,} training and {found.test:,} test samples of "
        f"{found.inputs}, {found.classes} classes"
    )


def terms_of(settings: Settings) -> Terms:
    from decloud_trainer.rounds.policy import Terms
    from decloud_trainer.rounds.prospects import Power

    return Terms(
        datasets=frozenset(settings.datasets),
        min_reward_lamports=settings.min_reward_lamports,
        max_reward_lamports=settings.max_reward_lamports,
        max_concurrent_rounds=settings.max_concurrent_rounds,
        trainable=frozenset(data_specs(settings)),
        trained_on=settings.dataset_mappings,
        submit_only_if_improved=settings.submit_only_if_improved,
        auto_train=settings.auto_train,
        auto_claim=settings.auto_claim,
        expected_training_window_s=settings.expected_training_window,
        floor_lamports=settings.floor_balance_lamports,
        min_profit_lamports=settings.min_profit_lamports,
        max_priority_lamports=settings.max_priority_fee_lamports,
        power=Power(settings.watts, settings.energy_price_lamports),
        patience=patience_of(settings),
    )


def patience_of(settings: Settings) -> Patience:
    from decloud_trainer.rounds.watchdog import Patience

    return Patience(
        losses=settings.max_losses,
        back_off_s=settings.back_off_hours * 3600,
        quiet_s=settings.quiet_hours * 3600,
    )


def ceilings_of(settings: Settings) -> Ceilings:
    from decloud_trainer.rounds.spending import Ceilings

    return Ceilings(
        transaction=settings.max_cost_per_transaction_lamports,
        round=settings.max_cost_per_round_lamports,
        day=settings.max_cost_per_day_lamports,
        floor=settings.floor_balance_lamports,
        cold=cold_of(settings),
    )


def cold_of(settings: Settings) -> ColdStore | None:
    """Where what exceeds the float goes.

    Raises:
        SettingsError: nobody, or only a program, could ever get it back from there.
    """
    from decloud_trainer.chain import v1
    from decloud_trainer.rounds.spending import ColdStore

    if not settings.cold_address or not settings.sweep_above_lamports:
        return None
    if settings.cold_address in map(str, (program_of(settings), v1.TREASURY)):
        raise SettingsError(
            f"cold_address {settings.cold_address} is the network's own",
            hint="set it to the address of a wallet of yours",
        )
    return ColdStore(settings.cold_address, settings.sweep_above_lamports)


def strategy_of(settings: Settings) -> dict[str, Any]:
    """The training strategy as the training core takes it; SettingsError if it can't be."""
    from decloud_trainer.training.strategy import Strategy

    return Strategy(
        optimizer=settings.optimizer,
        schedule=settings.schedule,
        warmup=settings.warmup,
        averaging=settings.averaging,
        label_smoothing=settings.label_smoothing,
        augment=settings.augment,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        validation=settings.validation_split,
        patience=settings.patience,
    ).to_json()


def plan_of(settings: Settings) -> TrainingPlan:
    from decloud_trainer.rounds.parts import TrainingPlan
    from decloud_trainer.training.limits import threads_each

    if settings.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise SettingsError(
            "tensorboard is set, but the package isn't installed",
            hint='pip install "decloud-trainer[track]", or config --set tensorboard=false',
        )
    convention = V1_CONVENTION if settings.convention == "auto" else settings.convention
    return TrainingPlan(
        data=data_specs(settings),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        max_batches=settings.max_batches,
        seed=settings.seed,
        strategy=strategy_of(settings),
        precision=settings.precision,
        checkpoint_every_s=settings.checkpoint_seconds,
        commits=commits_of(settings),
        tensorboard=settings.tensorboard,
        device=settings.device,
        threads=settings.threads or threads_each(settings.max_concurrent_rounds),
        apply_scale=CONVENTIONS[convention],
        dtype=settings.gradient_dtype,
        dataset_cache_bytes=cache_bytes(settings),
        tokenizer=str(Path(settings.tokenizer_path).expanduser().resolve())
        if settings.tokenizer_path
        else None,
    )


def commits_of(settings: Settings) -> dict[str, Any] | None:
    """Which versions of each training go to which chain; None = none.

    Raises:
        SettingsError: the settings don't go together, or the chain can't be one.
    """
    from decloud_trainer.store.opening import open_store
    from decloud_trainer.training.commit_plan import DEFAULT_MESSAGE, CommitPlan

    message = settings.commit_message or DEFAULT_MESSAGE
    plan = CommitPlan(settings.auto_commit, settings.commit_interval or None, message)
    plan.check(has_store=bool(settings.store))
    if not plan.auto_commit:
        return None
    return {"store": open_store(settings.store).where, **plan.to_json()}


def cache_bytes(settings: Settings) -> int:
    """What decoded datasets may take on the disk; 0 = no limit."""
    return int(settings.dataset_cache_gb * 1e9)


def program_of(settings: Settings) -> Any:
    """The program's address (solders Pubkey)."""
    from solders.pubkey import Pubkey

    from decloud_trainer.chain import v1

    if not settings.program_id:
        return v1.PROGRAM_ID
    try:
        return Pubkey.from_string(settings.program_id)
    except ValueError as error:
        raise SettingsError(
            f"program_id {settings.program_id!r} is not a Solana address",
            hint="`decloud-trainer config --set program_id=` goes back to the DECLOUD program",
        ) from error


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
    from decloud_trainer.chain.generation import Generation
    from decloud_trainer.chain.guard import Book, Guard
    from decloud_trainer.chain.sending import SolanaSender
    from decloud_trainer.chain.watch import RoundWatch, WatchPace
    from decloud_trainer.jobs.attempt import Limits
    from decloud_trainer.jobs.store import JobStore
    from decloud_trainer.jobs.supervisor import Supervisor
    from decloud_trainer.rounds.engine import Engine
    from decloud_trainer.rounds.intake import Scope
    from decloud_trainer.rounds.journal import Journal, JournalThread
    from decloud_trainer.rounds.mending import mend
    from decloud_trainer.rounds.parts import Parts

    wallet = wallet_of(settings, keypair)
    program = program_of(settings)
    cold = cold_of(settings)
    if cold is not None and cold.address == wallet.pubkey:
        raise SettingsError(
            "cold_address is the wallet's own address",
            hint="set it to the address of another wallet, whose key isn't on this machine",
        )
    where = services(settings)
    home = home_dir()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(the_only_one(wallet.pubkey))
        for folder in (home, log_dir(), cache_dir(), cache_dir() / "models"):
            await asyncio.to_thread(remove_leftovers, folder)
        rpc = await stack.enter_async_context(rpc_of(settings))
        clock = ChainClock(rpc)
        await clock.refresh()
        stack.callback(asyncio.create_task(rpc.keep_probing()).cancel)
        scope = Scope(await rpc.genesis_hash(), str(program), wallet.pubkey)
        store = JobStore(home / "jobs.sqlite", home / "jobs")
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
        generation = Generation(
            rpc,
            wallet.pubkey,
            setting=settings.generation,
            program=program,
            referrer=settings.referrer or None,
        )
        guard = Guard(
            rpc,
            wallet,
            program=program,
            referrer=settings.referrer or None,
            ceilings=ceilings_of(settings),
            book=Book(lambda id, since: journal(Journal.spent, scope.key(id), since), clock.now),
        )
        parts = Parts(
            chain=chain,
            sender=SolanaSender(rpc, wallet, generation, program=program, guard=guard),
            pins=pins_of(settings),
            jobs=jobs,
            journal=journal,
            terms=terms_of(settings),
            plan=plan_of(settings),
            models_dir=cache_dir() / "models",
            jobs_dir=home / "jobs",
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
            where.ws_urls,
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

    path = home_dir() / "jobs.sqlite"
    if not path.exists():
        return None
    store = JobStore(path, home_dir() / "jobs")
    store.open()
    try:
        running = store.running(prefix(key))
    finally:
        store.close()
    return dict(running[-1].progress or {}) if running else None
