"""Checks of the Solana side: endpoints, program, rounds, clock and the wallet's money."""

from __future__ import annotations

import asyncio
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
from decloud_trainer.chain.generation import Generation
from decloud_trainer.chain.health import MAX_LAG_SLOTS
from decloud_trainer.chain.rpc import NETWORKS, Rpc
from decloud_trainer.chain.wallet import FoundWallet
from decloud_trainer.checks.model import Check, Verdict, failed, passed, refused, warned
from decloud_trainer.config import Settings
from decloud_trainer.errors import DecloudError, LayoutError
from decloud_trainer.money import format_sol
from decloud_trainer.rounds.model import Round
from decloud_trainer.rounds.policy import WALLET_MINIMUM_LAMPORTS, total_costs
from decloud_trainer.wiring import program_of, services

TIMEOUT_S: Final = 5.0
SLOW_MS: Final = 1500
FEW_ROUNDS: Final = 10
NEWEST: Final = 5
SKEW_S: Final = 30.0

# Clusters keep their genesis hash for ever; a local network makes a new one each time.
GENESIS: Final = {
    "mainnet-beta": "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d",
    "testnet": "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY",
    "devnet": "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG",
}
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

    async def endpoint(self) -> Check:
        """Does it answer, how fast, and is it the network that is set?"""
        took_ms, genesis = await _timed(self.rpc.genesis_hash)
        again_ms, _ = await _timed(self.rpc.finalized)
        ms = min(took_ms, again_ms)  # the first call also connects
        name, network = "rpc", self.settings.network
        wanted = GENESIS.get(network, genesis)
        known = {hash_: name for name, hash_ in GENESIS.items()}
        if genesis != wanted or (network == "localnet" and genesis in known):
            return failed(
                name,
                f"{self.rpc.host} serves {known.get(genesis, 'another network')}, not {network}",
                f"decloud-trainer config --set network={known.get(genesis, 'localnet')}, "
                "or change rpc_url",
                latency_ms=ms,
            )
        text = f"{self.rpc.host} answers in {ms} ms"
        if ms > SLOW_MS:
            fix = "an endpoint of your own is faster: decloud-trainer config --set rpc_url=..."
            return warned(name, text, fix, latency_ms=ms)
        return passed(name, text, latency_ms=ms)

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
        rounds = max(0, balance - WALLET_MINIMUM_LAMPORTS) // cost
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
        names = ("program", "rounds", "clock", "balance")
        try:
            first = await look.endpoint()
        except DecloudError as error:
            fix = LOCALNET_FIX if settings.network == "localnet" else error.hint
            unknown = [warned(name, "not known: the RPC endpoint doesn't answer") for name in names]
            return ChainReport([failed("rpc", error.message, fix), *unknown])
        steps = (look.program_account, look.rounds, look.clock, look.balance)
        checks = await asyncio.gather(
            *(_told(name, step) for name, step in zip(names, steps, strict=True))
        )
        return ChainReport([first, *checks], look.newest)


async def websocket_check(settings: Settings) -> Check:
    """Does the subscription that tells of new rounds work? Without it rounds are polled."""
    name = "websocket"
    fix = "check ws_url; a proxy or firewall may cut WebSockets"
    polled = f"; rounds are looked for every {settings.poll_interval:g} s instead"
    try:
        ms, _ = await _timed(lambda: _subscribe(services(settings).ws_url))
    except (OSError, TimeoutError, WebSocketException, ValueError) as error:
        what = "no answer in time" if isinstance(error, TimeoutError) else _words(error)
        return warned(name, f"no subscription ({what}){polled}", fix)
    return passed(name, f"subscribed in {ms} ms", latency_ms=ms)


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
