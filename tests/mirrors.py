"""A loopback mirror that can break off, count, lie and be slow on command."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import md5

TAG = '"one"'


@dataclass
class Mirror:
    """What a mirror has, how it behaves, and what it was asked.

    Attributes:
        files: path -> bytes.
        cut_after: an answer breaks off after so many bytes; None = never. Used once each.
        statuses: answered in turn before anything is given.
        ranges: whether parts can be asked for.
        asked: the Range header of each request, empty for the whole.
        served: bytes of each answer.
        gate: answers wait for it.
    """

    files: dict[str, bytes]
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    tag: str = TAG
    asked: list[str] = field(default_factory=list)
    served: list[int] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def sum_of(self, name: str) -> str:
        return f"md5:{md5(self.files[name]).hexdigest()}"


@contextlib.contextmanager
def running(mirror: Mirror) -> Iterator[Mirror]:
    """Serve it; its address ends with a slash."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # a client has hung up, as some tests do
                super().handle()

        def do_GET(self) -> None:
            mirror.gate.wait(20)
            asked = self.headers.get("Range", "")
            mirror.asked.append(asked)
            status = mirror.statuses.pop(0) if mirror.statuses else 200
            data = mirror.files.get(self.path.lstrip("/"))
            if data is None or status != 200:
                self.send_error(status if status != 200 else 404)
                return
            start = self._start(asked, len(data))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", mirror.tag)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            body = data[start:]
            if mirror.cut_after:
                body = body[: mirror.cut_after.pop(0)]
            mirror.served.append(len(body))
            self.wfile.write(body)

        def _start(self, asked: str, size: int) -> int:
            found = re.fullmatch(r"bytes=(\d+)-", asked)
            same = self.headers.get("If-Range", mirror.tag) == mirror.tag
            return int(found[1]) if found and mirror.ranges and same and int(found[1]) < size else 0

    mirror.gate.set()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    mirror.address = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield mirror
    finally:
        mirror.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
