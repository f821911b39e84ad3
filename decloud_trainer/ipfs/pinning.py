"""Pin files and folders with Pinata, by its present interface (V3) and by the older one.

Content is always pinned publicly: a validator must be able to fetch it. Uploads stream from disk.
The service's CID is checked against the local content before anyone gets to see it.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from decloud_trainer.errors import DecloudError, InvalidCid, PinError, PinRefused, SettingsError
from decloud_trainer.ipfs.cid import Cid, folder_files, is_content
from decloud_trainer.ipfs.http import check_base_url, open_session, read_chunks, translated

API_URL = "https://api.pinata.cloud"
UPLOAD_URL = "https://uploads.pinata.cloud"
_CONNECT_S = 10.0
_READ_S, _UPLOAD_READ_S = 20.0, 300.0  # an upload is answered after it has been hashed
_MAX_ANSWER_BYTES = 1024 * 1024
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account holds. The interface doesn't tell the plan's limits."""

    files: int
    bytes: int


class PinataV3:
    """Pinata with a JWT. Files go the V3 way, folders (which V3 doesn't take) the older way."""

    def __init__(self, jwt: str, *, api_url: str = API_URL, upload_url: str = UPLOAD_URL) -> None:
        token = _check_secret(jwt, "pinata_jwt")
        headers = {"Authorization": f"Bearer {token}"}
        api_url = check_base_url(api_url, "the pin service")
        self._upload_url = check_base_url(upload_url, "the pin service's uploads")
        self._account = _Account(api_url, headers, (token,), "pinata_jwt")

    def __repr__(self) -> str:
        return f"PinataV3(jwt=***, upload_url={self._upload_url!r})"

    def check(self) -> None:
        """Try the credentials; raises PinRefused, PinError."""
        self._account.check()

    def usage(self) -> Usage | None:
        """What the account holds; None where the key may not ask. Raises PinError."""
        return self._account.usage()

    def pin(self, path: Path, name: str, *, stop: threading.Event | None = None) -> str:
        """Pin a file or folder publicly under a name for people; its verified CID.

        Setting `stop` from another thread ends an upload soon, with a PinError.

        Raises:
            PinRefused: the credentials, or this upload, are not accepted.
            PinError: retryable; the service can't be reached, is busy, or answers nonsense.
        """
        if path.is_dir():
            return self._account.pin_legacy(path, name, stop)
        fields = {"network": "public", "name": name, "cid_version": "v1"}
        body = _Multipart(fields, [(path.name, path)], stop)
        answer = self._account.call("POST", f"{self._upload_url}/v3/files", body)
        data = answer.get("data")
        return _verified(data.get("cid") if isinstance(data, dict) else None, path)


class PinataLegacy:
    """Pinata with API key and secret: the older interface, for files and folders."""

    def __init__(self, key: str, secret: str, *, api_url: str = API_URL) -> None:
        key = _check_secret(key, "pinata_api_key")
        secret = _check_secret(secret, "pinata_secret_key")
        headers = {"pinata_api_key": key, "pinata_secret_api_key": secret}
        api_url = check_base_url(api_url, "the pin service")
        names = "pinata_api_key and pinata_secret_key"
        self._account = _Account(api_url, headers, (key, secret), names)

    def __repr__(self) -> str:
        return f"PinataLegacy(key=***, secret=***, api_url={self._account.api_url!r})"

    def check(self) -> None:
        """Try the credentials; raises PinRefused, PinError."""
        self._account.check()

    def usage(self) -> Usage | None:
        """What the account holds; None where the key may not ask. Raises PinError."""
        return self._account.usage()

    def pin(self, path: Path, name: str, *, stop: threading.Event | None = None) -> str:
        """As `PinataV3.pin`."""
        return self._account.pin_legacy(path, name, stop)


@dataclass(frozen=True, slots=True)
class _Account:
    """The older interface with either kind of credentials, and the errors of both interfaces."""

    api_url: str
    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    settings: str

    def check(self) -> None:
        self.call("GET", f"{self.api_url}/data/testAuthentication")

    def usage(self) -> Usage | None:
        try:
            answer = self.call("GET", f"{self.api_url}/data/userPinnedDataTotal")
            return Usage(int(answer["pin_count"]), int(answer["pin_size_total"]))
        except (PinRefused, KeyError, TypeError, ValueError):
            return None  # keys can be limited to uploads

    def pin_legacy(self, path: Path, name: str, stop: threading.Event | None) -> str:
        fields = {
            "pinataOptions": json.dumps({"cidVersion": 1, "wrapWithDirectory": False}),
            "pinataMetadata": json.dumps({"name": name}),
        }
        body = _Multipart(fields, _parts(path), stop)
        answer = self.call("POST", f"{self.api_url}/pinning/pinFileToIPFS", body)
        return _verified(answer.get("IpfsHash"), path)

    def call(self, method: str, url: str, body: _Multipart | None = None) -> dict[str, Any]:
        """The answer's JSON object."""
        headers = dict(self.headers)
        if body is not None:
            headers["Content-Type"] = body.content_type
        with open_session(url) as session, translated(PinError, "the pin service"):
            response = session.request(
                method,
                url,
                headers=headers,
                data=body,
                stream=True,
                timeout=(_CONNECT_S, _READ_S if body is None else _UPLOAD_READ_S),
            )
            text = _read_text(response)
        if not 200 <= response.status_code < 300:
            raise self._error(response.status_code, text)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise PinError("the pin service answered something that isn't a JSON object")
        return answer

    def _error(self, status: int, text: str) -> DecloudError:
        said = self._without_secrets(_reason(text))
        message = f"the pin service answered {status}{': ' if said else ''}{said}"
        if status in (401, 403):
            return PinRefused(
                message,
                hint=f"check the settings {self.settings}, and that the key may pin files",
            )
        if status in (408, 425, 429) or status >= 500:
            return PinError(message, hint="it will be tried again later")
        return PinRefused(message, hint="the upload, the plan's limits or the address is wrong")

    def _without_secrets(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return "".join(c for c in text[:300] if c.isprintable())


class _Multipart:
    """A multipart/form-data body of known length, read from disk while it is sent."""

    def __init__(
        self,
        fields: Mapping[str, str],
        files: Sequence[tuple[str, Path]],
        stop: threading.Event | None,
    ) -> None:
        self._stop = stop or threading.Event()
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


def _parts(path: Path) -> list[tuple[str, Path]]:
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
    except ValueError:
        return ""
    error = answer.get("error", answer) if isinstance(answer, dict) else ""
    if isinstance(error, dict):
        words = [error.get(name) for name in ("reason", "message", "details")]
        return ", ".join(word for word in words if isinstance(word, str))
    return error if isinstance(error, str) else ""


def _verified(answered: object, path: Path) -> str:
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


def _check_secret(text: str, setting: str) -> str:
    """The value without surrounding blanks; it must be fit for an HTTP header."""
    text = text.strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise SettingsError(
            f"{setting} is empty or has characters that no such key has",
            hint=f"set it again: decloud-trainer config --set {setting}=...",
        )
    return text
