"""Pin files and folders with Pinata, by its present interface (V3) and by the older one.

Content is always pinned publicly: a validator must be able to fetch it. Uploads stream from disk.
The service's CID is checked against the local content before anyone gets to see it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from decloud_trainer.errors import DecloudError, PinRefused
from decloud_trainer.ipfs.http import check_base_url
from decloud_trainer.ipfs.uploads import (
    UPLOAD_READ_S,
    Multipart,
    PinClient,
    Usage,
    check_secret,
    parts_of,
    verified,
)

API_URL = "https://api.pinata.cloud"
UPLOAD_URL = "https://uploads.pinata.cloud"


class PinataV3:
    """Pinata with a JWT. Files go the V3 way, folders (which V3 doesn't take) the older way."""

    name = "Pinata"

    def __init__(self, jwt: str, *, api_url: str = API_URL, upload_url: str = UPLOAD_URL) -> None:
        token = check_secret(jwt, "pinata_jwt")
        headers = {"Authorization": f"Bearer {token}"}
        self._api_url = check_base_url(api_url, "the pin service")
        self._upload_url = check_base_url(upload_url, "the pin service's uploads")
        self._client = PinClient(headers, (token,), "pinata_jwt")

    def __repr__(self) -> str:
        return f"PinataV3(jwt=***, upload_url={self._upload_url!r})"

    def check(self) -> None:
        """Try the credentials; raises PinRefused, PinError."""
        _check(self._client, self._api_url)

    def usage(self) -> Usage | None:
        """What the account holds; None where the key may not ask. Raises PinError."""
        return _usage(self._client, self._api_url)

    def confirms(self, cid: str) -> bool:
        """Whether the service says that it has this content pinned, publicly."""
        try:
            url = f"{self._api_url}/v3/files/public?cid={quote(cid)}"
            data = self._client.call("GET", url).get("data")
        except DecloudError:
            return False  # it doesn't answer, or the key may not ask: no confirmation
        return cid in _values(data.get("files") if isinstance(data, Mapping) else None, "cid")

    def pin(
        self,
        path: Path,
        name: str,
        *,
        stop: threading.Event | None = None,
        answer_s: float = UPLOAD_READ_S,
    ) -> str:
        """Pin a file or folder publicly under a name for people; its verified CID.

        Setting `stop` from another thread ends an upload soon, with a PinError. The service may
        be silent for `answer_s`; the upload itself may take as long as bytes advance.

        Raises:
            PinRefused: the credentials, or this upload, are not accepted.
            PinError: retryable; the service can't be reached, is busy, or answers nonsense.
        """
        if path.is_dir():
            return _pin_legacy(self._client, self._api_url, path, name, stop, answer_s)
        fields = {"network": "public", "name": name, "cid_version": "v1"}
        body = Multipart(fields, [(path.name, path)], stop)
        url = f"{self._upload_url}/v3/files"
        data = self._client.call("POST", url, body, answer_s=answer_s).get("data")
        return verified(data.get("cid") if isinstance(data, dict) else None, path)


class PinataLegacy:
    """Pinata with API key and secret: the older interface, for files and folders."""

    name = "Pinata (API key)"

    def __init__(self, key: str, secret: str, *, api_url: str = API_URL) -> None:
        key = check_secret(key, "pinata_api_key")
        secret = check_secret(secret, "pinata_secret_key")
        headers = {"pinata_api_key": key, "pinata_secret_api_key": secret}
        self._api_url = check_base_url(api_url, "the pin service")
        names = "pinata_api_key and pinata_secret_key"
        self._client = PinClient(headers, (key, secret), names)

    def __repr__(self) -> str:
        return f"PinataLegacy(key=***, secret=***, api_url={self._api_url!r})"

    def check(self) -> None:
        """Try the credentials; raises PinRefused, PinError."""
        _check(self._client, self._api_url)

    def usage(self) -> Usage | None:
        """What the account holds; None where the key may not ask. Raises PinError."""
        return _usage(self._client, self._api_url)

    def confirms(self, cid: str) -> bool:
        """As `PinataV3.confirms`."""
        try:
            url = f"{self._api_url}/data/pinList?status=pinned&hashContains={quote(cid)}"
            return cid in _values(self._client.call("GET", url).get("rows"), "ipfs_pin_hash")
        except DecloudError:
            return False

    def pin(
        self,
        path: Path,
        name: str,
        *,
        stop: threading.Event | None = None,
        answer_s: float = UPLOAD_READ_S,
    ) -> str:
        """As `PinataV3.pin`."""
        return _pin_legacy(self._client, self._api_url, path, name, stop, answer_s)


def _check(client: PinClient, api_url: str) -> None:
    client.call("GET", f"{api_url}/data/testAuthentication")


def _usage(client: PinClient, api_url: str) -> Usage | None:
    try:
        answer = client.call("GET", f"{api_url}/data/userPinnedDataTotal")
        return Usage(int(answer["pin_count"]), int(answer["pin_size_total"]))
    except (PinRefused, KeyError, TypeError, ValueError):
        return None  # keys can be limited to uploads


def _pin_legacy(
    client: PinClient,
    api_url: str,
    path: Path,
    name: str,
    stop: threading.Event | None,
    answer_s: float,
) -> str:
    fields = {
        "pinataOptions": json.dumps({"cidVersion": 1, "wrapWithDirectory": False}),
        "pinataMetadata": json.dumps({"name": name}),
    }
    body = Multipart(fields, parts_of(path), stop)
    url = f"{api_url}/pinning/pinFileToIPFS"
    return verified(client.call("POST", url, body, answer_s=answer_s).get("IpfsHash"), path)


def _values(rows: object, name: str) -> list[Any]:
    """That field of each row of an answer's list."""
    if not isinstance(rows, list):
        return []
    return [row.get(name) for row in rows if isinstance(row, dict)]
