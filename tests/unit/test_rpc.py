"""The endpoint wrapper: bounded retries, bounded answers, no foreign errors, no URL shown."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from solders.pubkey import Pubkey

from decloud_trainer.chain import jsonrpc
from decloud_trainer.chain.clusters import CLUSTERS
from decloud_trainer.chain.rpc import Failure, Rpc
from decloud_trainer.errors import RpcError, SettingsError

KEY = Pubkey.from_bytes(bytes(range(1, 33)))


@dataclass(frozen=True)
class Status:
    """An HTTP status without a body."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)


class Node:
    """An HTTP server that gives the prepared answers in turn, the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.slept: list[float] = []
        self.now = 0.0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Status):
            return web.Response(status=answer.code, headers=answer.headers)
        if isinstance(answer, str):
            return web.Response(text=answer, content_type="application/json")
        return web.json_response({"jsonrpc": "2.0", "id": self.requests[-1]["id"], **answer})

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@contextlib.asynccontextmanager
async def serve(node: Node, **options: Any) -> AsyncIterator[Rpc]:
    app = web.Application()
    app.router.add_post("/{path:.*}", node.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v2/SECRETKEY?api-key=SECRETKEY"
        async with Rpc(url, sleep=node.sleep, clock=lambda: node.now, **options) as rpc:
            yield rpc
    finally:
        await runner.cleanup()


def balance(lamports: int) -> dict[str, Any]:
    return {"result": {"context": {"slot": 1}, "value": lamports}}


def refusal(code: int, message: str = "no", **data: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **data}}


def limited(**headers: str) -> Status:
    return Status(429, headers)


async def test_retry_after_is_honoured() -> None:
    """A limited read waits as long as it was told, in seconds or as a date that has passed."""
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    node = Node(limited(**{"Retry-After": "3"}), limited(**{"Retry-After": past}), balance(7))
    async with serve(node) as rpc:
        assert await rpc.balance(KEY) == 7
    assert node.slept == [3.0, 1.0]


async def test_an_endpoint_that_wants_a_long_rest_gets_it() -> None:
    """The call fails at once, and no request goes out before the time is over."""
    node = Node(limited(**{"Retry-After": "100"}), balance(7))
    async with serve(node) as rpc:
        with pytest.raises(RpcError, match="limits our requests"):
            await rpc.balance(KEY)
        node.now = 99
        with pytest.raises(RpcError, match="may be asked") as caught:
            await rpc.send(b"raw", preflight=True)
        assert (caught.value.code, len(node.requests), node.slept) == (429, 1, [])
        node.now = 100
        assert await rpc.balance(KEY) == 7


@pytest.mark.parametrize("asked", ["99999999999999", "a while", "Wed, 99 Oct 2015"])
async def test_an_odd_retry_after_is_bounded_or_passed_over(asked: str) -> None:
    """Nobody can silence us for hours, nor break us with a header."""
    node = Node(limited(**{"Retry-After": asked}), balance(7))
    async with serve(node, attempts=1) as rpc:
        with pytest.raises(RpcError):
            await rpc.balance(KEY)
        node.now = 120
        assert await rpc.balance(KEY) == 7


async def test_an_answer_to_another_request_is_none() -> None:
    """Answers that a proxy mixed up are asked for again, and never taken for ours."""
    strange = json.dumps({"jsonrpc": "2.0", "id": 77, **balance(1)})
    true_id = json.dumps({"jsonrpc": "2.0", "id": True, **balance(1)})
    node = Node(strange, true_id, balance(7))
    async with serve(node) as rpc:
        assert await rpc.balance(KEY) == 7
    assert len(node.requests) == 3


async def test_reads_are_retried_a_bounded_number_of_times() -> None:
    """An endpoint that stays limited ends in an RpcError with the code."""
    node = Node({"error": {"code": 429, "message": "slow down"}})
    async with serve(node, attempts=3) as rpc:
        with pytest.raises(RpcError) as caught:
            await rpc.balance(KEY)
    assert len(node.requests) == 3
    assert node.slept == [0.5, 1.0]
    assert caught.value.code == 429
    assert caught.value.retryable


async def test_a_refusal_that_stays_is_not_retried() -> None:
    """Wrong parameters are wrong the second time, too."""
    node = Node(refusal(-32602, "invalid params"))
    async with serve(node) as rpc:
        with pytest.raises(RpcError, match="invalid params") as caught:
            await rpc.balance(KEY)
    assert (len(node.requests), caught.value.code) == (1, -32602)


async def test_sending_is_never_retried_by_itself() -> None:
    """Neither a server error nor a limit repeats a broadcast."""
    for answer in (Status(503), limited(), refusal(-32005, "behind")):
        node = Node(answer)
        async with serve(node) as rpc:
            with pytest.raises(RpcError):
                await rpc.send(b"raw", preflight=True)
        assert len(node.requests) == 1


NONSENSE = [
    "",
    "<html>welcome</html>",
    "[]",
    "null",
    "{}",
    '{"result": null}',
    '{"result": {"context": {"slot": 1}, "value": "12"}}',
    '{"error": "no"}',
    '{"error": {"message": []}}',
    "[" * 100_000,
]


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
async def test_an_odd_answer_is_an_rpc_error(text: str) -> None:
    """Whatever comes back, the caller sees an error of ours and no value is made up."""
    async with serve(Node(text), attempts=1) as rpc:
        with pytest.raises(RpcError):
            await rpc.balance(KEY)
        with pytest.raises(RpcError):
            await rpc.program_accounts(KEY, [])
        with pytest.raises(RpcError):
            await rpc.accounts([KEY])
        with pytest.raises(RpcError):
            await rpc.latest_blockhash()
        with pytest.raises(RpcError):
            await rpc.signature_status("1" * 64, search_history=True)


ODD_REFUSALS: list[tuple[dict[str, Any], Failure]] = [
    (refusal(-32002, "x", data={"err": "NewError", "logs": ["l"]}), Failure("NewError", ("l",))),
    (refusal(-32002, "Blockhash not found"), Failure("BlockhashNotFound")),
    (
        refusal(-32002, "This transaction has already been processed", data={"logs": None}),
        Failure("AlreadyProcessed"),
    ),
    (refusal(-32002, "something else", data=[]), Failure("something else")),
]


@pytest.mark.parametrize(("answer", "failure"), ODD_REFUSALS, ids=range(len(ODD_REFUSALS)))
async def test_a_preflight_refusal_is_read_in_any_shape(
    answer: dict[str, Any], failure: Failure
) -> None:
    """Errors without data, or that no library knows, are refusals like others."""
    async with serve(Node(answer)) as rpc:
        assert await rpc.send(b"raw", preflight=True) == failure


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: an answer larger than any honest one is an error."""
    monkeypatch.setattr(jsonrpc, "MAX_ANSWER_BYTES", 10_000)
    async with serve(Node(json.dumps(balance(1)) + " " * 20_000), attempts=1) as rpc:
        with pytest.raises(RpcError):
            await rpc.balance(KEY)


async def test_the_endpoints_url_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    """An API key in the URL is in no message and in no log line, the library's included."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.INFO)
    for answer in (Status(401), Status(302), "<html>", limited()):
        async with serve(Node(answer), attempts=2) as rpc:
            with pytest.raises(RpcError) as caught:
                await rpc.balance(KEY)
            assert "SECRETKEY" not in caught.value.message + caught.value.hint + repr(rpc)
    async with Rpc("http://127.0.0.1:9/SECRETKEY", attempts=1) as rpc:
        with pytest.raises(RpcError, match=r"127\.0\.0\.1") as caught:
            await rpc.balance(KEY)
    with pytest.raises(SettingsError) as wrong:
        Rpc("SECRETKEY")
    assert "SECRETKEY" not in caught.value.message + wrong.value.message
    assert "SECRETKEY" not in caplog.text


def test_the_known_networks_have_their_public_endpoints() -> None:
    """The four names and where they lead."""
    assert {name: (n.rpc_url, n.ws_url) for name, n in CLUSTERS.items()} == {
        "localnet": ("http://127.0.0.1:8899", "ws://127.0.0.1:8900"),
        "devnet": ("https://api.devnet.solana.com", "wss://api.devnet.solana.com"),
        "testnet": ("https://api.testnet.solana.com", "wss://api.testnet.solana.com"),
        "mainnet-beta": (
            "https://api.mainnet-beta.solana.com",
            "wss://api.mainnet-beta.solana.com",
        ),
    }
