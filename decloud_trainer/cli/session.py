"""One run of the daemon: what is around it, from the banner to the farewell."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from decloud_trainer.cli.footprint import kept_small, limit_areas
from decloud_trainer.cli.live import fraction
from decloud_trainer.cli.output import clock_time, folded, is_dumb, print_json
from decloud_trainer.cli.systemd import announced
from decloud_trainer.cli.watched import watched
from decloud_trainer.errors import DecloudError, NetworkError, PinRefused, SettingsError
from decloud_trainer.money import format_sol

if TYPE_CHECKING:
    from decloud_trainer.cli.board import Board
    from decloud_trainer.cli.live import Teller
    from decloud_trainer.rounds.engine import Told
    from decloud_trainer.rounds.parts import Progress
    from decloud_trainer.settings import Settings
    from decloud_trainer.watching.notices import Notice
    from decloud_trainer.wiring import Trainer

log = logging.getLogger(__name__)

# Between two looks whether the endpoint still serves the network of the start.
GUARD_S = 15.0
# For the session's last transactions to be in its earnings.
BOOK_S = 2.0
# Between two notes of the balance, for `status`.
NOTE_S = 30.0


@dataclass(frozen=True, slots=True)
class Session:
    """What `start` was asked for.

    Attributes:
        plain: lines on a terminal, too.
        finish_at: unix seconds from which nothing new is taken; None: never.
        max_rounds: how many rounds may be taken; None: any number.
    """

    settings: Settings
    keypair: str | None
    verbose: bool
    as_json: bool
    plain: bool
    once: bool
    finish_at: float | None
    max_rounds: int | None


async def run_session(session: Session) -> None:
    """The daemon with its output, until SIGINT, SIGTERM or what ends the session."""
    from decloud_trainer.cli.logs import start_logging
    from decloud_trainer.rounds.daemon import Daemon, run_once
    from decloud_trainer.services import known_wallet
    from decloud_trainer.watching.tally import Tally
    from decloud_trainer.wiring import open_trainer

    limit_areas()
    settings = session.settings
    as_json = settings.log_format == "json"
    log_path = start_logging("daemon", verbose=session.verbose, as_json=as_json)
    until = _ended_by_signals()
    known_wallet(settings, session.keypair)  # what a newcomer lacks first is named first
    notes = await asyncio.to_thread(_check_pins, settings)
    output, tally = _output(session), Tally()

    def on_event(told: Told) -> None:
        tally.event(told)
        output.event(told)

    def on_progress(told: Progress) -> None:
        tally.progress(told, fraction(told.values))
        output.progress(told, time.monotonic())

    def on_notice(notice: Notice) -> None:
        if session.as_json:
            print_json(notice.to_json())

    async with open_trainer(
        settings,
        session.keypair,
        on_event=on_event,
        on_progress=on_progress,
    ) as trainer:
        trainer.engine.parts.gate.max_rounds = session.max_rounds
        await _greet(trainer, session, str(log_path), notes)
        async with _shown(output, trainer):
            if session.once:
                await _unless(until, run_once(trainer.engine, trainer.scope))
            else:
                daemon = Daemon(
                    trainer.engine,
                    trainer.watch,
                    trainer.scope,
                    trainer.followed,
                    finish_at=session.finish_at,
                )
                listening = announced(f"listening for rounds on {settings.network}")
                watching = watched(trainer, tally, on_notice)
                guarded, noted = _guarded(trainer, until), _noted(trainer)
                async with guarded, noted, watching, listening, kept_small():
                    await daemon.run(until)
        if not session.as_json:
            now = clock_time(time.time())
            click.echo(f"[{now}] stopping; rounds go on where they are at the next start")
    log.info("stopped", extra={"event": "stopped"})
    if session.as_json:
        print_json({"event": "stopped"})


async def _unless(until: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, unless the event comes first: then it is cut off, which is always safe."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(until.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def _ended_by_signals() -> asyncio.Event:
    until = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, until.set)
    return until


def _output(session: Session) -> Teller | Board:
    """The live view on a terminal that can show it, lines elsewhere."""
    from decloud_trainer.cli.live import Teller

    is_plain = session.as_json or session.plain or session.verbose
    if is_plain or is_dumb() or not sys.stdout.isatty():
        return Teller(as_json=session.as_json, quiet_skips=not session.verbose)
    from decloud_trainer.cli.board import Board

    return Board()


async def dry_run(session: Session) -> None:
    """Say of every open round whether it would be taken, as rounds change; send nothing."""
    from decloud_trainer.chain.watch import RoundWatch, WatchPace
    from decloud_trainer.cli.outlook import outlook_now
    from decloud_trainer.rounds.model import Round
    from decloud_trainer.services import known_wallet, program_of, services
    from decloud_trainer.wiring import open_chain, open_journal

    settings = session.settings
    pubkey = known_wallet(settings, session.keypair).pubkey
    until = _ended_by_signals()
    async with open_chain(settings, pubkey) as (chain, started):
        began = time.time()

        async def tell(round: Round) -> None:
            now = started + time.time() - began
            with open_journal() as journal:
                outlook = await outlook_now(
                    chain, settings, pubkey, now, journal=journal, round_id=round.id
                )
                decision = outlook.decide(round)
            told = {"round": round.id, "take": decision.take, "reason": decision.reason}
            if session.as_json:
                print_json({"event": "decision", **told})
            else:
                word = "would take" if decision.take else "would skip"
                click.echo(folded(f"round #{round.id} {word}: ", decision.reason, indent=4))

        if session.once:
            opened = await chain.open_rounds()
            for found in opened:
                await tell(found)
            if not opened and not session.as_json:
                click.echo(f"no round is open on {settings.network} at the moment")
            return
        watch = RoundWatch(
            chain,
            services(settings).ws_urls,
            program=program_of(settings),
            pace=WatchPace(poll_interval_s=settings.poll_interval),
        )

        async def watching() -> None:
            async with contextlib.aclosing(watch.changes()) as changes:
                async for changed in changes:
                    with contextlib.suppress(NetworkError):  # told again at the next sweep
                        await tell(changed)

        if session.finish_at is not None:
            asyncio.get_running_loop().call_later(session.finish_at - time.time(), until.set)
        task = asyncio.create_task(watching())
        task.add_done_callback(lambda _: until.set())
        await until.wait()
        if task.done():
            task.result()
        task.cancel()


@contextlib.asynccontextmanager
async def _guarded(trainer: Trainer, until: asyncio.Event) -> AsyncIterator[None]:
    """End the session when the endpoint begins to serve another network."""
    guard = asyncio.create_task(_guard_network(trainer))
    guard.add_done_callback(lambda _: until.set())
    try:
        yield
        if guard.done():
            guard.result()
    finally:
        guard.cancel()


@contextlib.asynccontextmanager
async def _shown(output: Teller | Board, trainer: Trainer) -> AsyncIterator[None]:
    """The output as long as the session, with its earnings where they are shown."""
    from decloud_trainer.cli.board import Board

    with output:
        if not isinstance(output, Board):
            yield
            return
        keeping = asyncio.create_task(output.keep_book(trainer.engine.parts.journal))
        try:
            yield
            with contextlib.suppress(TimeoutError):  # of a journal that fails at the end
                await asyncio.wait_for(output.all_booked(), BOOK_S)
        finally:
            keeping.cancel()


@contextlib.asynccontextmanager
async def _noted(trainer: Trainer) -> AsyncIterator[None]:
    """Keep a note of this session in the journal, for `status` in another terminal."""
    from decloud_trainer.rounds.marks import SESSION, set_mark

    started_at = time.time()

    async def note() -> None:
        while True:
            with contextlib.suppress(DecloudError):  # the next note may succeed
                value = {
                    "pid": os.getpid(),
                    "started_at": started_at,
                    "wallet": trainer.wallet.pubkey,
                    "network": trainer.settings.network,
                    "balance": await trainer.chain.balance(),
                    "balance_at": time.time(),
                }
                await trainer.engine.parts.journal(set_mark, SESSION, value)
            await asyncio.sleep(NOTE_S)

    noting = asyncio.create_task(note())
    try:
        yield
    finally:
        noting.cancel()


async def _guard_network(trainer: Trainer) -> None:
    """Look again and again whether this is still the network of the start.

    Round ids mean other rounds on another one, such as a local network that was started anew.

    Raises:
        DecloudError: it is another network.
    """
    from decloud_trainer.services import rpc_of

    async with rpc_of(trainer.settings) as rpc:
        while True:
            await asyncio.sleep(GUARD_S)
            with contextlib.suppress(NetworkError):
                if await rpc.genesis_hash() != trainer.scope.genesis:
                    raise DecloudError(
                        "the RPC endpoint serves another network now than at the start "
                        "(its genesis hash differs)",
                        hint="start the daemon again; what it knows of the other one is kept",
                    )


def _check_pins(settings: Settings) -> list[str]:
    """Try the pin services before any rent is spent on rounds that need one; notes for the user.

    Raises:
        SettingsError: there are no credentials.
        PinRefused: no service accepts them.
    """
    from decloud_trainer.services import pin_services_of

    if not settings.auto_train:
        return []
    services = pin_services_of(settings)
    if not services:
        raise SettingsError(
            "IPFS is not configured, so no gradients could be uploaded",
            hint="get a JWT at https://app.pinata.cloud/keys, then: "
            "decloud-trainer config --set pinata_jwt=-",
        )
    notes, refusals = [], []
    for service in services:
        try:
            service.check()
        except NetworkError as error:
            notes.append(f"{service.name} can't be reached at the moment: {error.message}")
        except PinRefused as refusal:
            refusals.append(refusal)
            notes.append(f"{service.name}: {refusal.message}; the next pin service is used")
    if len(refusals) == len(services):
        raise refusals[0]
    return notes


async def _greet(trainer: Trainer, session: Session, log_path: str, notes: list[str]) -> None:
    from decloud_trainer.cli.live import banner
    from decloud_trainer.cli.output import sign

    settings = trainer.settings
    balance = await trainer.chain.balance()
    facts: dict[str, Any] = {
        "wallet": trainer.wallet.pubkey,
        "balance": balance,
        "network": settings.network,
        "generation": trainer.generation,
    }
    notes = [
        *trainer.mended,
        *trainer.wallet.warnings,
        *_untrainable(trainer),
        *_stored(settings),
        *notes,
    ]
    log.info("started for %s", facts["wallet"], extra={"event": "started", "fields": facts})
    if session.as_json:
        print_json({"event": "started", **facts, "log": log_path, "notes": notes})
        return
    values = {
        "preset": settings.preset,
        "datasets": settings.datasets,
        "min_reward": settings.min_reward_lamports,
        "max_reward": settings.max_reward_lamports,
        "max_parallel": settings.max_concurrent_rounds,
        "epochs": settings.epochs,
        "auto_train": settings.auto_train,
        "auto_claim": settings.auto_claim,
    }
    click.echo(banner(**facts, settings=values))
    for note in notes:
        click.echo(folded("note: ", note))
    listening = folded(
        f"  {sign('👀')}", f"Listening for rounds... (Ctrl+C to stop; log: {log_path})"
    )
    click.echo(f"\n{listening}\n")


def _stored(settings: Settings) -> list[str]:
    """Where money leaves the wallet for: nobody is to be surprised by that."""
    if not settings.cold_address:
        return []
    if not settings.sweep_above_lamports:
        return ["cold_address is set, but sweep_above is 0: nothing is sent there"]
    kept = format_sol(settings.sweep_above_lamports)
    return [f"what exceeds {kept} is sent to {settings.cold_address} (the setting cold_address)"]


def _untrainable(trainer: Trainer) -> list[str]:
    """Accepted datasets that nothing here can train: said at the start, skipped later."""
    terms = trainer.engine.parts.terms
    missing = [name for name in trainer.settings.datasets if terms.data_for(name) is None]
    if not missing:
        return []
    text = (
        f"no data or loader here for {', '.join(missing)}: such rounds are skipped "
        "(`decloud-trainer config --add-mapping FROM:TO` trains on other data instead)"
    )
    return [text]
