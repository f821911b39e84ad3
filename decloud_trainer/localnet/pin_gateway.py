"""An IPFS gateway over the local block store: the path gateway specification, small.

Files, ranges of them, folders, single blocks (`?format=raw`) and CAR files (`?format=car`).
"""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
from collections.abc import Iterator

from aiohttp import hdrs, web

from decloud_trainer.errors import InvalidCid
from decloud_trainer.ipfs.cid import Cid
from decloud_trainer.ipfs.unixfs import Kind, Node
from decloud_trainer.localnet.pin_access import Faults
from decloud_trainer.localnet.pin_store import Blocks, NotPinned

_RAW, _CAR = "application/vnd.ipld.raw", "application/vnd.ipld.car"


class Gateway:
    def __init__(self, blocks: Blocks, faults: Faults | None) -> None:
        self._blocks = blocks
        self._faults = faults

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD for ``/ipfs/<cid>[/<path>]``."""
        names = [name for name in request.match_info.get("path", "").split("/") if name]
        try:
            root = Cid.parse(request.match_info["cid"])
            cid = await asyncio.to_thread(self._blocks.resolve, root, names)
            node = await asyncio.to_thread(self._blocks.node, cid)
        except InvalidCid as error:
            raise web.HTTPBadRequest(text=f"{error.message}\n") from error
        except NotPinned as error:
            raise web.HTTPNotFound(text=f"{error}\n") from error
        form = _format(request)
        etag = f'"{cid}.{form}"' if form else f'"{cid}"'
        headers = {
            "X-Ipfs-Path": "/".join(["/ipfs", str(root), *names]),
            "X-Content-Type-Options": "nosniff",
            hdrs.CACHE_CONTROL: "public, max-age=29030400, immutable",
            hdrs.ETAG: etag,
        }
        if request.headers.get(hdrs.IF_NONE_MATCH) == etag:
            return web.Response(status=304, headers=headers)
        if form == "raw":
            block = await asyncio.to_thread(self._blocks.get, cid)
            headers[hdrs.CONTENT_TYPE] = _RAW
            return await self._send(request, 200, headers, iter([block]), len(block))
        if form == "car":
            headers[hdrs.CONTENT_TYPE] = f"{_CAR}; version=1"
            return await self._send(request, 200, headers, self._blocks.car(cid), None)
        if node.kind is Kind.DIRECTORY:
            return web.json_response(_listing(cid, node), headers=headers)
        guessed = mimetypes.guess_type(names[-1])[0] if names else None
        headers[hdrs.CONTENT_TYPE] = guessed or "application/octet-stream"
        return await self._send_file(request, headers, cid, node.size)

    async def _send_file(
        self, request: web.Request, headers: dict[str, str], cid: Cid, size: int
    ) -> web.StreamResponse:
        headers[hdrs.ACCEPT_RANGES] = "bytes"
        status, start, stop = 200, 0, size
        wanted = _range(request, headers[hdrs.ETAG], size)
        if wanted is not None:
            status, (start, stop) = 206, wanted
            if start >= stop:
                unsatisfied = {hdrs.CONTENT_RANGE: f"bytes */{size}"}
                raise web.HTTPRequestRangeNotSatisfiable(headers=unsatisfied)
            headers[hdrs.CONTENT_RANGE] = f"bytes {start}-{stop - 1}/{size}"
        chunks = self._blocks.read(cid, start, stop)
        return await self._send(request, status, headers, chunks, stop - start)

    async def _send(
        self,
        request: web.Request,
        status: int,
        headers: dict[str, str],
        chunks: Iterator[bytes],
        length: int | None,
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = length
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):  # the reader may go at any time
            if request.method == hdrs.METH_GET:
                wrong = self._faults is not None and self._faults.take("gateway_wrong_bytes")
                while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                    await response.write(_flip(chunk) if wrong and chunk else chunk)
                    wrong = False
            await response.write_eof()
        return response


def _format(request: web.Request) -> str:
    """``raw``, ``car``, or nothing for the plain content; the query wins over the header."""
    asked = request.query.get("format", "")
    accept = request.headers.get(hdrs.ACCEPT, "")
    if asked == "raw" or (not asked and _RAW in accept):
        return "raw"
    if asked == "car" or (not asked and _CAR in accept):
        return "car"
    if asked:
        raise web.HTTPBadRequest(text=f"format {asked[:40]!r} is not served here\n")
    return ""


def _range(request: web.Request, etag: str, size: int) -> tuple[int, int] | None:
    """The one range asked for as [start, stop), possibly empty; None for the whole file.

    As HTTP wants it, a header that can't be understood, or several ranges, mean the whole file.
    """
    if request.headers.get(hdrs.IF_RANGE, etag) != etag:
        return None
    try:
        asked = request.http_range
    except ValueError:
        return None
    if asked.start is None and asked.stop is None:
        return None
    start = asked.start or 0
    if start < 0:
        return max(size + start, 0), size
    return start, size if asked.stop is None else min(asked.stop, size)


def _listing(cid: Cid, node: Node) -> dict[str, object]:
    entries = [
        {"name": link.name, "cid": str(Cid.from_bytes(link.cid)), "size": link.total}
        for link in node.links
    ]
    return {"cid": str(cid), "entries": entries}


def _flip(chunk: bytes) -> bytes:
    return bytes([chunk[0] ^ 1]) + chunk[1:]
