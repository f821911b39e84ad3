"""Uploads to the local pin services: multipart bodies, written to disk, with sound names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aiohttp import BodyPartReader, web

from decloud_trainer.localnet.pin_access import error_body, refusal
from decloud_trainer.localnet.pin_store import Part

MAX_UPLOAD_BYTES = 2 * 1024**3
_MAX_FIELD_BYTES = 64 * 1024
_MAX_PARTS = 4096
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart request: its text fields, and its files as (file name, where the bytes lie)."""

    fields: dict[str, str]
    files: list[tuple[str, Path]]


async def receive(request: web.Request, folder: Path, max_bytes: int) -> Upload:
    """Write the request's files to `folder` under names of our own."""
    size = request.content_length or 0
    if size > max_bytes + _MAX_FIELD_BYTES:
        raise _too_large(size, max_bytes)
    if request.content_type != "multipart/form-data":
        raise refusal(web.HTTPBadRequest, "INVALID_BODY", "multipart/form-data is expected")
    upload, left = Upload({}, []), max_bytes
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise refusal(web.HTTPBadRequest, "INVALID_BODY", "nested multipart")
            if part.filename is None and part.name != "file":
                upload.fields[part.name or ""] = await _text_field(part)
            elif len(upload.files) < _MAX_PARTS:
                path = folder / str(len(upload.files))
                upload.files.append((part.filename or "", path))
                left -= await _write(part, path, left, max_bytes)
            else:
                raise refusal(web.HTTPBadRequest, "INVALID_BODY", "too many parts")
    except ValueError as error:
        raise refusal(web.HTTPBadRequest, "INVALID_BODY", "broken multipart") from error
    if not upload.files:
        raise refusal(web.HTTPBadRequest, "INVALID_FILE", "the field `file` is missing")
    return upload


async def _write(part: BodyPartReader, path: Path, left: int, max_bytes: int) -> int:
    written = 0
    with path.open("wb") as file:
        while chunk := await part.read_chunk(_CHUNK_BYTES):
            written += len(chunk)
            if written > left:
                raise _too_large(written, max_bytes)
            file.write(chunk)
    return written


def _too_large(size: int, max_bytes: int) -> web.HTTPException:
    body = error_body("FILE_TOO_LARGE", f"at most {max_bytes} bytes are accepted")
    return web.HTTPRequestEntityTooLarge(
        max_bytes, size, text=body, content_type="application/json"
    )


def parts_of(upload: Upload, *, wrap: bool) -> tuple[list[Part], str]:
    """The pin's parts and default name: one bare file, or the content of the one folder."""
    named = [(names_of(file_name), path) for file_name, path in upload.files]
    first = named[0][0]
    if wrap:
        return [Part(names, path) for names, path in named], first[0]
    if len(named) == 1 and len(first) == 1:
        return [Part((), named[0][1])], first[0]
    if any(len(names) < 2 or names[0] != first[0] for names, _ in named):
        text = "More than one file and/or directory was provided for pinning."
        raise refusal(web.HTTPBadRequest, "INVALID_FILE", text)
    return [Part(names[1:], path) for names, path in named], first[0]


def names_of(file_name: str) -> tuple[str, ...]:
    """A part's file name as path steps that can't leave the pin."""
    names = tuple((file_name or "file").split("/"))
    unfit = any(name in ("", ".", "..") or not name.isprintable() for name in names)
    if unfit or "\\" in file_name or len(names) > 32 or len(file_name) > 1024:
        raise refusal(web.HTTPBadRequest, "INVALID_FILE_NAME", f"unfit: {file_name[:200]!r}")
    return names


async def _text_field(part: BodyPartReader) -> str:
    data = bytearray()
    while chunk := await part.read_chunk(_MAX_FIELD_BYTES):
        data += chunk
        if len(data) > _MAX_FIELD_BYTES:
            raise refusal(web.HTTPBadRequest, "INVALID_BODY", f"field {part.name} is too long")
    return data.decode("utf-8")
