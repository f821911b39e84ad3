"""The JSON-RPC and WebSocket servers over a ledger, on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import json
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from solders.transaction import VersionedTransaction

from decloud_trainer.errors import DecloudError, SettingsError
from decloud_trainer.localnet.control import control_routes
from decloud_trainer.localnet.faults import Faults
from decloud_trainer.localnet.ledger import Ledger
from decloud_trainer.localnet.rpc_methods import answer, parse, read_request
from decloud_trainer.localnet.rpc_params import RpcFault
from decloud_trainer.localnet.ws_server import WsServer

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 256 * 1024
_PORT_TRIES = 50
STALE_SLOTS = 200
# Browsers ask before a page may call; solana-test-validator lets all pages, and so do we: what
# they could take is play money. The control paths don't (see control.py).
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Allow-Methods": "POST, GET, OPTIONS",
}


@dataclass(frozen=True, slots=True)
class LedgerEndpoints:
    """Where a served ledger is reached. The WebSocket port is the RPC port + 1."""

    rpc_url: str
    ws_url: str
    control_url: str


@contextlib.asynccontextmanager
async def serve_ledger(
    ledger: Ledger,
    *,
    host: str = "127.0.0.1",
    port: int = 8899,
    slot_s: float = 0.4,
    faults: Faults | None = None,
) -> AsyncIterator[LedgerEndpoints]:
    """Serve the ledger and let its slots pass while the context is open.

    Args:
        host: a loopback address.
        port: of JSON-RPC; 0 finds a free pair of ports.
        slot_s: seconds per slot; 0 = slots pass only by `Ledger.advance_slot`.

    Raises:
        SettingsError: the address is not loopback, or a port is taken.
    """
    faults = faults if faults is not None else Faults()
    rpc_socket, ws_socket = _bind_pair(_loopback(host), port)
    # Requests end with their client, so that one that is made to hang doesn't outlive it.
    runners = [
        web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2, access_log=None)
        for app in (rpc_app(ledger, faults), WsServer(ledger, faults).app())
    ]
    async with contextlib.AsyncExitStack() as stack:
        for runner, bound in zip(runners, (rpc_socket, ws_socket), strict=True):
            stack.callback(bound.close)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.SockSite(runner, bound).start()
        if slot_s > 0:
            ticking = asyncio.create_task(_tick(ledger, slot_s))
            stack.push_async_callback(_end, ticking)
        name = f"[{host}]" if ":" in host else host
        rpc_port, ws_port = rpc_socket.getsockname()[1], ws_socket.getsockname()[1]
        yield LedgerEndpoints(
            rpc_url=f"http://{name}:{rpc_port}",
            ws_url=f"ws://{name}:{ws_port}",
            control_url=f"http://{name}:{rpc_port}/control",
        )


def rpc_app(ledger: Ledger, faults: Faults) -> web.Application:
    """JSON-RPC at ``/``, ``GET /health``, and the control paths."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)

    async def call(request: web.Request) -> web.StreamResponse:
        if faults.take("rpc_429"):
            return _too_many_requests()
        if faults.take("rpc_timeout"):
            await asyncio.Event().wait()  # until the client has had enough
        if request.content_type != "application/json":
            text = (
                "Supplied content type is not allowed. Content-Type: application/json is required"
            )
            return web.Response(status=415, text=text)
        if faults.take("rpc_503"):
            return web.Response(status=503)
        asked = await request.read()
        lost = _lost_send(asked) if faults.is_on("rpc_forked_away") else None
        if lost is not None and faults.take("rpc_forked_away"):
            return web.json_response(lost, headers=_CORS)
        found = answer(ledger, asked)
        if faults.take("rpc_lost_answer"):
            await asyncio.Event().wait()
        if faults.take("rpc_stale"):
            found = _from_long_ago(found)
        if isinstance(found, dict) and faults.take("rpc_wrong_id"):
            found["id"] = "another request's"
        body = "" if found is None else json.dumps(found, separators=(",", ":"))
        if faults.take("rpc_truncated"):
            body = body[: len(body) // 2]
        return web.Response(text=body, content_type="application/json", headers=_CORS)

    async def allow(request: web.Request) -> web.StreamResponse:
        return web.Response(headers=_CORS)

    async def health(request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    app.router.add_post("/", call)
    app.router.add_options("/", allow)
    app.router.add_get("/health", health)
    app.router.add_routes(control_routes(ledger, faults))
    return app


def _lost_send(asked: bytes) -> dict[str, Any] | None:
    """What a node says that takes a transaction into a fork that dies; None for another call."""
    try:
        request = parse(asked)
        request_id, method, params = read_request(request)
        if method != "sendTransaction":
            return None
        wire = base64.b64decode(params.required(0, str), validate=True)
        signature = str(VersionedTransaction.from_bytes(wire).signatures[0])
    except (RpcFault, ValueError, IndexError):
        return None  # it gets the usual answer
    return {"jsonrpc": "2.0", "result": signature, "id": request_id}


def _from_long_ago(found: Any) -> Any:
    """The answer with its slots moved back; what it tells stays, for it is the same ledger."""
    result = found.get("result") if isinstance(found, dict) else None
    context = result.get("context") if isinstance(result, dict) else None
    if isinstance(context, dict):
        context["slot"] -= STALE_SLOTS
    elif isinstance(result, dict) and "absoluteSlot" in result:
        result["absoluteSlot"] -= STALE_SLOTS
        result["blockHeight"] -= STALE_SLOTS
    return found


def _too_many_requests() -> web.Response:
    error: dict[str, Any] = {"code": 429, "message": "Too many requests, please slow down"}
    return web.json_response(
        {"jsonrpc": "2.0", "error": error, "id": None},
        status=429,
        headers={"Retry-After": "1"},
    )


async def _tick(ledger: Ledger, slot_s: float) -> None:
    clock = asyncio.get_running_loop().time
    due = clock() + slot_s
    while True:
        await asyncio.sleep(due - clock())
        try:
            ledger.advance_slot()
        except DecloudError as error:
            log.error("the local ledger's slots stand still: %s", error)
        # After a stall (a sleeping laptop) slots go on from now; they aren't made up for.
        due = max(due + slot_s, clock())


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _loopback(host: str) -> str:
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        raise SettingsError(
            f"the local network doesn't listen on {host}",
            hint="use 127.0.0.1: who can reach it can do everything with it",
        )
    return "127.0.0.1" if host == "localhost" else host


def _bind_pair(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Bound sockets on two neighbouring ports."""
    for _ in range(_PORT_TRIES):
        first = _bind(host, port)
        try:
            return first, _bind(host, first.getsockname()[1] + 1)
        except SettingsError:
            first.close()
            if port:
                raise
    raise SettingsError(f"no two neighbouring ports are free on {host}")


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise SettingsError(
            f"can't listen on {host} port {port}: {error}",
            hint="choose another RPC port (the WebSocket port is the next one)",
        ) from error
    return bound
