"""The WebSocket server: subscriptions to the ledger's news."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from decloud_trainer.localnet.faults import Faults
from decloud_trainer.localnet.ledger import Change, Ledger
from decloud_trainer.localnet.rpc_methods import fault_answer, parse, read_request
from decloud_trainer.localnet.rpc_params import METHOD_NOT_FOUND, Params, RpcFault, invalid
from decloud_trainer.localnet.subscriptions import (
    SUBSCRIBE,
    UNSUBSCRIBE,
    SignatureSubscription,
    Subscription,
)

MAX_MESSAGE_BYTES = 64 * 1024
# So many messages may wait for a client that reads slowly; then it is cut off, as by a node.
MAX_WAITING = 1000
MAX_SUBSCRIPTIONS = 1000
LOST_SHARE = 0.3


class WsServer:
    """All WebSocket connections of one ledger.

    Args:
        faults: those whose names begin with ``ws_`` are its business. Slot notifications are not
            counted among the lost events: they come all the time.
    """

    def __init__(self, ledger: Ledger, faults: Faults, *, max_waiting: int = MAX_WAITING) -> None:
        self._ledger = ledger
        self._faults = faults
        self._max_waiting = max_waiting
        self._connections: set[_Connection] = set()
        self._numbers = itertools.count(1)
        self.chance = random.Random(0).random  # the same notifications are lost in each run

    def app(self) -> web.Application:
        """The application to be served on the port after the RPC server's."""
        app = web.Application()
        app.router.add_get("/", self._serve)
        endings = [
            self._ledger.listen(self._on_change),
            self._faults.watch(self._on_fault),
        ]

        async def stop_listening(_: web.Application) -> None:
            for end in endings:
                end()
            for connection in tuple(self._connections):
                connection.cut()

        app.on_shutdown.append(stop_listening)
        return app

    def next_number(self) -> int:
        return next(self._numbers)

    def _on_change(self, change: Change) -> None:
        for connection in tuple(self._connections):
            connection.notify(change)

    def _on_fault(self, name: str) -> None:
        if name == "ws_drop":
            for connection in tuple(self._connections):
                connection.cut()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, autoping=False)
        with contextlib.suppress(ConnectionResetError):  # the client may go at any time
            await socket.prepare(request)
            if self._faults.take("ws_drop"):
                _abort(request)
                return socket
            connection = _Connection(self, self._ledger, self._faults, request, self._max_waiting)
            self._connections.add(connection)
            try:
                await connection.run(socket)
            finally:
                self._connections.discard(connection)
        return socket


class _Connection:
    """One client: its subscriptions, and the messages that wait for it."""

    def __init__(
        self,
        server: WsServer,
        ledger: Ledger,
        faults: Faults,
        request: web.Request,
        max_waiting: int,
    ) -> None:
        self._server = server
        self._ledger = ledger
        self._faults = faults
        self._request = request
        self._waiting: asyncio.Queue[str] = asyncio.Queue(max_waiting)
        self._subscriptions: dict[int, Subscription] = {}
        self._held: dict[str, Any] | None = None  # until the next one has overtaken it

    async def run(self, socket: web.WebSocketResponse) -> None:
        """Answer until either side ends the connection."""
        sender = asyncio.create_task(self._send_all(socket))
        try:
            async for message in socket:
                if self._faults.is_on("ws_half_open") or message.type is WSMsgType.PONG:
                    continue
                if message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                    continue
                if message.type is not WSMsgType.TEXT:
                    await socket.close(code=WSCloseCode.UNSUPPORTED_DATA)
                    break
                self._receive(message.data)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def cut(self) -> None:
        """End the connection without a goodbye, as a broken network does."""
        self._subscriptions.clear()
        _abort(self._request)

    def notify(self, change: Change) -> None:
        for number, subscription in tuple(self._subscriptions.items()):
            self._tell(number, subscription, subscription.results(self._ledger, change))

    async def _send_all(self, socket: web.WebSocketResponse) -> None:
        while True:
            text = await self._waiting.get()
            if self._faults.is_on("ws_half_open"):
                continue
            try:
                await socket.send_str(text)
            except ConnectionError:
                return  # the reading side ends the connection

    def _receive(self, text: str) -> None:
        request: Any = None
        try:
            request = parse(text)
            request_id, method, params = read_request(request)
            if method in SUBSCRIBE:
                self._subscribe(request_id, SUBSCRIBE[method](params))
            elif method in UNSUBSCRIBE:
                self._unsubscribe(request_id, params)
            else:
                raise RpcFault(METHOD_NOT_FOUND, "Method not found")
        except RpcFault as fault:
            self._put(fault_answer(request, fault))

    def _subscribe(self, request_id: Any, subscription: Subscription) -> None:
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise RpcFault(-32603, "Internal Error: Subscription refused. Node limit reached")
        number = self._server.next_number()
        self._subscriptions[number] = subscription
        self._put({"jsonrpc": "2.0", "result": number, "id": request_id})
        if isinstance(subscription, SignatureSubscription):
            self._tell(number, subscription, subscription.already(self._ledger))

    def _unsubscribe(self, request_id: Any, params: Params) -> None:
        number = params.required(0, int)
        if self._subscriptions.pop(number, None) is None:
            raise invalid("Invalid subscription id.")
        self._put({"jsonrpc": "2.0", "result": True, "id": request_id})

    def _tell(self, number: int, subscription: Subscription, results: Any) -> None:
        for result in results:
            message = {
                "jsonrpc": "2.0",
                "method": subscription.notification,
                "params": {"result": result, "subscription": number},
            }
            if subscription.notification == "slotNotification":
                self._put(message)
            else:
                self._put_with_faults(message)
        if subscription.is_over():
            self._subscriptions.pop(number, None)

    def _put_with_faults(self, message: dict[str, Any]) -> None:
        faults = self._faults
        if faults.take("ws_lose_event"):
            return
        if faults.is_on("ws_lose_some") and self._server.chance() < LOST_SHARE:
            faults.take("ws_lose_some")
            return
        if self._held is None and faults.take("ws_reorder"):
            self._held = message
            return
        self._put(message)
        if faults.take("ws_repeat"):
            self._put(message)
        if self._held is not None:
            held, self._held = self._held, None
            self._put(held)

    def _put(self, message: dict[str, Any]) -> None:
        try:
            self._waiting.put_nowait(json.dumps(message, separators=(",", ":")))
        except asyncio.QueueFull:
            self.cut()


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
