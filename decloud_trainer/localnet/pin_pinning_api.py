"""The IPFS Pinning Service API on loopback, under ``/psa``.

It takes no uploads: it pins what the local network's node has, and stays at `queued` for all
else. So that clients have to look, a new pin is told as `queued` first.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from decloud_trainer.errors import InvalidCid
from decloud_trainer.ipfs.cid import Cid
from decloud_trainer.localnet.pin_access import Faults, bears, is_down, refusal
from decloud_trainer.localnet.pin_store import NotPinned, PinStore

_ROOT = "/psa"
_STATES = ("queued", "pinning", "pinned", "failed")
DELEGATE = "/ip4/127.0.0.1/tcp/4002/p2p/12D3KooWLocalnetServiceThatIsNotReal"


class PinningApiServer:
    def __init__(self, store: PinStore, faults: Faults | None, token: str) -> None:
        self._store = store
        self._faults = faults
        self._token = token
        self._pins: dict[str, dict[str, Any]] = {}  # by request id, in the order of their coming

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{_ROOT}/pins", self.list),
            web.post(f"{_ROOT}/pins", self.add),
            web.get(f"{_ROOT}/pins/{{id}}", self.look),
            web.delete(f"{_ROOT}/pins/{{id}}", self.remove),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Pins by CID and state, as asked; without states those that are pinned."""
        self._admit(request)
        states = request.query.get("status", "pinned").split(",")
        cids = request.query.get("cid", "")
        if not set(states) <= set(_STATES):
            raise refusal(web.HTTPBadRequest, "BAD_REQUEST", "unknown status")
        found = [
            told
            for told in map(self._state, self._pins.values())
            if told["status"] in states and (not cids or told["pin"]["cid"] in cids.split(","))
        ]
        text = request.query.get("limit", "")
        limit = int(text) if text.isascii() and text.isdecimal() else 10
        return web.json_response({"count": len(found), "results": found[: min(limit, 1000)]})

    async def add(self, request: web.Request) -> web.Response:
        self._admit(request)
        try:
            pin = await request.json()
            cid = Cid.parse(pin["cid"])
        except (ValueError, KeyError, TypeError, InvalidCid) as error:
            raise refusal(web.HTTPBadRequest, "BAD_REQUEST", "a pin needs a CID") from error
        row = {
            "requestid": str(uuid.uuid4()),
            "status": "queued",
            "created": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "pin": {"cid": str(cid), "name": str(pin.get("name", ""))[:255]},
            "delegates": [DELEGATE],
        }
        self._pins[str(row["requestid"])] = row
        return web.json_response(row, status=202)

    async def look(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.json_response(self._state(self._row(request)))

    async def remove(self, request: web.Request) -> web.Response:
        self._admit(request)
        del self._pins[str(self._row(request)["requestid"])]
        return web.Response(status=202)

    def _row(self, request: web.Request) -> dict[str, Any]:
        row = self._pins.get(request.match_info["id"])
        if row is None:
            raise refusal(web.HTTPNotFound, "NOT_FOUND", "there is no such pin")
        return row

    def _state(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            self._store.public.get(Cid.parse(row["pin"]["cid"]))
        except NotPinned:
            return row
        row["status"] = "pinned"
        return row

    def _admit(self, request: web.Request) -> None:
        if is_down(self._faults):
            raise refusal(web.HTTPServiceUnavailable, "UNAVAILABLE", "the service is down")
        if not bears(request, self._token):
            raise refusal(web.HTTPUnauthorized, "UNAUTHORIZED", "the access token is not valid")
