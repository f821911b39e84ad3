"""Content for the rounds' steps: gateways one way, pin services the other, both in threads."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from decloud_trainer.errors import DecloudError, PinError, PinRefused
from decloud_trainer.faultpoints import reach
from decloud_trainer.ipfs.availability import wait_until_delivered
from decloud_trainer.ipfs.cid import Cid, is_content
from decloud_trainer.ipfs.gateways import Gateways
from decloud_trainer.ipfs.transfer import Report
from decloud_trainer.ipfs.uploads import UPLOAD_READ_S, PinService, Upload

log = logging.getLogger(__name__)

# However little time is left, a service gets so much to answer.
_LEAST_ANSWER_S = 5.0
# Uploads that were taken and not seen are known of so many; a round may end before its next try.
_MOST_TAKEN = 100


class IpfsPins:
    """Implements `rounds.ports.Pins`."""

    def __init__(
        self,
        gateways: Gateways,
        services: Sequence[PinService] = (),
        *,
        report: Report | None = None,
        availability_s: float = 60.0,
    ) -> None:
        """Without any of the `services`, which are tried in order, pinning is refused.

        Args:
            report: called from a fetching thread with bytes done and bytes in all.
            availability_s: how long to wait for a gateway to have what was pinned; 0: don't ask.
        """
        self._gateways = gateways
        self._services = tuple(services)
        self._report = report
        self._availability_s = availability_s
        # Uploads that were taken but not seen on a gateway yet: (service, path) -> CID.
        self._taken: dict[tuple[str, Path], str] = {}

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

    async def pin(self, path: Path, *, name: str, within_s: float | None = None) -> str:
        """As the port says. A cancelled upload ends soon; what arrived whole stays pinned."""
        stop = threading.Event()
        try:
            cid = await asyncio.to_thread(self._pin, path, name, within_s, stop)
            reach("pin.seen")
            return cid
        except (PinError, PinRefused) as error:
            told = type(error)(f"Failed to upload gradients: {error.message}", hint=error.hint)
            raise told from error
        finally:
            stop.set()

    def _pin(self, path: Path, name: str, within_s: float | None, stop: threading.Event) -> str:
        if not self._services:
            raise PinRefused(
                "IPFS is not configured",
                hint="get a key at https://app.pinata.cloud, then: "
                "decloud-trainer config --set pinata_jwt=...",
            )
        until = None if within_s is None else time.monotonic() + within_s
        failures: list[tuple[str, DecloudError]] = []
        for place, service in enumerate(self._services):
            # Half of an even share of the time for the answer, half for the gateways.
            part_s = None
            if until is not None:
                part_s = (until - time.monotonic()) / (len(self._services) - place) / 2
            try:
                return self._pin_with(service, path, name, part_s, stop)
            except (PinError, PinRefused) as error:
                if stop.is_set():
                    raise
                log.info("%s did not pin %s: %s", service.name, path.name, error.message)
                failures.append((service.name, error))
        raise _told(failures)

    def _pin_with(
        self,
        service: PinService,
        path: Path,
        name: str,
        part_s: float | None,
        stop: threading.Event,
    ) -> str:
        """Upload unless that was done before; the CID once there is proof that others get it."""
        answer_s, availability_s = UPLOAD_READ_S, self._availability_s
        if part_s is not None:
            answer_s = min(answer_s, max(part_s, _LEAST_ANSWER_S))
            availability_s = min(availability_s, max(part_s, 0.0))
        # What was taken the last time may only need longer to be seen: once that is believed.
        cid = self._taken.pop((service.name, path), "")
        is_new = not cid or not is_content(path, Cid.parse(cid))
        if is_new:
            reach("pin.begin")
            cid = service.pin(Upload(path, name, stop, answer_s))
            reach("pin.replied")
        if self._availability_s <= 0:
            return cid
        found = wait_until_delivered(
            self._gateways.urls, Cid.parse(cid), path, within_s=availability_s, stop=stop
        )
        if stop.is_set():
            raise PinError("the upload was stopped")
        if not found and not service.confirms(cid):
            if is_new:
                self._taken[service.name, path] = cid
                while len(self._taken) > _MOST_TAKEN:
                    self._taken.pop(next(iter(self._taken)), None)
            raise PinError(
                f"{cid} was taken, but after {availability_s:.0f} s no gateway delivers it and "
                "the service doesn't confirm that it is pinned",
                hint="it will be asked for again; availability_wait=0 submits without asking",
            )
        if not found:
            log.warning("%s confirms %s, no gateway delivers it yet", service.name, cid)
        return cid


def _told(failures: Sequence[tuple[str, DecloudError]]) -> DecloudError:
    """All services' failures as one, worth another try if one of them is."""
    if len(failures) == 1:
        return failures[0][1]
    passing = [error for _, error in failures if isinstance(error, PinError)]
    text = "; ".join(f"{name}: {error.message}" for name, error in failures)
    if passing:
        return PinError(text, hint=passing[0].hint)
    return PinRefused(text, hint=failures[0][1].hint)
