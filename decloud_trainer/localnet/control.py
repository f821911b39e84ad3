"""Steering a running local network: its clock and its faults.

Plain HTTP beside the JSON-RPC: ``GET /control/status``, ``POST /control/warp`` with
``{"seconds": n}``, ``POST /control/fault`` with ``{"name", "on", "count", "seconds"}``.
Loopback is no protection against the web pages that the user has open: a page's requests carry
an Origin, and without asking first it can't send the JSON content type; both are refused.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from decloud_trainer.errors import SettingsError
from decloud_trainer.localnet.faults import Faults
from decloud_trainer.localnet.ledger import Ledger
from decloud_trainer.localnet.slots import Commitment

MAX_BODY_BYTES = 64 * 1024


def control_routes(ledger: Ledger, faults: Faults) -> list[web.RouteDef]:
    def status() -> dict[str, Any]:
        return {
            "genesis_hash": str(ledger.genesis_hash),
            "slot": ledger.current.number,
            "finalized_slot": ledger.slot_at(Commitment.FINALIZED),
            "unix_timestamp": ledger.unix_timestamp,
            "faults": faults.active(),
        }

    async def get_status(request: web.Request) -> web.Response:
        _refuse_pages(request)
        return web.json_response(status())

    async def warp(request: web.Request) -> web.Response:
        fields = await _fields(request)
        ledger.warp(_number(fields, "seconds", 0))
        return web.json_response(status())

    async def fault(request: web.Request) -> web.Response:
        fields = await _fields(request)
        name, on = fields.get("name"), fields.get("on", True)
        if not isinstance(name, str) or not isinstance(on, bool):
            raise SettingsError("a fault needs a name (text), and `on` is true or false")
        count, seconds = _number(fields, "count", None), _number(fields, "seconds", None)
        faults.switch(name, on=on, count=None if count is None else int(count), seconds=seconds)
        return web.json_response(status())

    return [
        web.get("/control/status", get_status),
        web.post("/control/warp", _told(warp)),
        web.post("/control/fault", _told(fault)),
    ]


Handler = Callable[[web.Request], Awaitable[web.Response]]


def _told(handler: Handler) -> Handler:
    async def answered(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except SettingsError as error:
            return web.json_response({"error": str(error), "hint": error.hint}, status=400)

    return answered


def _refuse_pages(request: web.Request) -> None:
    if "Origin" in request.headers:
        raise web.HTTPForbidden(text="web pages can't steer the local network")


async def _fields(request: web.Request) -> dict[str, Any]:
    _refuse_pages(request)
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="send application/json")
    try:
        fields = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise SettingsError("the request is not JSON") from error
    if not isinstance(fields, dict):
        raise SettingsError("the request is not a JSON object")
    return fields


def _number(fields: dict[str, Any], name: str, default: float | None) -> Any:
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(f"`{name}` is a number")
    return value
