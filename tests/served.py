"""A served ledger for tests, its JSON-RPC by hand, and its WebSocket by hand."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from decloud_trainer.localnet.faults import Faults
from decloud_trainer.localnet.ledger import Ledger
from decloud_trainer.localnet.rpc_server import LedgerEndpoints, serve_ledger

# For an answer that takes a moment on a calm machine.
PATIENCE_S = 30.0


@dataclass
class Served:
    """A ledger behind its servers; with `slot_s=0` slots pass only by hand."""

    ledger: Ledger
    faults: Faults
    endpoints: LedgerEndpoints
    http: aiohttp.ClientSession

    async def post(self, body: Any) -> Any:
        """The answer to one request or a batch."""
        async with self.http.post(self.endpoints.rpc_url, json=body) as response:
            return await response.json()

    async def call(self, method: str, *params: Any) -> Any:
        """The result, which must be one."""
        answer = await self.post(request(method, *params))
        assert "error" not in answer, answer
        return answer["result"]

    async def error(self, method: str, *params: Any) -> dict[str, Any]:
        """The error, which must be one."""
        answer = await self.post(request(method, *params))
        assert set(answer) == {"jsonrpc", "error", "id"}, answer
        found: dict[str, Any] = answer["error"]
        return found

    def pass_slots(self, count: int) -> None:
        for _ in range(count):
            self.ledger.advance_slot()


def request(method: str, *params: Any, id: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": list(params)}


class Socket:
    """A WebSocket connection; each wait is bounded."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.raw = socket

    async def ask(self, method: str, *params: Any) -> Any:
        await self.raw.send_json(request(method, *params, id=7))
        answer = await self.next()
        assert answer["id"] == 7
        return answer["result"] if "result" in answer else answer["error"]

    async def next(self) -> Any:
        return await self.raw.receive_json(timeout=PATIENCE_S)

    async def note(self) -> tuple[str, int, Any]:
        """The next notification: method, subscription and result."""
        message = await self.next()
        assert set(message) == {"jsonrpc", "method", "params"}, message
        params = message["params"]
        return message["method"], params["subscription"], params["result"]

    async def is_cut(self) -> bool:
        """Whether the server ends the connection, whatever it still has to say."""
        closing = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        while True:
            message = await self.raw.receive(timeout=PATIENCE_S)
            if message.type in closing:
                return True


@contextlib.asynccontextmanager
async def served(slot_s: float = 0) -> AsyncIterator[Served]:
    ledger, faults = Ledger(), Faults()
    try:
        async with (
            serve_ledger(ledger, port=0, slot_s=slot_s, faults=faults) as endpoints,
            aiohttp.ClientSession() as http,
        ):
            yield Served(ledger, faults, endpoints, http)
    finally:
        ledger.close()


@contextlib.asynccontextmanager
async def socket(net: Served) -> AsyncIterator[Socket]:
    async with net.http.ws_connect(net.endpoints.ws_url) as raw:
        yield Socket(raw)
