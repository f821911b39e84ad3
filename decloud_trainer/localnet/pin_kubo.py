"""A Kubo node's RPC API on loopback, as far as pinning needs it.

As with the real one, everything is a POST, and failures are a 500 with a `Message`. A token is
asked for only when one is sent: a node whose API isn't guarded takes anybody.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import hdrs, web

from decloud_trainer.errors import DecloudError, InvalidCid
from decloud_trainer.ipfs.cid import V0, V1, Cid
from decloud_trainer.localnet.pin_access import Faults, bears, is_down
from decloud_trainer.localnet.pin_store import Part, Pin, PinStore
from decloud_trainer.localnet.pin_upload import Upload, parts_of, receive

_ROOT = "/api/v0"
NODE = "12D3KooWLocalnetNodeThatIsNotReal"
NODE_ADDRESS = f"/ip4/127.0.0.1/tcp/4001/p2p/{NODE}"


class KuboApi:
    def __init__(self, store: PinStore, faults: Faults | None, token: str, max_bytes: int) -> None:
        self._store = store
        self._faults = faults
        self._token = token
        self._max_bytes = max_bytes
        self.connected: list[str] = []  # addresses that it was told to connect to

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{_ROOT}/version", self.version),
            web.post(f"{_ROOT}/id", self.id),
            web.post(f"{_ROOT}/repo/stat", self.repo_stat),
            web.post(f"{_ROOT}/add", self.add),
            web.post(f"{_ROOT}/pin/ls", self.pin_ls),
            web.post(f"{_ROOT}/swarm/connect", self.swarm_connect),
        ]

    async def version(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.json_response({"Version": "0.0.0-localnet", "System": "", "Golang": ""})

    async def id(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.json_response({"ID": NODE, "Addresses": [NODE_ADDRESS]})

    async def repo_stat(self, request: web.Request) -> web.Response:
        self._admit(request)
        size = sum(pin.total for pin in self._store.pins("public"))
        return web.json_response({"RepoSize": size, "StorageMax": 10**10, "NumObjects": 0})

    async def add(self, request: web.Request) -> web.Response:
        """One file, or the files of one folder; a JSON object per line, the root last."""
        self._admit(request)
        version = request.query.get("cid-version", "0")
        if version not in ("0", "1"):
            raise _failure(f"unknown CID version: {version[:20]}")
        with self._store.incoming() as folder:
            received = await receive(request, Path(folder), self._max_bytes)
            named = [(unquote(name), path) for name, path in received.files]
            parts, name = parts_of(Upload(received.fields, named), wrap=False)
            profile = V1 if version == "1" else V0
            try:
                pin, _ = await asyncio.to_thread(
                    self._store.add, parts, profile, network="public", name=name
                )
            except DecloudError as error:
                raise _failure(error.message) from error
            lines = [json.dumps(told) for told in self._told(pin, parts, name)]
        return web.Response(text="\n".join(lines) + "\n", content_type="application/json")

    def _told(self, pin: Pin, parts: list[Part], name: str) -> Iterator[dict[str, Any]]:
        root = Cid.parse(pin.cid)
        for part in parts:
            if part.names:
                inner = self._store.public.resolve(root, part.names)
                size = part.path.stat().st_size
                yield {"Name": "/".join((name, *part.names)), "Hash": str(inner), "Size": str(size)}
        yield {"Name": name, "Hash": pin.cid, "Size": str(pin.total)}

    async def pin_ls(self, request: web.Request) -> web.Response:
        self._admit(request)
        try:
            wanted = Cid.parse(request.query.get("arg", ""))
        except InvalidCid as error:
            raise _failure(error.message) from error
        if str(wanted) not in {pin.cid for pin in self._store.pins("public")}:
            raise _failure(f"path '{wanted}' is not pinned")
        return web.json_response({"Keys": {str(wanted): {"Type": "recursive"}}})

    async def swarm_connect(self, request: web.Request) -> web.Response:
        self._admit(request)
        address = request.query.get("arg", "")
        self.connected.append(address)
        return web.json_response({"Strings": [f"connect {address} success"]})

    def _admit(self, request: web.Request) -> None:
        if is_down(self._faults):
            raise web.HTTPServiceUnavailable(text="503 Service Unavailable")
        if hdrs.AUTHORIZATION in request.headers and not bears(request, self._token):
            raise web.HTTPForbidden(text="403 - Access Denied: 401 Kubo RPC Access Denied")


def _failure(message: str) -> web.HTTPException:
    body = {"Message": message, "Code": 0, "Type": "error"}
    return web.HTTPInternalServerError(text=json.dumps(body), content_type="application/json")
