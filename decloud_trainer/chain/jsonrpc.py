"""JSON-RPC over HTTP to one endpoint: bounded in time and size, every foreign error made ours.

The transport is solana-py's `AsyncClient`. Its typed calls are not used: they hand each answer to
solders, which panics (a `BaseException`) on an error without ``data`` or with a transaction error
that it doesn't know, so that one odd answer could end a daemon. Here the text of the answer is
parsed as the JSON that it is. `_provider` with its `make_request_unparsed` and `session` are the
inner names of solana-py that this relies on; they are the same in 0.36 and 0.41.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from solana.exceptions import SolanaRpcException
from solana.rpc.async_api import AsyncClient

from decloud_trainer.errors import RpcError, SettingsError
from decloud_trainer.retryafter import retry_after_s

try:  # the HTTP library of the newer solana-py, and of 0.36
    import httpx2 as httpx
except ImportError:
    import httpx  # type: ignore[no-redef,import-not-found,unused-ignore]

# Both log each request's URL, and an endpoint's URL often holds the user's API key.
for _name in ("httpx", "httpx2"):
    logging.getLogger(_name).setLevel(logging.WARNING)

MAX_ANSWER_BYTES = 64 * 1024 * 1024
TOO_MANY_REQUESTS = 429
# Refusals of a node that may be gone in a second: overloaded, behind, slot not there yet.
PASSING_CODES = frozenset({TOO_MANY_REQUESTS, -32603, -32004, -32005, -32014, -32016})


class Endpoint:
    """One URL that speaks JSON-RPC. Nothing is tried twice here: see endpoints.py for that.

    Args:
        url: http or https; it may hold an API key, and is never shown beyond its host.
        timeout_s: for one call.
    """

    def __init__(self, url: str, *, timeout_s: float = 20.0) -> None:
        self.host = _host(url)
        self._url = url
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._client: AsyncClient | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.host})"

    async def aclose(self) -> None:
        """Close the connections; a later call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def exchange(self, method: str, params: Sequence[Any]) -> Mapping[str, Any]:
        """The whole answer to one request, with its ``result`` or its ``error``.

        Raises:
            Unanswered: no answer, or one that no Solana node would give. Whether the request had
                an effect is unknown, except that one with code 429 had none.
        """
        if self._client is None:
            self._client = _open(self._url, self._timeout_s)
        number = next(self._ids)
        request: Any = _Request(
            {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}
        )
        try:
            async with asyncio.timeout(self._timeout_s):  # httpx's own bounds each read, not all
                text = await self._client._provider.make_request_unparsed(request)
            answer = json.loads(text)
        except (SolanaRpcException, httpx.HTTPError) as error:
            cause = error.__cause__ if isinstance(error, SolanaRpcException) else error
            raise self._unanswered(method, cause) from error
        except TimeoutError as error:
            raise self._unanswered(method, error) from error
        except (ValueError, RecursionError) as error:
            raise Unanswered(self.nonsense(method)) from error
        if not isinstance(answer, dict):
            raise Unanswered(self.nonsense(method))
        # An error may come without an id: a node that couldn't read the request has none.
        known = (number, None) if "error" in answer else (number,)
        if answer.get("id") not in known or isinstance(answer.get("id"), bool):
            raise Unanswered(self.nonsense(method, "an answer to another request"))
        return answer

    def result(self, answer: Mapping[str, Any], method: str) -> Any:
        """The result in an answer; raises RpcError with the code of the error in it."""
        error = answer.get("error")
        if error is None and "result" in answer:
            return answer["result"]
        if not isinstance(error, dict):
            raise self.nonsense(method)
        code = error.get("code")
        raise RpcError(
            f"{self.host} refused {method}: {str(error.get('message'))[:300]} (code {code})",
            code=code if type(code) is int else None,
        )

    def nonsense(self, method: str, what: str = "no valid answer") -> RpcError:
        """The error for an answer that no Solana node would give."""
        return RpcError(
            f"{self.host} sent {what} to {method}",
            hint="is rpc_url really a Solana RPC endpoint?",
        )

    def _unanswered(self, method: str, cause: BaseException | None) -> Unanswered:
        """What to say of a transport error; httpx's own words hold the URL and are left out."""
        response = getattr(cause, "response", None)
        if response is None:
            late = isinstance(cause, TimeoutError | httpx.TimeoutException)
            what = f"no answer in {self._timeout_s:g} s" if late else type(cause).__name__
        elif response.status_code == TOO_MANY_REQUESTS:
            return Unanswered(
                RpcError(
                    f"{self.host} limits our requests ({method}: HTTP 429)",
                    hint="set rpc_limit to what it allows in 10 s, or use an RPC endpoint of "
                    "your own",
                    code=TOO_MANY_REQUESTS,
                ),
                retry_after_s(response.headers.get("retry-after", "")),
            )
        else:
            what = f"HTTP {response.status_code}"
        return Unanswered(
            RpcError(
                f"{self.host} failed at {method}: {what}", hint="check rpc_url and the network"
            )
        )


class _Request:
    """What solana-py's transport wants of a request."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._text = json.dumps(body)

    def to_json(self) -> str:
        return self._text


class Unanswered(Exception):
    """An attempt without an answer: `error` is what the caller gets in the end.

    Attributes:
        retry_after_s: for how long the endpoint wants to be left alone, if it said so.
    """

    def __init__(self, error: RpcError, retry_after_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after_s = retry_after_s


class _Bounded(httpx.AsyncByteStream):
    """A response body that ends in an error once it is larger than any honest answer."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise httpx.ReadError("the answer is too large")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _open(url: str, timeout_s: float) -> AsyncClient:
    options: dict[str, Any] = {
        "timeout": timeout_s,
        # Uncompressed, so that the bound counts what is kept in memory.
        "extra_headers": {"Accept-Encoding": "identity"},
    }
    if "max_transport_retries" in inspect.signature(AsyncClient.__init__).parameters:
        options["max_transport_retries"] = 0  # else solana-py would repeat a send by itself
    client = AsyncClient(url, **options)

    async def bound_size(response: Any) -> None:
        if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            raise httpx.ReadError("the answer is compressed, against our wish")
        response.stream = _Bounded(response.stream)

    client._provider.session.event_hooks = {"request": [], "response": [bound_size]}
    return client


def _host(url: str) -> str:
    """The part of an endpoint's URL that may be shown."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        parts, host = None, None
    if parts is None or not host or parts.scheme not in ("http", "https"):
        raise SettingsError(
            "the RPC endpoint is no http(s) URL",
            hint="set rpc_url to something like https://api.mainnet-beta.solana.com",
        )
    return host
