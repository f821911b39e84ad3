"""Pinata's HTTP API on loopback, both generations of it, and an IPFS gateway beside it.

Clients of the real service work unchanged: paths, headers, fields, answers and refusals are
Pinata's.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, hdrs, web

from decloud_trainer.errors import DecloudError, InvalidCid
from decloud_trainer.ipfs.cid import V0, V1, V1_2025, Cid, Profile
from decloud_trainer.localnet.pin_gateway import Faults, Gateway
from decloud_trainer.localnet.pin_store import NotPinned, Part, Pin, PinStore

MAX_UPLOAD_BYTES = 2 * 1024**3
_MAX_FIELD_BYTES = 64 * 1024
_MAX_PARTS = 4096
_CHUNK_BYTES = 256 * 1024

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

    def accept_jwt(self, request: web.Request) -> bool:
        given = request.headers.get(hdrs.AUTHORIZATION, "")
        return hmac.compare_digest(given.encode(), f"Bearer {self.jwt}".encode())

    def accept_key(self, request: web.Request) -> bool:
        key = request.headers.get("pinata_api_key", "")
        secret = request.headers.get("pinata_secret_api_key", "")
        return hmac.compare_digest(key.encode(), self.key.encode()) and hmac.compare_digest(
            secret.encode(), self.secret.encode()
        )


@dataclass(frozen=True, slots=True)
class _Upload:
    """A multipart request: its text fields, and its files as (file name, where the bytes lie)."""

    fields: dict[str, str]
    files: list[tuple[str, Path]]


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
            upload = await self._receive(request, Path(folder))
            options = _json_field(upload.fields, "pinataOptions")
            metadata = _json_field(upload.fields, "pinataMetadata")
            profile = _LEGACY_PROFILES.get(str(options.get("cidVersion", 0)))
            if profile is None:
                raise _refusal(web.HTTPBadRequest, "INVALID_OPTIONS", "cidVersion must be 0 or 1")
            parts, name = _legacy_parts(upload, wrap=options.get("wrapWithDirectory") is True)
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
            raise _refusal(web.HTTPBadRequest, "INVALID_CID", error.message) from error
        except NotPinned as error:
            reason = "CURRENT_USER_HAS_NOT_PINNED_CID"
            raise _refusal(web.HTTPBadRequest, reason, str(error)) from error
        return web.Response(text="OK")

    async def upload_v3(self, request: web.Request) -> web.Response:
        """V3 upload of one file; private unless the field `network` says public."""
        self._admit(request, jwt_only=True)
        with self._store.incoming() as folder:
            upload = await self._receive(request, Path(folder))
            fields = upload.fields
            network = fields.get("network", "private")
            profile = _V3_PROFILES.get(fields.get("cid_version", "v1"))
            if len(upload.files) != 1 or "car" in fields:
                raise _refusal(web.HTTPBadRequest, "INVALID_FILE", "send exactly one plain file")
            if network not in ("public", "private") or profile is None:
                raise _refusal(web.HTTPBadRequest, "INVALID_OPTIONS", "network or cid_version")
            file_name, path = upload.files[0]
            pin, known = await self._add(
                [Part((), path)],
                profile,
                network=network,
                name=fields.get("name") or _names(file_name)[-1],
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
        if self._faults is not None and self._faults.take("pin_down"):
            raise _refusal(web.HTTPServiceUnavailable, "UNAVAILABLE", "the pin service is down")
        if self._credentials.accept_jwt(request):
            return
        if not jwt_only and self._credentials.accept_key(request):
            return
        reason = "INVALID_API_KEYS" if "pinata_api_key" in request.headers else "NO_CREDENTIALS"
        raise _refusal(web.HTTPUnauthorized, reason, "No valid authentication was provided")

    async def _add(self, parts: list[Part], profile: Profile, **record: Any) -> tuple[Pin, bool]:
        try:
            return await asyncio.to_thread(self._store.add, parts, profile, **record)
        except DecloudError as error:
            raise _refusal(web.HTTPBadRequest, "INVALID_FILE", error.message) from error

    async def _receive(self, request: web.Request, folder: Path) -> _Upload:
        """Write the request's files to `folder` under names of our own."""
        size = request.content_length or 0
        if size > self._max_bytes + _MAX_FIELD_BYTES:
            raise self._too_large(size)
        if request.content_type != "multipart/form-data":
            raise _refusal(web.HTTPBadRequest, "INVALID_BODY", "multipart/form-data is expected")
        upload, left = _Upload({}, []), self._max_bytes
        try:
            async for part in await request.multipart():
                if not isinstance(part, BodyPartReader):
                    raise _refusal(web.HTTPBadRequest, "INVALID_BODY", "nested multipart")
                if part.filename is None and part.name != "file":
                    upload.fields[part.name or ""] = await _text_field(part)
                elif len(upload.files) < _MAX_PARTS:
                    path = folder / str(len(upload.files))
                    upload.files.append((part.filename or "", path))
                    left -= await self._write(part, path, left)
                else:
                    raise _refusal(web.HTTPBadRequest, "INVALID_BODY", "too many parts")
        except ValueError as error:
            raise _refusal(web.HTTPBadRequest, "INVALID_BODY", "broken multipart") from error
        if not upload.files:
            raise _refusal(web.HTTPBadRequest, "INVALID_FILE", "the field `file` is missing")
        return upload

    async def _write(self, part: BodyPartReader, path: Path, left: int) -> int:
        written = 0
        with path.open("wb") as file:
            while chunk := await part.read_chunk(_CHUNK_BYTES):
                written += len(chunk)
                if written > left:
                    raise self._too_large(written)
                file.write(chunk)
        return written

    def _too_large(self, size: int) -> web.HTTPException:
        body = _error_body("FILE_TOO_LARGE", f"at most {self._max_bytes} bytes are accepted")
        return web.HTTPRequestEntityTooLarge(
            self._max_bytes, size, text=body, content_type="application/json"
        )


def _legacy_parts(upload: _Upload, *, wrap: bool) -> tuple[list[Part], str]:
    """The pin's parts and default name: one bare file, or the content of the one folder."""
    named = [(_names(file_name), path) for file_name, path in upload.files]
    first = named[0][0]
    if wrap:
        return [Part(names, path) for names, path in named], first[0]
    if len(named) == 1 and len(first) == 1:
        return [Part((), named[0][1])], first[0]
    if any(len(names) < 2 or names[0] != first[0] for names, _ in named):
        text = "More than one file and/or directory was provided for pinning."
        raise _refusal(web.HTTPBadRequest, "INVALID_FILE", text)
    return [Part(names[1:], path) for names, path in named], first[0]


def _names(file_name: str) -> tuple[str, ...]:
    """A part's file name as path steps that can't leave the pin."""
    names = tuple((file_name or "file").split("/"))
    unfit = any(name in ("", ".", "..") or not name.isprintable() for name in names)
    if unfit or "\\" in file_name or len(names) > 32 or len(file_name) > 1024:
        raise _refusal(web.HTTPBadRequest, "INVALID_FILE_NAME", f"unfit: {file_name[:200]!r}")
    return names


async def _text_field(part: BodyPartReader) -> str:
    data = bytearray()
    while chunk := await part.read_chunk(_MAX_FIELD_BYTES):
        data += chunk
        if len(data) > _MAX_FIELD_BYTES:
            raise _refusal(web.HTTPBadRequest, "INVALID_BODY", f"field {part.name} is too long")
    return data.decode("utf-8")


def _json_field(fields: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(fields.get(name) or "{}")
    except ValueError as error:
        raise _refusal(web.HTTPBadRequest, "INVALID_BODY", f"{name} isn't JSON") from error
    if not isinstance(value, dict):
        raise _refusal(web.HTTPBadRequest, "INVALID_BODY", f"{name} isn't an object")
    return value


def _texts(values: Any) -> dict[str, str]:
    if not isinstance(values or {}, dict):
        raise _refusal(web.HTTPBadRequest, "INVALID_BODY", "keyvalues isn't an object")
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


def _error_body(reason: str, details: str) -> str:
    return json.dumps({"error": {"reason": reason, "details": details}})


def _refusal(kind: type[web.HTTPError], reason: str, details: str) -> web.HTTPException:
    return kind(text=_error_body(reason, details), content_type="application/json")
