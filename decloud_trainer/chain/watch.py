"""Tells when rounds change: the Watch port.

A WebSocket subscription tells of changes at once, but notifications get lost: in a dropped
connection, in a full queue, at a busy provider. So there is also a sweep, which reads the open
rounds and the followed ones: after every (re)connection, every `safety_interval_s` while the
socket is up, and every `poll_interval_s` while it is down.

With several URLs, the next one is tried as soon as one fails or refuses. A socket over which no
answer to a ping comes is dead, even if nobody has closed it. After a sleep of the machine
`look_again` makes a new connection, since nothing tells whether the old one still lives.

The socket is spoken to through `websockets`, which solana-py brings along: solana-py's own client
differs between its releases, and both parse with solders (see jsonrpc.py for why that can't be).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from solders.pubkey import Pubkey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from decloud_trainer.chain import v1
from decloud_trainer.chain.client import SolanaChain
from decloud_trainer.chain.rpc import CONFIRMED, memcmp, read_account
from decloud_trainer.errors import NetworkError, RpcError
from decloud_trainer.rounds.model import Round

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 1024 * 1024
# An endpoint that hangs keeps us from the next one for so long.
FAILOVER_S: Final = 2.0
_MAX_QUEUED: Final = 10_000
_SUBSCRIBE_ID: Final = 1


@dataclass(frozen=True, slots=True)
class WatchPace:
    """Seconds.

    Attributes:
        poll_interval_s: between two sweeps while the socket is down.
        safety_interval_s: between two sweeps while it is up.
        answer_s: for connecting and for the answer to the subscription, together; with several
            URLs `FAILOVER_S` at most.
        ping_s: a connection on which a ping stays unanswered for that long is dead.
        first_retry_s, max_retry_s: the pause before reconnecting doubles from one to the other,
            each time with a random part; a connection that lasted `max_retry_s` resets it.
    """

    poll_interval_s: float = 5.0
    safety_interval_s: float = 20.0
    answer_s: float = 5.0
    ping_s: float = 10.0
    first_retry_s: float = 0.5
    max_retry_s: float = 60.0


class RoundWatch:
    """The Watch port over one WebSocket at a time.

    Args:
        ws_urls: ws or wss, in the user's order; they may hold API keys and are never shown.
        follow: the ids of rounds to be told of whatever their status, asked at each sweep.
        uniform: random number between two bounds, for the jitter.
    """

    def __init__(
        self,
        chain: SolanaChain,
        ws_urls: str | Sequence[str],
        *,
        program: Pubkey = v1.PROGRAM_ID,
        follow: Callable[[], Iterable[int]] = tuple,
        pace: WatchPace = WatchPace(),
        uniform: Callable[[float, float], float] = random.uniform,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._chain = chain
        self._ws_urls = (ws_urls,) if isinstance(ws_urls, str) else tuple(ws_urls)
        self._answer_s = min(pace.answer_s, FAILOVER_S if len(self._ws_urls) > 1 else math.inf)
        self._program = program
        self._follow = follow
        self._pace = pace
        self._uniform = uniform
        self._sleep = sleep
        self._queue: asyncio.Queue[Round] = asyncio.Queue(_MAX_QUEUED)
        self._sweep_now = asyncio.Event()
        self._new_connection = asyncio.Event()
        self._told: dict[int, Round] = {}
        self._is_up = False
        self._heard_at = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since anything was read or heard of the chain, or since this began; what the
        machine sleeps doesn't count."""
        return time.monotonic() - self._heard_at

    @property
    def is_connected(self) -> bool:
        """Is the subscription up? For display."""
        return self._is_up

    def look_again(self) -> None:
        """Connect anew and read everything again, say after the machine has slept."""
        self._new_connection.set()
        self._sweep_now.set()

    async def changes(self) -> AsyncGenerator[Round, None]:
        """See the port. For one reader; `aclose()` the iterator to end the connection."""
        tasks = [
            asyncio.create_task(self._keep_listening(), name="watch: listen"),
            asyncio.create_task(self._keep_sweeping(), name="watch: sweep"),
        ]
        try:
            while True:
                yield await self._next(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(self, tasks: list[asyncio.Task[None]]) -> Round:
        """The next round; if one of the tasks broke, its error: that is a defect of ours."""
        getting = asyncio.create_task(self._queue.get())
        try:
            done, _ = await asyncio.wait([getting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not getting.done():
                getting.cancel()
        if getting not in done:
            for task in done:
                task.result()
        return getting.result()

    async def _keep_sweeping(self) -> None:
        is_down = False
        while True:
            tell_all = self._sweep_now.is_set() or self._is_up
            self._sweep_now.clear()
            try:
                await self._sweep(tell_all)
            except NetworkError as error:
                log.log(
                    logging.DEBUG if is_down else logging.WARNING, "can't read rounds: %s", error
                )
                is_down = True
            else:
                if is_down:
                    log.info("rounds can be read again")
                is_down = False
            pause = (
                self._pace.safety_interval_s
                if self._is_up and not is_down
                else (self._pace.poll_interval_s)
            )
            # Not by `wait_for`: before Python 3.12 it can lose a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._sweep_now.wait()

    async def _sweep(self, tell_all: bool) -> None:
        """Read open and followed rounds; tell those that differ from what was told, or all."""
        found = {round_.id: round_ for round_ in await self._chain.open_rounds()}
        others = [number for number in self._follow() if number not in found]
        if others:
            found |= {round_.id: round_ for round_ in await self._chain.rounds(others)}
        self._heard_at = time.monotonic()
        told, self._told = self._told, found
        for round_ in found.values():
            if tell_all or told.get(round_.id) != round_:
                await self._queue.put(round_)

    async def _keep_listening(self) -> None:
        """Keep one subscription up: the URLs in turn, with a pause after each full turn."""
        pause_s = self._pace.first_retry_s
        loop = asyncio.get_running_loop()
        is_first_failure = True
        for turn in itertools.count():
            began = loop.time()
            self._new_connection.clear()
            what = await self._listen(self._ws_urls[turn % len(self._ws_urls)])
            was_up = self._is_up
            self._set_up(False)
            is_first_failure |= was_up
            level = logging.WARNING if is_first_failure else logging.DEBUG
            is_first_failure = False
            log.log(level, "no subscription (%s); reading every few seconds instead", what)
            if loop.time() - began >= self._pace.max_retry_s:
                pause_s = self._pace.first_retry_s
            if (turn + 1) % len(self._ws_urls) == 0:
                await self._sleep(self._uniform(pause_s / 2, pause_s * 1.5))
                pause_s = min(pause_s * 2, self._pace.max_retry_s)

    async def _listen(self, url: str) -> str:
        """Take notifications until the connection is of no more use; why it isn't."""
        listening = asyncio.create_task(self._subscribed(url))
        resetting = asyncio.create_task(self._new_connection.wait())
        try:
            await asyncio.wait({listening, resetting}, return_when=asyncio.FIRST_COMPLETED)
            if not listening.done():
                return "a new connection after a pause of this machine"
            return listening.result()
        finally:
            for task in (listening, resetting):
                task.cancel()
            await asyncio.gather(listening, resetting, return_exceptions=True)

    async def _subscribed(self, url: str) -> str:
        deadline = asyncio.get_running_loop().time() + self._answer_s
        try:
            async with connect(
                url,
                open_timeout=self._answer_s,
                close_timeout=1.0,
                ping_interval=self._pace.ping_s,
                ping_timeout=self._pace.ping_s,
                max_size=MAX_MESSAGE_BYTES,
            ) as socket:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._subscribe(socket)
                except TimeoutError:
                    socket.transport.abort()  # nor is it waited for to say goodbye
                    raise
                async for text in socket:
                    self._take(text)
        except (OSError, WebSocketException, RpcError, ValueError, RecursionError) as error:
            return error.message if isinstance(error, RpcError) else type(error).__name__
        return "closed by the other side"

    async def _subscribe(self, socket: ClientConnection) -> None:
        """Subscribe, and only then have the rounds read again: so no change falls between."""
        options = {
            "encoding": "base64",
            "commitment": CONFIRMED,
            "filters": memcmp(v1.round_filters()),
        }
        request = {
            "jsonrpc": "2.0",
            "id": _SUBSCRIBE_ID,
            "method": "programSubscribe",
            "params": [str(self._program), options],
        }
        await socket.send(json.dumps(request))
        while True:
            answer = json.loads(await socket.recv())
            if isinstance(answer, dict) and answer.get("id") == _SUBSCRIBE_ID:
                break
        if type(answer.get("result")) is not int:
            raise RpcError("the endpoint refused the subscription to the program's accounts")
        log.info("subscribed to the program's rounds")
        self._set_up(True)

    def _set_up(self, is_up: bool) -> None:
        if self._is_up != is_up:
            self._is_up = is_up
            self._sweep_now.set()

    def _take(self, text: str | bytes) -> None:
        """Queue the round in a notification; anything else is passed over."""
        message = json.loads(text)
        if not isinstance(message, dict) or message.get("method") != "programNotification":
            return
        round_ = self._chain.readable_round(_account_in(message))
        if round_ is None:
            return
        self._heard_at = time.monotonic()
        self._told[round_.id] = round_
        try:
            self._queue.put_nowait(round_)
        except asyncio.QueueFull:
            self._sweep_now.set()


def _account_in(message: Any) -> Any:
    try:
        value = message["params"]["result"]["value"]
        return read_account(str(value["pubkey"]), value["account"])
    except (KeyError, TypeError) as error:
        raise RpcError("the endpoint sent a notification without an account") from error
