"""Can others fetch what was pinned? Asked of the gateways, the way a validator would."""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial
from pathlib import Path

from decloud_trainer.errors import GatewayError
from decloud_trainer.ipfs.cid import Cid
from decloud_trainer.ipfs.gateway import Answer, Gateway, Patience
from decloud_trainer.ipfs.race import Race

# A gateway that has to look for content is silent for a while. No waits: it is asked again.
PATIENCE = Patience(connect_s=5.0, read_s=15.0, wait_s=0.0)
# The file's end is compared: it lies in the last of its blocks, below the root.
_TAIL_BYTES = 64 * 1024
_MAX_ROOT_BYTES = 2 * 1024 * 1024
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
_LOOK_S = 0.1


def wait_until_delivered(
    urls: tuple[str, ...], cid: Cid, path: Path, *, within_s: float, stop: threading.Event
) -> bool:
    """Ask all gateways, again and again, until one delivers what lies at `path`.

    Returns:
        False when none has within the time, or `stop` was set.
    """
    until = time.monotonic() + within_s
    race: Race[bool] = Race()
    settled = threading.Event()
    pauses = dict.fromkeys(urls, 0.0)  # before each is asked again
    due = dict.fromkeys(urls, 0.0)
    try:
        while not stop.is_set():
            now = time.monotonic()
            for url in urls:
                if url not in race.running and due[url] <= now:
                    race.start(url, partial(_delivers, url, cid, path, stop, settled))
            ended = race.wait(min(_LOOK_S, max(until - now, 0.001)))
            if ended is not None:
                url, outcome = ended
                if outcome is True:
                    return True
                pauses[url] = min(max(2 * pauses[url], _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
                due[url] = time.monotonic() + pauses[url]
            if time.monotonic() >= until:
                return False
        return False
    finally:
        settled.set()


def _delivers(
    url: str, cid: Cid, path: Path, stop: threading.Event, settled: threading.Event
) -> bool:
    """Whether the gateway has, under that CID, what lies at `path`."""
    with contextlib.closing(Gateway(url, PATIENCE, stop, settled)) as gateway:
        try:
            if path.is_dir():
                accept = {"Accept": "application/vnd.ipld.raw"}
                with gateway.open(cid, accept, "?format=raw") as answer:
                    answer.require(200)
                    return cid.names(_limited(answer))
            size = path.stat().st_size
            headers = {"Range": f"bytes=-{_TAIL_BYTES}"} if size > _TAIL_BYTES else {}
            with gateway.open(cid, headers) as answer:
                answer.require(200, 206)
                start = size - _TAIL_BYTES if answer.response.status_code == 206 else 0
                return _equals(answer, path, max(start, 0))
        except OSError as error:
            raise GatewayError(f"can't read {path}: {error.strerror}") from error


def _limited(answer: Answer) -> bytes:
    data = bytearray()
    for chunk in answer.chunks():
        data += chunk
        if len(data) > _MAX_ROOT_BYTES:
            raise GatewayError("the block is far too long")
    return bytes(data)


def _equals(answer: Answer, path: Path, start: int) -> bool:
    """Whether the answer is the file from `start` on, to the byte."""
    with path.open("rb") as file:
        file.seek(start)
        for chunk in answer.chunks():
            if file.read(len(chunk)) != chunk:
                return False
        return not file.read(1)
