"""What all pin services share: their calls, credentials, streamed uploads, errors, and the proof of
a CID."""

from __future__ import annotations

import json
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from decloud_trainer.errors import DecloudError, InvalidCid, PinError, PinRefused, SettingsError
from decloud_trainer.ipfs.cid import Cid, folder_files, is_content
from decloud_trainer.ipfs.http import open_session, read_chunks, translated

CONNECT_S = 10.0
READ_S = 20.0
UPLOAD_READ_S = 300.0  # an upload is answered after it has been hashed
_MAX_ANSWER_BYTES = 1024 * 1024
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account holds, as far as the service tells. None tells of a plan's limits."""

    files: int | None
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Upload:
    """What is to be pinned.

    Attributes:
        path: a file or a folder.
        name: for people.
        stop: setting it from another thread ends the upload soon, with a PinError.
        answer_s: how long the service may be silent; the upload itself may take as long as bytes
            advance.
    """

    path: Path
    name: str
    stop: threading.Event = field(default_factory=threading.Event)
    answer_s: float = UPLOAD_READ_S


class PinService(ABC):
    """`PinataV3`, `PinataLegacy`, `PinningApi` or `Kubo`. All calls block."""

    name: str

    @abstractmethod
    def check(self) -> None:
        """Try the credentials; raises PinRefused, PinError."""

    @abstractmethod
    def pin(self, upload: Upload) -> str:
        """The CID under which it is pinned for everybody, verified to be that of what lies here.

        Raises:
            PinRefused: the credentials, or this upload, are not accepted.
            PinError: retryable; the service can't be reached, is busy, or answers nonsense.
        """

    def usage(self) -> Usage | None:
        """What is held there; None where it isn't told, or the key may not ask. Raises PinError."""
        try:
            return self._held()
        except (PinRefused, KeyError, TypeError, ValueError):
            return None

    def confirms(self, cid: str) -> bool:
        """Whether the service itself says that this content is pinned there, for everybody."""
        try:
            return self._lists(cid)
        except DecloudError:
            return False  # it doesn't answer, or the key may not ask: no confirmation

    @abstractmethod
    def _held(self) -> Usage:
        """See `usage`; an answer that isn't as it should be may raise as it does."""

    @abstractmethod
    def _lists(self, cid: str) -> bool:
        """See `confirms`; raises PinRefused, PinError."""


@dataclass(frozen=True, slots=True)
class PinClient:
    """Requests to one pin service with its credentials; all its failures as our errors.

    Attributes:
        settings: names of the settings to look at when the credentials are refused.
    """

    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    settings: str

    def call(
        self,
        method: str,
        url: str,
        body: Multipart | None = None,
        *,
        content: Mapping[str, Any] | None = None,
        answer_s: float = READ_S,
    ) -> dict[str, Any]:
        """The answer's JSON object.

        Args:
            body: a streamed upload; otherwise `content`, sent as JSON, or nothing.
            answer_s: how long the service may be silent.

        Raises:
            PinRefused: the credentials, or this request, are not accepted.
            PinError: retryable; the service can't be reached, is busy, or answers nonsense.
        """
        return _json_object(self.text(method, url, body, content=content, answer_s=answer_s))

    def text(
        self,
        method: str,
        url: str,
        body: Multipart | None = None,
        *,
        content: Mapping[str, Any] | None = None,
        answer_s: float = READ_S,
    ) -> str:
        """As `call`, for answers of another form."""
        headers = dict(self.headers)
        data: Multipart | bytes | None = body
        if body is not None:
            headers["Content-Type"] = body.content_type
        elif content is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(content).encode()
        with open_session(url) as session, translated(PinError, "the pin service"):
            response = session.request(
                method, url, headers=headers, data=data, stream=True, timeout=(CONNECT_S, answer_s)
            )
            text = _read_text(response)
        if not 200 <= response.status_code < 300:
            raise self._error(response.status_code, text)
        return text

    def _error(self, status: int, text: str) -> DecloudError:
        said = self.printable(_reason(text))
        message = f"the pin service answered {status}{': ' if said else ''}{said}"
        if status in (401, 403):
            return PinRefused(
                message,
                hint=f"check the settings {self.settings}, and that the key may pin files",
            )
        if status in (408, 425, 429) or status >= 500:
            return PinError(message, hint="it will be tried again later")
        return PinRefused(message, hint="the upload, the plan's limits or the address is wrong")

    def printable(self, text: str) -> str:
        """A service's words: short, without control characters and without our secrets."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return "".join(c for c in text[:300] if c.isprintable())


def _json_object(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise PinError("the pin service answered something that isn't a JSON object")
    return answer


class Multipart:
    """A multipart/form-data body of known length, read from disk while it is sent."""

    def __init__(
        self,
        fields: Mapping[str, str],
        files: Sequence[tuple[str, Path]],
        stop: threading.Event,
    ) -> None:
        self._stop = stop
        self._boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        self._fields = b"".join(
            self._head(f'name="{name}"') + value.encode() + b"\r\n"
            for name, value in fields.items()
        )
        self._files = [(self._file_head(name), path, _size(path)) for name, path in files]
        self._end = f"--{self._boundary}--\r\n".encode()

    def __len__(self) -> int:
        files = sum(len(head) + size + 2 for head, _, size in self._files)
        return len(self._fields) + files + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        yield self._fields
        for head, path, size in self._files:
            yield head
            for chunk in _exactly(path, size):
                if self._stop.is_set():
                    raise PinError("the upload was stopped")
                yield chunk
            yield b"\r\n"
        yield self._end

    def _file_head(self, name: str) -> bytes:
        escaped = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        return self._head(f'name="file"; filename="{escaped}"', "application/octet-stream")

    def _head(self, disposition: str, kind: str = "") -> bytes:
        lines = [f"--{self._boundary}", f"Content-Disposition: form-data; {disposition}"]
        if kind:
            lines.append(f"Content-Type: {kind}")
        return "\r\n".join([*lines, "", ""]).encode()


def parts_of(path: Path) -> list[tuple[str, Path]]:
    """The upload's files with the names that make a folder of them, sorted."""
    if not path.is_dir():
        return [(path.name, path)]
    try:
        files = folder_files(path)
    except (DecloudError, OSError) as error:
        raise PinRefused(f"the folder {path} can't be pinned: {error}") from error
    return [("/".join(("content", *names)), file) for names, file in files]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise PinRefused(f"can't read {path}: {error.strerror}") from error


def _exactly(path: Path, size: int) -> Iterator[bytes]:
    """The file's bytes, as many as were announced."""
    try:
        with path.open("rb") as file:
            while size > 0 and (chunk := file.read(min(size, _READ_BYTES))):
                size -= len(chunk)
                yield chunk
    except OSError as error:
        raise PinRefused(f"can't read {path}: {error.strerror}") from error
    if size:
        raise PinError(f"{path} changed while it was being uploaded")


def _read_text(response: requests.Response) -> str:
    data = bytearray()
    for chunk in read_chunks(response):
        data += chunk
        if len(data) > _MAX_ANSWER_BYTES:
            raise PinError("the pin service's answer is far too long")
    return data.decode("utf-8", "replace")


def _reason(text: str) -> str:
    """What the service says of an error: its forms differ, and proxies answer with HTML."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    error = answer.get("error", answer) if isinstance(answer, dict) else ""
    if isinstance(error, dict):
        words = [error.get(name) for name in ("reason", "message", "Message", "details")]
        return ", ".join(word for word in words if isinstance(word, str))
    return error if isinstance(error, str) else ""


def verified(answered: object, path: Path) -> str:
    """The service's CID, provided that it names what lies at `path`."""
    try:
        cid = Cid.parse(answered if isinstance(answered, str) else "")
    except InvalidCid as error:
        raise PinError("the pin service answered without a usable CID") from error
    if not is_content(path, cid):
        raise PinError(
            f"the pin service says {cid}, but that isn't the CID of {path}",
            hint="the upload was damaged on its way, or the service cuts files unusually",
        )
    return str(cid)


def check_secret(text: str, setting: str) -> str:
    """The value without surrounding blanks; it must be fit for an HTTP header."""
    text = text.strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise SettingsError(
            f"{setting} is empty or has characters that no such key has",
            hint=f"set it again: decloud-trainer config --set {setting}=...",
        )
    return text
