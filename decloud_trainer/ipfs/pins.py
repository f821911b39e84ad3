"""Content for the rounds' steps: gateways one way, a pin service the other, both in threads."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Protocol

from decloud_trainer.errors import PinError, PinRefused
from decloud_trainer.ipfs.gateways import Gateways, Report
from decloud_trainer.ipfs.pinning import Usage


class PinService(Protocol):
    """`PinataV3` or `PinataLegacy`."""

    def check(self) -> None: ...

    def usage(self) -> Usage | None: ...

    def pin(self, path: Path, name: str, *, stop: threading.Event | None = None) -> str: ...


class IpfsPins:
    """Implements `rounds.ports.Pins`."""

    def __init__(
        self, gateways: Gateways, service: PinService | None, *, report: Report | None = None
    ) -> None:
        """Without a `service` fetching works and pinning is refused.

        `report` is called from the fetching thread with bytes done and bytes in all.
        """
        self._gateways = gateways
        self._service = service
        self._report = report

    async def fetch(self, cid: str, into: Path, *, max_bytes: int) -> None:
        """As the port says. A cancelled fetch ends within a moment and leaves no file."""
        stop = threading.Event()
        try:
            await asyncio.to_thread(
                self._gateways.fetch,
                cid,
                into,
                max_bytes=max_bytes,
                report=self._report,
                stop=stop,
            )
        finally:
            stop.set()

    async def pin(self, path: Path, *, name: str) -> str:
        """As the port says. A cancelled upload ends soon; what arrived whole stays pinned."""
        stop = threading.Event()
        try:
            if self._service is None:
                raise PinRefused(
                    "IPFS is not configured",
                    hint="get a key at https://app.pinata.cloud, then: "
                    "decloud-trainer config --set pinata_jwt=...",
                )
            return await asyncio.to_thread(self._service.pin, path, name, stop=stop)
        except (PinError, PinRefused) as error:
            told = type(error)(f"Failed to upload gradients: {error.message}", hint=error.hint)
            raise told from error
        finally:
            stop.set()
