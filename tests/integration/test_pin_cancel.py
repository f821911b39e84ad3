"""Leaving: cancelled transfers end in a moment, so that a daemon's shutdown is prompt."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from pathlib import Path

import pytest
from aiohttp import web
from loopback import serve

from decloud_trainer.ipfs.cid import file_cid
from decloud_trainer.ipfs.gateways import Gateways
from decloud_trainer.ipfs.pins import IpfsPins

UNDER_WAY = web.AppKey("under way", threading.Event)


async def drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(10_000):
        await response.write(b"x" * 100)
        request.app[UNDER_WAY].set()
        await asyncio.sleep(0.02)
    return response


def test_a_cancelled_fetch_leaves_no_thread_behind(tmp_path: Path) -> None:
    """The event loop closes soon after the cancellation, and no file is left."""
    (tmp_path / "x").write_bytes(random.Random(1).randbytes(300_000))
    cid = str(file_cid(tmp_path / "x"))
    folder = tmp_path / "target"
    folder.mkdir()

    app = web.Application()
    app[UNDER_WAY] = threading.Event()
    app.router.add_get("/{path:.*}", drip)

    async def run(url: str) -> None:
        pins = IpfsPins(Gateways([url]))
        task = asyncio.create_task(pins.fetch(cid, folder / "model", max_bytes=10**6))
        await asyncio.to_thread(app[UNDER_WAY].wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serve(app) as url:
        began = time.monotonic()
        asyncio.run(run(url))  # closing the loop waits for its threads
        assert time.monotonic() - began < 2
    assert os.listdir(folder) == []
