"""Pin files and folders with Pinata, by its present interface (V3) and by the older one.

Content is always pinned publicly: a validator must be able to fetch it. Uploads stream from disk.
The service's CID is checked against the local content before anyone gets to see it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from decloud_trainer.ipfs.http import check_base_url
from decloud_trainer.ipfs.uploads import (
    Multipart,
    PinClient,
    PinService,
    Upload,
    Usage,
    check_secret,
    parts_of,
    verified,
)

API_URL = "https://api.pinata.cloud"
UPLOAD_URL = "https://uploads.pinata.cloud"


class _Pinata(PinService):
    """The older interface, which takes both kinds of credentials."""

    def __init__(self, client: PinClient, api_url: str) -> None:
        self._client = client
        self._api_url = check_base_url(api_url, "the pin service")

    def check(self) -> None:
        self._get("data/testAuthentication")

    def pin(self, upload: Upload) -> str:
        fields = {
            "pinataOptions": json.dumps({"cidVersion": 1, "wrapWithDirectory": False}),
            "pinataMetadata": json.dumps({"name": upload.name}),
        }
        answer = self._send(f"{self._api_url}/pinning/pinFileToIPFS", fields, upload)
        return verified(answer.get("IpfsHash"), upload.path)

    def _held(self) -> Usage:
        answer = self._get("data/userPinnedDataTotal")
        return Usage(int(answer["pin_count"]), int(answer["pin_size_total"]))

    def _get(self, path: str) -> dict[str, Any]:
        return self._client.call("GET", f"{self._api_url}/{path}")

    def _send(self, url: str, fields: Mapping[str, str], upload: Upload) -> dict[str, Any]:
        body = Multipart(fields, parts_of(upload.path), upload.stop)
        return self._client.call("POST", url, body, answer_s=upload.answer_s)


class PinataLegacy(_Pinata):
    """Pinata with API key and secret."""

    name = "Pinata (API key)"

    def __init__(self, key: str, secret: str, *, api_url: str = API_URL) -> None:
        key = check_secret(key, "pinata_api_key")
        secret = check_secret(secret, "pinata_secret_key")
        headers = {"pinata_api_key": key, "pinata_secret_api_key": secret}
        names = "pinata_api_key and pinata_secret_key"
        super().__init__(PinClient(headers, (key, secret), names), api_url)

    def __repr__(self) -> str:
        return f"PinataLegacy(key=***, secret=***, api_url={self._api_url!r})"

    def _lists(self, cid: str) -> bool:
        rows = self._get(f"data/pinList?status=pinned&hashContains={quote(cid)}").get("rows")
        return cid in _values(rows, "ipfs_pin_hash")


class PinataV3(_Pinata):
    """Pinata with a JWT. Files go the V3 way, folders (which V3 doesn't take) the older way."""

    name = "Pinata"

    def __init__(self, jwt: str, *, api_url: str = API_URL, upload_url: str = UPLOAD_URL) -> None:
        token = check_secret(jwt, "pinata_jwt")
        headers = {"Authorization": f"Bearer {token}"}
        self._upload_url = check_base_url(upload_url, "the pin service's uploads")
        super().__init__(PinClient(headers, (token,), "pinata_jwt"), api_url)

    def __repr__(self) -> str:
        return f"PinataV3(jwt=***, upload_url={self._upload_url!r})"

    def pin(self, upload: Upload) -> str:
        if upload.path.is_dir():
            return super().pin(upload)
        fields = {"network": "public", "name": upload.name, "cid_version": "v1"}
        data = self._send(f"{self._upload_url}/v3/files", fields, upload).get("data")
        return verified(data.get("cid") if isinstance(data, dict) else None, upload.path)

    def _lists(self, cid: str) -> bool:
        data = self._get(f"v3/files/public?cid={quote(cid)}").get("data")
        return cid in _values(data.get("files") if isinstance(data, Mapping) else None, "cid")


def _values(rows: object, name: str) -> list[Any]:
    """That field of each row of an answer's list."""
    if not isinstance(rows, list):
        return []
    return [row.get(name) for row in rows if isinstance(row, dict)]
