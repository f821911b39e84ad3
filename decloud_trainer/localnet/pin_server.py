"""The pin services on loopback: Pinata's HTTP API, both generations of it, a Kubo node's RPC API,
the IPFS Pinning Service API (under ``/psa``), and an IPFS gateway beside them.

Clients of the real services work unchanged: paths, headers, fields, answers and refusals are
theirs.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from decloud_trainer.errors import DecloudError, InvalidCid
from decloud_trainer.ipfs.cid import V0, V1, V1_2025, Cid, Profile
from decloud_trainer.localnet.pin_access import Faults, bears, is_down, refusal
from decloud_trainer.localnet.pin_gateway import Gateway
from decloud_trainer.localnet.pin_kubo import KuboApi
from decloud_trainer.localnet.pin_pinning_api import PinningApiServer
from decloud_trainer.localnet.pin_store import NotPinned, Part, Pin, PinStore
from decloud_trainer.localnet.pin_upload import (
    MAX_UPLOAD_BYTES,
    names_of,
    parts_of,
    receive,
)

_LEGACY_PROFILES = {"0": V0, "1": V1}
_V3_PROFILES = {"v0": V0, "v1": V1, "0": V0, "1": V1, "unixfs-v1-2025": V1_2025}


def make_pin_app(
    store: PinStore,
    *,
    faults: Faults | None = None,
    key: str = "localnet-key",
    secret: str = "localnet-secret",  # noqa: S107  fixed and documented: loopback only
    jwt: str = "localnet-jwt",
    max_upload_bytes: int = MAX_UPLOAD_BYTES,
) -> web.Application:
    """The pin service and the gateway over a store, to be bound to loopback."""
    api = _PinApi(store, faults, _Credentials(key, secret, jwt), max_upload_bytes)
    kubo = KuboApi(store, faults, jwt, max_upload_bytes)
    pinning = PinningApiServer(store, faults, jwt)
    gateway = Gateway(store.public, faults)
    app = web.Application()
    app.add_routes(
        [
            web.get("/data/testAuthentication", api.test_authentication),
            web.get("/data/userPinnedDataTotal", api.data_total),
            web.get("/data/pinList", api.pin_list),
            web.post("/pinning/pinFileToIPFS", api.pin_file),
            web.delete("/pinning/unpin/{cid}", api.unpin),
            web.post("/v3/files", api.upload_v3),
            web.get("/v3/files/public", api.list_public),
            web.get("/v3/files/private", api.list_private),
            *kubo.routes(),
            *pinning.routes(),
            web.get("/ipfs/{cid}", gateway.get),
            web.get("/ipfs/{cid}/{path:.*}", gateway.get),
        ]
    )
    return app


@dataclass(frozen=True, slots=True)
class _Credentials:
    key: str
    secret: str
    jwt: str

    def accept_key(self, request: web.Request) -> bool:
        key = request.headers.get("pinata_api_key", "")
        secret = request.headers.get("pinata_secret_api_key", "")
        return hmac.compare_digest(key.encode(), self.key.encode()) and hmac.compare_digest(
            secret.encode(), self.secret.encode()
        )


class _PinApi:
    def __init__(
        self, store: PinStore, faults: Faults | None, credentials: _Credentials, max_bytes: int
    ) -> None:
        self._store = store
        self._faults = faults
        self._credentials = credentials
        self._max_bytes = max_bytes

    async def test_authentication(self, request: web.Request) -> web.Response:
        self._admit(request)
        text = "Congratulations! You are communicating with the Pinata API!"
        return web.json_response({"message": text})

    async def data_total(self, request: web.Request) -> web.Response:
        self._admit(request)
        pins = self._store.pins("public")
        total = sum(pin.total for pin in pins)
        return web.json_response(
            {
                "pin_count": len(pins),
                "pin_size_total": total,
                "pin_size_with_replications_total": total,
            }
        )

    async def pin_file(self, request: web.Request) -> web.Response:
        """Legacy upload of a file or, with parts named ``folder/...``, of a folder."""
        self._admit(request)
        with self._store.incoming() as folder:
            upload = await receive(request, Path(folder), self._max_bytes)
            options = _json_field(upload.fields, "pinataOptions")
            metadata = _json_field(upload.fields, "pinataMetadata")
            profile = _LEGACY_PROFILES.get(str(options.get("cidVersion", 0)))
            if profile is None:
                raise refusal(web.HTTPBadRequest, "INVALID_OPTIONS", "cidVersion must be 0 or 1")
            parts, name = parts_of(upload, wrap=options.get("wrapWithDirectory") is True)
            pin, known = await self._add(
                parts,
                profile,
                network="public",
                name=str(metadata.get("name") or name),
                keyvalues=_texts(metadata.get("keyvalues")),
            )
        answer = {
            "IpfsHash": pin.cid,
            "PinSize": pin.total,
            "Timestamp": pin.created_at,
            "ID": pin.id,
            "Name": pin.name,
            "NumberOfFiles": pin.files,
        }
        return web.json_response(answer | ({"isDuplicate": True} if known else {}))

    async def pin_list(self, request: web.Request) -> web.Response:
        self._admit(request)
        wanted, name = request.query.get("hashContains", ""), request.query.get("metadata[name]")
        pins = [
            pin
            for pin in self._store.pins("public")
            if wanted in pin.cid and (name is None or name in pin.name)
        ]
        offset, limit = _number(request, "pageOffset", 0), _number(request, "pageLimit", 10)
        rows = [_legacy_row(pin) for pin in pins[offset : offset + min(limit, 1000)]]
        return web.json_response({"count": len(pins), "rows": rows})

    async def unpin(self, request: web.Request) -> web.Response:
        self._admit(request)
        try:
            cid = Cid.parse(request.match_info["cid"])
            await asyncio.to_thread(self._store.remove, cid, "public")
        except InvalidCid as error:
            raise refusal(web.HTTPBadRequest, "INVALID_CID", error.message) from error
        except NotPinned as error:
            reason = "CURRENT_USER_HAS_NOT_PINNED_CID"
            raise refusal(web.HTTPBadRequest, reason, str(error)) from error
        return web.Response(text="OK")

    async def upload_v3(self, request: web.Request) -> web.Response:
        """V3 upload of one file; private unless the field `network` says public."""
        self._admit(request, jwt_only=True)
        with self._store.incoming() as folder:
            upload = await receive(request, Path(folder), self._max_bytes)
            fields = upload.fields
            network = fields.get("network", "private")
            profile = _V3_PROFILES.get(fields.get("cid_version", "v1"))
            if len(upload.files) != 1 or "car" in fields:
                raise refusal(web.HTTPBadRequest, "INVALID_FILE", "send exactly one plain file")
            if network not in ("public", "private") or profile is None:
                raise refusal(web.HTTPBadRequest, "INVALID_OPTIONS", "network or cid_version")
            file_name, path = upload.files[0]
            pin, known = await self._add(
                [Part((), path)],
                profile,
                network=network,
                name=fields.get("name") or names_of(file_name)[-1],
                keyvalues=_texts(_json_field(fields, "keyvalues")),
                group_id=fields.get("group_id") or None,
            )
        return web.json_response({"data": _v3_row(pin) | {"is_duplicate": known}})

    async def list_public(self, request: web.Request) -> web.Response:
        return self._list_v3(request, self._store.pins("public"))

    async def list_private(self, request: web.Request) -> web.Response:
        return self._list_v3(request, self._store.pins("private"))

    def _list_v3(self, request: web.Request, pins: list[Pin]) -> web.Response:
        self._admit(request, jwt_only=True)
        cid, name = request.query.get("cid"), request.query.get("name")
        found = [p for p in pins if cid in (None, p.cid) and (name is None or name in p.name)]
        rows = [_v3_row(pin) for pin in found[: min(_number(request, "limit", 10), 1000)]]
        return web.json_response({"data": {"files": rows, "next_page_token": ""}})

    def _admit(self, request: web.Request, *, jwt_only: bool = False) -> None:
        if is_down(self._faults):
            raise refusal(web.HTTPServiceUnavailable, "UNAVAILABLE", "the pin service is down")
        if bears(request, self._credentials.jwt):
            return
        if not jwt_only and self._credentials.accept_key(request):
            return
        reason = "INVALID_API_KEYS" if "pinata_api_key" in request.headers else "NO_CREDENTIALS"
        raise refusal(web.HTTPUnauthorized, reason, "No valid authentication was provided")

    async def _add(self, parts: list[Part], profile: Profile, **record: Any) -> tuple[Pin, bool]:
        try:
            pin, known = await asyncio.to_thread(self._store.add, parts, profile, **record)
            if not known and self._faults is not None and self._faults.take("pin_lost"):
                await asyncio.to_thread(self._store.remove, Cid.parse(pin.cid), pin.network)
            return pin, known
        except DecloudError as error:
            raise refusal(web.HTTPBadRequest, "INVALID_FILE", error.message) from error


def _json_field(fields: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(fields.get(name) or "{}")
    except ValueError as error:
        raise refusal(web.HTTPBadRequest, "INVALID_BODY", f"{name} isn't JSON") from error
    if not isinstance(value, dict):
        raise refusal(web.HTTPBadRequest, "INVALID_BODY", f"{name} isn't an object")
    return value


def _texts(values: Any) -> dict[str, str]:
    if not isinstance(values or {}, dict):
        raise refusal(web.HTTPBadRequest, "INVALID_BODY", "keyvalues isn't an object")
    return {str(key): str(value) for key, value in (values or {}).items()}


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else default


def _legacy_row(pin: Pin) -> dict[str, Any]:
    return {
        "id": pin.id,
        "ipfs_pin_hash": pin.cid,
        "size": pin.total,
        "user_id": "localnet",
        "date_pinned": pin.created_at,
        "date_unpinned": None,
        "metadata": {"name": pin.name, "keyvalues": pin.keyvalues or None},
        "number_of_files": pin.files,
    }


def _v3_row(pin: Pin) -> dict[str, Any]:
    return {
        "id": pin.id,
        "name": pin.name,
        "cid": pin.cid,
        "created_at": pin.created_at,
        "size": pin.size,
        "number_of_files": pin.files,
        "mime_type": "application/octet-stream",
        "group_id": pin.group_id,
        "keyvalues": pin.keyvalues,
        "network": pin.network,
        "vectorized": False,
    }
