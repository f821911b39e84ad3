"""Checks of the Solana side: endpoints, program, rounds, clock and the wallet's money."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from decloud_trainer.chain import v1
from decloud_trainer.chain.client import SolanaChain
from decloud_trainer.chain.clock import ChainClock
from decloud_trainer.chain.clusters import CLUSTERS
from decloud_trainer.chain.generation import Generation
from decloud_trainer.chain.health import MAX_LAG_SLOTS
from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.chain.wallet import FoundWallet
from decloud_trainer.checks.model import Check, Verdict, failed, passed, refused, warned
from decloud_trainer.errors import DecloudError, LayoutError
from decloud_trainer.money import format_sol
from decloud_trainer.rounds.model import Round
from decloud_trainer.rounds.policy import kept_lamports
from decloud_trainer.rounds.prospects import total_costs
from decloud_trainer.services import program_of, rpc_of, services
from decloud_trainer.settings import Settings

TIMEOUT_S: Final = 5.0
SLOW_MS: Final = 1500
FEW_ROUNDS: Final = 10
NEWEST: Final = 5
SKEW_S: Final = 30.0

CLUSTER_OF: Final = {cluster.genesis: name for name, cluster in CLUSTERS.items() if cluster.genesis}
LOCALNET_FIX: Final = "start it in another terminal: decloud-trainer localnet up"


@dataclass(frozen=True, slots=True)
class ChainReport:
    """Attributes:
    newest: the newest round that could be read, if any.
    """

    checks: list[Check]
    newest: Round | None = None


@dataclass(slots=True)
class _Look:
    """One look at the chain, through one endpoint."""

    settings: Settings
    rpc: Rpc
    wallet: FoundWallet | None
    program: Any = field(init=False)
    newest: Round | None = None

    def __post_init__(self) -> None:
        self.program = program_of(self.settings)

    async def program_account(self) -> Check:
        """Is the program there, as a program?"""
        options = {
            "encoding": "base64",
            "commitment": "confirmed",
            "dataSlice": {"offset": 0, "length": 0},
        }
        answer = await self.rpc.call("getAccountInfo", str(self.program), options)
        value = answer.get("value") if isinstance(answer, dict) else None
        fix = "check the settings network, rpc_url and program_id"
        if not isinstance(value, dict):
            where = self.settings.network
            return failed("program", f"{self.program} doesn't exist on {where}", fix)
        if value.get("executable") is not True:
            return failed("program", f"{self.program} is no program but a plain account", fix)
        return passed("program", f"{self.program} is there", program=str(self.program))

    async def rounds(self) -> Check:
        """Do the newest rounds have the layout that we read, and which generation is it?"""
        counter = await self.rpc.account(v1.counter_address(self.program)[0])
        if counter is None:
            return warned("rounds", f"no round was ever posted on {self.settings.network}")
        count = v1.decode_counter(counter.data, program=self.program)
        ids = range(max(0, count - NEWEST), count)
        addresses = [v1.round_address(number, self.program)[0] for number in ids]
        accounts = [a for a in await self.rpc.accounts(addresses) if a is not None]
        strange: list[LayoutError] = []
        for account in accounts:
            try:
                self.newest = v1.decode_round(
                    account.data, address=account.address, program=self.program
                )
            except LayoutError as error:
                strange.append(error)
        generation = await self._generation()
        read = len(accounts) - len(strange)
        numbers = {"rounds": count, "read": read, "unreadable": len(strange)}
        if strange:
            return failed(
                "rounds",
                f"{len(strange)} of the {len(accounts)} newest can't be read: {strange[0].message}",
                "check network and program_id; is there a newer decloud-trainer?",
                **numbers,
            )
        text = f"{count:,} posted so far, the newest can be read; program {generation}"
        return passed("rounds", text, generation=generation, **numbers)

    async def _generation(self) -> str:
        payer = self.wallet.pubkey if self.wallet else str(v1.TREASURY)
        generation = Generation(
            self.rpc, payer, setting=self.settings.generation, program=self.program
        )
        try:
            return await generation.describe()
        except DecloudError:
            return "v1 (its generation shows once the wallet has some SOL)"

    async def clock(self) -> Check:
        """Does this machine's clock agree with the chain's?"""
        clock = ChainClock(self.rpc)
        await clock.refresh()
        skew = round(clock.now() - time.time())
        if abs(skew) <= SKEW_S:
            text = f"within {SKEW_S:g} s of the chain's" if skew else "agrees with the chain's"
            return passed("clock", text, skew_s=skew)
        side = "behind" if skew > 0 else "ahead of"
        text = f"this machine is {abs(skew):,} s {side} the chain; deadlines go by the chain"
        if self.settings.network == "localnet":
            return passed("clock", f"{text} (a local network's clock can be moved)", skew_s=skew)
        return warned("clock", text, "set this clock: sudo timedatectl set-ntp true", skew_s=skew)

    async def balance(self) -> Check:
        """For how many rounds does the money last?"""
        if self.wallet is None:
            return warned("balance", "not known without a wallet")
        chain = SolanaChain(self.rpc, self.wallet.pubkey, program=self.program)
        balance, costs = await asyncio.gather(chain.balance(), chain.costs())
        cost = total_costs(costs)
        kept = kept_lamports(self.settings.floor_balance_lamports)
        rounds = max(0, balance - kept) // cost
        text = (
            f"{format_sol(balance)}, enough for {rounds:,} rounds "
            f"({format_sol(cost)} each for rent and fees)"
        )
        numbers = {"balance_lamports": balance, "rounds": rounds, "cost_lamports": cost}
        if rounds == 0:
            return failed("balance", text, self._funding(), **numbers)
        if rounds < max(FEW_ROUNDS, self.settings.max_concurrent_rounds):
            return warned("balance", text, self._funding(), **numbers)
        return passed("balance", text, **numbers)

    def _funding(self) -> str:
        assert self.wallet is not None
        key, network = self.wallet.pubkey, self.settings.network
        if network == "localnet":
            return f"decloud-trainer localnet airdrop {key} 1"
        if network == "mainnet-beta":
            return f"send some SOL to {key}"
        return f"get free {network} SOL for {key} at https://faucet.solana.com"


async def chain_checks(settings: Settings, wallet: FoundWallet | None) -> ChainReport:
    """All of them; endpoints that don't answer are told once each."""
    firsts = await endpoint_checks(settings)
    names = ("program", "rounds", "clock", "balance")
    if all(check.verdict is Verdict.FAIL for check in firsts):
        unknown = [warned(name, "not known: no RPC endpoint can be used") for name in names]
        return ChainReport([*firsts, *unknown])
    async with rpc_of(settings, timeout_s=TIMEOUT_S, attempts=2) as rpc:
        look = _Look(settings, rpc, wallet)
        steps = (look.program_account, look.rounds, look.clock, look.balance)
        checks = await asyncio.gather(
            *(_told(name, step) for name, step in zip(names, steps, strict=True))
        )
        return ChainReport([*firsts, *checks], look.newest)


async def endpoint_checks(settings: Settings) -> list[Check]:
    """One line for each RPC endpoint: does it answer, how fast, from the right cluster, and is it
    as far as the others?"""
    urls = services(settings).rpc_urls
    looks = await asyncio.gather(*(_endpoint(settings, url) for url in urls))
    newest = max(slot for _, slot in looks)
    checks = []
    for place, (check, slot) in enumerate(looks):
        lag = newest - slot
        if check.verdict is not Verdict.FAIL and lag > MAX_LAG_SLOTS:
            fix = "it is not used while it is behind; take it out if that lasts"
            check = warned(check.name, f"{check.text}, but is {lag} slots behind the others", fix)
        elif check.verdict is Verdict.FAIL and len(urls) > 1:
            text = f"{check.text}; the other endpoints are used"
            others = any(other.verdict is not Verdict.FAIL for other, _ in looks)
            check = warned(check.name, text, check.fix) if others else check
        name = "rpc" if place == 0 else f"rpc {place + 1}"
        checks.append(dataclasses.replace(check, name=name))
    return checks


async def _endpoint(settings: Settings, url: str) -> tuple[Check, int]:
    """An endpoint's line, and the slot it has reached (0 if it doesn't answer)."""
    name, network = "rpc", settings.network
    async with Rpc(url, timeout_s=TIMEOUT_S, attempts=2) as rpc:
        try:
            took_ms, genesis = await _timed(rpc.genesis_hash)
            again_ms, position = await _timed(rpc.finalized)
        except DecloudError as error:
            fix = LOCALNET_FIX if network == "localnet" else error.hint
            return failed(name, error.message, fix), 0
        ms = min(took_ms, again_ms)  # the first call also connects
        cluster = CLUSTER_OF.get(genesis)
        if genesis != (CLUSTERS[network].genesis or genesis) or (network == "localnet" and cluster):
            return failed(
                name,
                f"{rpc.host} serves {cluster or 'another network'}, not {network}",
                f"decloud-trainer config --set network={cluster or 'localnet'}, or change the "
                "endpoint (rpc_url, rpc_fallbacks)",
                latency_ms=ms,
            ), 0
        text = f"{rpc.host} answers in {ms} ms"
        if ms > SLOW_MS:
            fix = "an endpoint of your own is faster: decloud-trainer config --set rpc_url=..."
            return warned(name, text, fix, latency_ms=ms), position.slot
        return passed(name, text, latency_ms=ms), position.slot


async def websocket_check(settings: Settings) -> Check:
    """Does a subscription that tells of new rounds work? Without it rounds are polled."""
    name = "websocket"
    fix = "check ws_url and ws_fallbacks; a proxy or firewall may cut WebSockets"
    polled = f"; rounds are looked for every {settings.poll_interval:g} s instead"
    urls = services(settings).ws_urls
    outcomes = await asyncio.gather(*map(_subscription, urls))
    worked = [outcome for outcome in outcomes if isinstance(outcome, int)]
    troubles = [outcome for outcome in outcomes if isinstance(outcome, str)]
    if not worked:
        return warned(name, f"no subscription ({'; '.join(troubles)}){polled}", fix)
    text = f"subscribed in {worked[0]} ms"
    if troubles:
        text += f", at {len(worked)} of {len(urls)} endpoints ({'; '.join(troubles)})"
        return warned(name, text, fix, latency_ms=worked[0])
    return passed(name, text, latency_ms=worked[0])


async def _subscription(ws_url: str) -> int | str:
    """How many milliseconds a subscription takes, or why there is none."""
    try:
        ms, _ = await _timed(lambda: _subscribe(ws_url))
    except (OSError, TimeoutError, WebSocketException, ValueError, RecursionError) as error:
        return "no answer in time" if isinstance(error, TimeoutError) else _words(error)
    return ms


def _words(error: Exception) -> str:
    """The system's words for it; others may hold the URL, which may hold a key."""
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


async def _subscribe(ws_url: str) -> None:
    """Raises ValueError when the endpoint refuses."""
    async with (
        asyncio.timeout(TIMEOUT_S),
        connect(ws_url, open_timeout=TIMEOUT_S, close_timeout=0.5) as socket,
    ):
        request = {"jsonrpc": "2.0", "id": 1, "method": "slotSubscribe"}
        await socket.send(json.dumps(request))
        answer = json.loads(await socket.recv())
        if not isinstance(answer, dict) or type(answer.get("result")) is not int:
            raise ValueError("the subscription was refused")


async def _told(name: str, step: Callable[[], Any]) -> Check:
    """A step's check, or its error as one: no check hides another."""
    try:
        check: Check = await step()
    except DecloudError as error:
        return refused(name, error)
    return check


async def _timed(call: Callable[[], Any]) -> tuple[int, Any]:
    """Milliseconds, rounded up, and the result."""
    began = time.monotonic()
    result = await call()
    return int((time.monotonic() - began) * 1000) + 1, result
