"""Checks of the IPFS side: the pin service takes uploads, gateways deliver what they should."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from decloud_trainer.checks.model import Check, Verdict, failed, passed, refused, warned
from decloud_trainer.errors import DecloudError
from decloud_trainer.ipfs.cid import Cid
from decloud_trainer.ipfs.gateway import Patience
from decloud_trainer.ipfs.gateways import Gateways
from decloud_trainer.ipfs.uploads import PinService, Upload
from decloud_trainer.services import pin_services_of, services
from decloud_trainer.settings import Settings

PATIENCE: Final = Patience(connect_s=5.0, read_s=5.0, wait_s=0.0)
LONGEST_S: Final = 15.0  # for one gateway: the doctor's patience, not the trainer's
# A file that has been on IPFS since its first days: "hello world" and a line feed.
HELLO: Final = b"hello world\n"
HELLO_CID: Final = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"
MAX_BYTES: Final = 64 * 1024 * 1024


async def pin_checks(settings: Settings, *, upload: bool = False) -> list[Check]:
    """Does each pin service know us, and what do we have there? With `upload`, does it take a
    small file?

    One that doesn't is a failure only when no other does.
    """
    services = pin_services_of(settings)
    if not services:
        return [
            failed(
                "pin service",
                "none is configured: gradients can't be uploaded",
                "get a key at https://app.pinata.cloud/keys, then: "
                "decloud-trainer config --set pinata_jwt=-",
            )
        ]
    checks = await asyncio.gather(*(_pin_check(service, upload) for service in services))
    if len(checks) > 1:
        named = zip(checks, services, strict=True)
        checks = [
            dataclasses.replace(check, name=f"{check.name} {service.name}")
            for check, service in named
        ]
    return _spared(checks, "the next pin service is used instead")


async def _pin_check(service: PinService, upload: bool) -> Check:
    name = "pin service"
    try:
        began = time.monotonic()
        await asyncio.to_thread(service.check)
        ms = _since_ms(began)
        usage = await asyncio.to_thread(service.usage)
        text, numbers = f"accepts the credentials in {ms} ms", {"latency_ms": ms}
        if usage is not None:
            held = []
            if usage.files is not None:
                held.append(f"{usage.files:,}")
                numbers["pinned_files"] = usage.files
            if usage.bytes is not None:
                held.append(f"{usage.bytes / 1e6:,.1f} MB")
                numbers["pinned_bytes"] = usage.bytes
            text += f"; pinned there: {', '.join(held)}"
        if upload:
            await asyncio.to_thread(_upload, service)
            text += "; an upload was accepted"
    except DecloudError as error:
        return refused(name, error)
    return passed(name, text, **numbers)


def _spared(checks: Sequence[Check], instead: str) -> list[Check]:
    """Failures as warnings where another one does the work."""
    if not any(check.verdict is Verdict.PASS for check in checks):
        return list(checks)
    return [
        warned(check.name, check.text, check.fix or instead)
        if check.verdict is Verdict.FAIL
        else check
        for check in checks
    ]


def _upload(service: PinService) -> None:
    with tempfile.TemporaryDirectory(prefix="decloud-doctor-") as folder:
        path = Path(folder) / "hello.txt"
        path.write_bytes(HELLO)
        service.pin(Upload(path, "decloud-trainer doctor"))


async def gateway_checks(settings: Settings, cid: str | None) -> list[Check]:
    """Does each gateway deliver that content, and is it the right one? All are asked at once.

    One that doesn't is a failure only when no other does.
    """
    urls = services(settings).gateways
    if cid is None:
        return [warned("gateways", "not known: there is no round whose model could be fetched")]
    checks = await asyncio.gather(*(_gateway_check(url, cid) for url in urls))
    return _spared(checks, "the next gateway is asked instead")


async def _gateway_check(url: str, cid: str) -> Check:
    name = f"gateway {urlsplit(url).netloc.rpartition('@')[2]}"
    began = time.monotonic()
    try:
        stop = threading.Event()
        late = asyncio.get_running_loop().call_later(LONGEST_S, stop.set)
        try:
            size = await asyncio.to_thread(_fetch, url, cid, stop)
        finally:
            late.cancel()
            stop.set()
    except DecloudError as error:
        # A single gateway's reason stands behind its address.
        reason = error.message.partition(f"{url}: ")[2] or error.message
        fix = "check the connection; or ask others: decloud-trainer config --set gateways=https://"
        return failed(name, reason, f"{fix}...")
    ms = _since_ms(began)
    return passed(name, f"{_size(size)} in {ms} ms, verified", latency_ms=ms, bytes=size)


def _fetch(url: str, cid: str, stop: threading.Event) -> int:
    """The verified content's bytes."""
    with tempfile.TemporaryDirectory(prefix="decloud-doctor-") as folder:
        path = Path(folder) / "content"
        gateways = Gateways((url,), PATIENCE)
        gateways.fetch(str(Cid.parse(cid)), path, max_bytes=MAX_BYTES, stop=stop)
        return path.stat().st_size


def _size(size: int) -> str:
    return f"{size:,} bytes" if size < 10_000 else f"{size / 1e6:,.1f} MB"


def _since_ms(began: float) -> int:
    return int((time.monotonic() - began) * 1000) + 1
