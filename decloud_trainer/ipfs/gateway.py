"""A conversation with one IPFS gateway: time-outs, redirects, waits, raw answers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urljoin

import requests

from decloud_trainer.errors import ContentMismatch, GatewayError, SettingsError
from decloud_trainer.ipfs.cid import Cid
from decloud_trainer.ipfs.http import (
    is_loopback,
    is_permitted,
    open_session,
    read_chunks,
    translated,
)
from decloud_trainer.retryafter import retry_after_s

_MAX_REDIRECTS = 5
_MAX_LENGTH_DIGITS = 20  # Python refuses to read numbers of thousands of digits
_MAX_WAITS = 3  # times that one request waits as Retry-After asks


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one gateway may take.

    Attributes:
        connect_s: to accept a connection.
        read_s: of silence between two bytes; as long as bytes come, it may take its time.
        hedge_s: before the next gateway is asked as well, while hardly a byte comes.
        wait_s: longest `Retry-After` that is waited for.
    """

    connect_s: float = 10.0
    read_s: float = 60.0
    hedge_s: float = 2.0
    wait_s: float = 30.0

    def __post_init__(self) -> None:
        if min(self.connect_s, self.read_s, self.hedge_s) <= 0 or self.wait_s < 0:
            raise SettingsError("the time limits for gateways must be positive")


class Gateway:
    """One gateway during one fetch: a session, redirects and waits.

    Setting `stop` (the caller wants no more) or `settled` (another gateway was faster) ends a
    conversation at its next byte or time-out, with a GatewayError.
    """

    def __init__(
        self,
        url: str,
        patience: Patience,
        stop: threading.Event,
        settled: threading.Event | None = None,
    ) -> None:
        self._url = url
        self._patience = patience
        self._stop = stop
        self._settled = settled or threading.Event()
        self._session = open_session(url)

    def close(self) -> None:
        self._session.close()

    @contextlib.contextmanager
    def open(self, cid: Cid, headers: dict[str, str], query: str = "") -> Iterator[Answer]:
        """Any answer that isn't a redirect; GatewayError where there is none."""
        response = self._request(f"{self._url}/ipfs/{cid}{query}", headers)
        try:
            yield Answer(response, self)
        finally:
            response.close()

    def check_wanted(self) -> None:
        if self._stop.is_set():
            raise GatewayError("the fetch was stopped")
        if self._settled.is_set():
            raise GatewayError("another gateway was faster")

    def pause(self, seconds: float) -> None:
        self._stop.wait(seconds)
        self.check_wanted()

    def _request(self, url: str, headers: dict[str, str]) -> requests.Response:
        redirects = waits = 0
        while True:
            self.check_wanted()
            with translated(GatewayError, "request"):
                response = self._session.get(
                    url,
                    headers=headers,
                    stream=True,
                    timeout=(self._patience.connect_s, self._patience.read_s),
                )
            if response.is_redirect:  # open_session leaves them to us
                redirects += 1
                url = self._redirected(url, response, redirects)
            elif response.status_code in (429, 503) and waits < _MAX_WAITS:
                waits += 1
                asked_s = retry_after_s(response.headers.get("Retry-After", ""))
                if asked_s is None or asked_s > self._patience.wait_s:
                    return response
                response.close()
                self.pause(asked_s)
            else:
                return response

    def _redirected(self, url: str, response: requests.Response, count: int) -> str:
        response.close()
        if count > _MAX_REDIRECTS:
            raise GatewayError(f"more than {_MAX_REDIRECTS} redirects")
        try:
            target = urljoin(url, response.headers["Location"])
            inwards = is_loopback(target) and not is_loopback(self._url)
            permitted = is_permitted(target) and not inwards
        except ValueError as error:
            raise GatewayError("it redirects to an address that can't be read") from error
        if not permitted:
            raise GatewayError("it redirects to an address that isn't https")
        return target


@dataclass(frozen=True, slots=True)
class Answer:
    """What a gateway answered; its body is read once."""

    response: requests.Response
    gateway: Gateway

    @property
    def is_refusal(self) -> bool:
        """Whether asking the same again is pointless: 4xx but for "too busy" and "too slow"."""
        status = self.response.status_code
        return 400 <= status < 500 and status not in (408, 425, 429)

    @property
    def status(self) -> str:
        """The status line's number and words."""
        reason = _printable(self.response.reason)
        return f"{self.response.status_code} {reason}".strip()

    def require(self, *statuses: int) -> None:
        """Raise GatewayError for other statuses, ContentMismatch for a body we'd have to unpack."""
        if self.response.status_code not in statuses:
            raise GatewayError(self.status)
        if self.response.headers.get("Content-Encoding", "identity") != "identity":
            raise ContentMismatch("it sends compressed data unasked")

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives; GatewayError when it breaks off or falls silent."""
        chunks = read_chunks(self.response)
        while True:
            self.gateway.check_wanted()
            with translated(GatewayError, "download"):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    @property
    def length(self) -> int | None:
        """Bytes of the body, as it says."""
        text = self.response.headers.get("Content-Length", "")
        is_number = text.isascii() and text.isdecimal() and len(text) <= _MAX_LENGTH_DIGITS
        return int(text) if is_number else None

    def continues_at(self, offset: int) -> bool:
        """Whether the body goes on exactly where we left off."""
        content_range = self.response.headers.get("Content-Range", "")
        return self.response.status_code == 206 and content_range.startswith(f"bytes {offset}-")


def _printable(text: str | None) -> str:
    """A server's words, short and without control characters."""
    return "".join(c for c in (text or "")[:60] if c.isprintable())
