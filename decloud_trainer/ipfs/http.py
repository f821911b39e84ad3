"""What gateways and pin services share of HTTP: which addresses, which errors, how to read."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

import requests
import requests.auth
import urllib3.exceptions

from decloud_trainer.errors import NetworkError, SettingsError

USER_AGENT = "decloud-trainer"
_READ_BYTES = 256 * 1024


def check_base_url(url: str, what: str) -> str:
    """The address without a trailing slash.

    Raises:
        SettingsError: not https (plain http is for this machine only), or it holds credentials
            or more than a host and a path.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise SettingsError(f"the address of {what} can't be read") from error
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise SettingsError(
            f"the address of {what} must be a plain one like https://ipfs.io",
            hint="leave out user names, passwords and anything from ? or # on",
        )
    if not host or not is_permitted(url):
        raise SettingsError(
            f"the address of {what} must start with https://, not {url[:80]!r}",
            hint="http:// is accepted for this machine only, e.g. http://127.0.0.1:8080",
        )
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_permitted(url: str) -> bool:
    """https anywhere, http on this machine."""
    scheme = urlsplit(url).scheme
    return scheme == "https" or (scheme == "http" and is_loopback(url))


class _OwnHeadersOnly(requests.auth.AuthBase):
    """Keeps requests from sending a ~/.netrc entry instead of the headers that we set."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Session(requests.Session):
    """Leaves redirects to the caller.

    Even where it shall not follow them, requests reads their whole body, of whatever size.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def open_session(url: str) -> requests.Session:
    """A session for one conversation; sessions are not for several threads at once.

    It never follows a redirect.
    """
    session = _Session()
    session.trust_env = not is_loopback(url)  # no proxy between us and this machine
    session.auth = _OwnHeadersOnly()
    # Identity: a gzip bomb must not unpack itself, and ranges count the content's own bytes.
    session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    return session


@contextlib.contextmanager
def translated(kind: type[NetworkError], where: str) -> Iterator[None]:
    """Turn every failure of the connection into `kind`; the message starts with `where`."""
    try:
        yield
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise kind(f"{where}: no answer in time") from error
    except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
        raise kind(f"{where}: no secure connection ({type(error).__name__})") from error
    except (requests.ConnectionError, ConnectionError) as error:
        raise kind(f"{where}: the connection failed or broke off") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise kind(f"{where}: the transfer failed ({type(error).__name__})") from error


def read_chunks(response: requests.Response) -> Iterator[bytes]:
    """The body as it arrives, undecoded.

    Each chunk is what one read of the socket brought, so that the caller looks at its clock and
    limits in time even when a server sends a byte a minute.
    """
    while chunk := response.raw.read1(_READ_BYTES, decode_content=False):
        yield chunk
