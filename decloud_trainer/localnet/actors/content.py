"""Files by CID, as the actors fetch and pin them."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decloud_trainer.errors import ContentMismatch, NetworkError
from decloud_trainer.ipfs.gateways import Gateways
from decloud_trainer.ipfs.pinning import PinataV3
from decloud_trainer.ipfs.uploads import Upload

ATTEMPTS = 5
PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Content:
    """The local gateway and pin service."""

    gateway_url: str
    pin_api_url: str
    pin_upload_url: str
    pin_jwt: str

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Content:
        return cls(**{name: settings[name] for name in cls.__slots__})

    def fetch(self, cid: str, into: Path, *, max_bytes: int) -> Path:
        """The verified bytes of `cid` as the file `into`.

        A gateway in trouble is asked again for some seconds: it would cost a trainer the round.

        Raises the errors of `Gateways.fetch`.
        """
        gateways = Gateways([self.gateway_url])
        for _ in range(ATTEMPTS - 1):
            try:
                gateways.fetch(cid, into, max_bytes=max_bytes)
                return into
            except (NetworkError, ContentMismatch):
                time.sleep(PAUSE_S)
        gateways.fetch(cid, into, max_bytes=max_bytes)
        return into

    def pin(self, content: bytes, name: str) -> str:
        """Pin bytes as a public file; its CID."""
        service = PinataV3(self.pin_jwt, api_url=self.pin_api_url, upload_url=self.pin_upload_url)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            return service.pin(Upload(path, name))
