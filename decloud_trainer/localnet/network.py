"""A complete local network: ledger, servers and pins in this process, actors in children."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from solders.keypair import Keypair
from solders.message import Message
from solders.transaction import VersionedTransaction

from decloud_trainer.chain import v1
from decloud_trainer.errors import DecloudError, SettingsError
from decloud_trainer.files import make_private_dir, single_instance
from decloud_trainer.localnet.actors.creator import Posted
from decloud_trainer.localnet.actors.datasets import remember_data
from decloud_trainer.localnet.actors.shipped import MODEL
from decloud_trainer.localnet.children import Actor
from decloud_trainer.localnet.faults import Faults
from decloud_trainer.localnet.ledger import Ledger
from decloud_trainer.localnet.options import Endpoints, LocalOptions
from decloud_trainer.localnet.pin_server import make_pin_app
from decloud_trainer.localnet.pin_store import PinStore
from decloud_trainer.localnet.posting import dataset_index, post_one
from decloud_trainer.localnet.program.image import program_image
from decloud_trainer.localnet.reports import RoundReport
from decloud_trainer.localnet.rpc_server import LedgerEndpoints, serve_ledger

HOST = "127.0.0.1"
# Fixed and documented: whoever reaches loopback may use the local pin service.
PIN_KEY, PIN_SECRET, PIN_JWT = "localnet-key", "localnet-secret", "localnet-jwt"
ENDOWMENT_LAMPORTS = 1_000_000_000

Event = dict[str, Any]


class LocalNetwork:
    """A local network for as long as the context is open.

        async with LocalNetwork(LocalOptions(rounds=0)) as network:
            posted = await network.post_round(reward_lamports=50_000_000)
            report = await network.report(posted.round_id)

    Ready when entered; the actors need some seconds more until they act.

    Args:
        hear: called with the actor's name and each of its reports, as they come.

    Attributes:
        endpoints: where everything is.
        ledger, faults: for tests and drills: the ledger itself, and the fault switchboard.
        events: all that the actors have reported so far: ``actor``, ``event`` and its fields.

    Entering raises SettingsError (a port is taken), AlreadyRunning (another network has this
    state folder) and CorruptionError (the state is damaged).
    """

    endpoints: Endpoints
    ledger: Ledger

    def __init__(
        self, options: LocalOptions, *, hear: Callable[[str, Event], None] | None = None
    ) -> None:
        self.options = options
        self.faults = Faults()
        self.events: list[Event] = []
        self._hear_too = hear
        self._waiting: list[tuple[Event, asyncio.Future[Event]]] = []
        self._actors: list[Actor] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            state = self._state_folder(stack)
            self.ledger = Ledger(make_private_dir(state / "ledger"))
            stack.callback(self.ledger.close)
            self._prepare_program()
            served = await stack.enter_async_context(
                serve_ledger(
                    self.ledger,
                    host=HOST,
                    port=self.options.rpc_port,
                    slot_s=self.options.slot_ms / 1000,
                    faults=self.faults,
                )
            )
            pins_url = await self._serve_pins(stack, state)
            self.endpoints = self._endpoints(served, pins_url, state)
            if self.options.actors:
                await self._start_actors(stack, state)
                pids = {actor.name: actor.pid for actor in self._actors}
                self.endpoints = replace(self.endpoints, pids=self.endpoints.pids | pids)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        for _expected, waiter in self._waiting:
            waiter.cancel()

    @property
    def reports(self) -> tuple[RoundReport, ...]:
        """What the validator has said about the rounds that it has scored so far."""
        scored = [event for event in self.events if event["event"] == "scored"]
        return tuple(RoundReport.from_event(event) for event in scored)

    async def event(self, name: str, **fields: Any) -> Event:
        """The first event of that name and with those fields; waits until there is one."""
        wanted: Event = {"event": name, **fields}
        for known in self.events:
            if wanted.items() <= known.items():
                return known
        waiter: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, waiter))
        return await waiter

    async def report(self, round_id: int) -> RoundReport:
        """The validator's report on that round; waits until it is scored."""
        return RoundReport.from_event(await self.event("scored", round_id=round_id))

    async def post_round(
        self,
        *,
        reward_lamports: int,
        dataset: str = "digits",
        data: Path | None = None,
        model: Path | None = None,
    ) -> Posted:
        """Post one more round; see `posting.post_one`."""
        post = partial(
            post_one,
            self.endpoints,
            reward_lamports=reward_lamports,
            dataset=dataset,
            data=data,
            model=model,
        )
        return await asyncio.to_thread(post)

    # --- inside ---------------------------------------------------------------------------------

    def _state_folder(self, stack: AsyncExitStack) -> Path:
        if self.options.state is None:
            temporary = tempfile.TemporaryDirectory(prefix="decloud-localnet-")
            return Path(stack.enter_context(temporary))
        state = make_private_dir(self.options.state.resolve())
        stack.enter_context(single_instance(state / "lock", f"a local network in {state}"))
        return state

    def _prepare_program(self) -> None:
        options = self.options
        image = program_image(options.generation, options.params())
        self.ledger.add_program(v1.PROGRAM_ID, image)
        if self.ledger.account(v1.TREASURY) is None:
            # As on the real network it exists: a fee below the rent of a new account would
            # otherwise make every payout fail.
            self.ledger.airdrop(v1.TREASURY, ENDOWMENT_LAMPORTS)
        if self.ledger.account(v1.counter_address()[0]) is None:
            self._initialize()

    def _initialize(self) -> None:
        """Make the program's round counter, as its authors once did."""
        authority = Keypair()
        self.ledger.airdrop(authority.pubkey(), ENDOWMENT_LAMPORTS)
        message = Message.new_with_blockhash(
            [v1.initialize(authority.pubkey())],
            authority.pubkey(),
            self.ledger.current.blockhash,
        )
        landed = self.ledger.submit(VersionedTransaction(message, [authority]))
        if landed.error is not None:
            raise DecloudError(f"the local program can't be initialised: {landed.error}")

    async def _serve_pins(self, stack: AsyncExitStack, state: Path) -> str:
        app = make_pin_app(
            PinStore(state / "pins"),
            faults=self.faults,
            key=PIN_KEY,
            secret=PIN_SECRET,
            jwt=PIN_JWT,
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, HOST, self.options.pin_port).start()
        except OSError as error:
            raise SettingsError(
                f"can't listen on {HOST} port {self.options.pin_port}: {error.strerror}",
                hint="choose another one with --pin-port (0 = any free port)",
            ) from error
        return f"http://{HOST}:{runner.addresses[0][1]}"

    def _endpoints(self, served: LedgerEndpoints, pins_url: str, state: Path) -> Endpoints:
        return Endpoints(
            rpc_url=served.rpc_url,
            ws_url=served.ws_url,
            gateway_url=pins_url,
            pin_api_url=pins_url,
            pin_upload_url=pins_url,
            control_url=served.control_url,
            program_id=str(v1.PROGRAM_ID),
            genesis_hash=str(self.ledger.genesis_hash),
            generation=self.options.generation,
            pin_jwt=PIN_JWT,
            pin_key=PIN_KEY,
            pin_secret=PIN_SECRET,
            state=str(state),
            pids={"network": os.getpid()},
        )

    async def _start_actors(self, stack: AsyncExitStack, state: Path) -> None:
        options, where = self.options, self.endpoints
        if options.data is not None:
            remember_data(state, options.dataset, options.data)
        common = {
            "folder": str(make_private_dir(state / "actors")),
            "state": str(state),
            "rpc_url": where.rpc_url,
            "generation": where.generation,
            "gateway_url": where.gateway_url,
            "pin_api_url": where.pin_api_url,
            "pin_upload_url": where.pin_upload_url,
            "pin_jwt": where.pin_jwt,
            "poll_s": options.poll_s,
        }
        grace = {"min_trainers": options.min_trainers, "join_grace_s": options.join_grace_s}
        await self._start(stack, "validator", {**common, **grace})
        if options.rounds:
            work = {
                "rounds": options.rounds,
                "interval_s": options.interval_s,
                "reward_lamports": options.reward_lamports,
                "dataset_index": dataset_index(options.dataset),
                "model": str(MODEL),
            }
            await self._start(stack, "creator", {**common, **work})
        if options.competitors:
            play = {"competitors": options.competitors, "seed": options.seed}
            await self._start(stack, "competitor", {**common, **play})

    async def _start(self, stack: AsyncExitStack, name: str, settings: Mapping[str, Any]) -> None:
        actor = await Actor.start(
            name,
            f"decloud_trainer.localnet.actors.{name}",
            settings,
            Path(settings["folder"]) / f"{name}.log",
            self._hear,
        )
        stack.push_async_callback(actor.stop)
        self._actors.append(actor)

    def _hear(self, actor: str, event: Event) -> None:
        known = {"actor": actor, **event}
        self.events.append(known)
        if self._hear_too is not None:
            self._hear_too(actor, event)
        for expected, waiter in tuple(self._waiting):
            if expected.items() <= known.items():
                self._waiting.remove((expected, waiter))
                if not waiter.done():
                    waiter.set_result(known)
