"""The JSON-RPC server as a transport: envelopes, limits, addresses, control and faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from localchain import until
from served import Served, request, served
from solders.pubkey import Pubkey
from transfers import SOL

from decloud_trainer.errors import SettingsError
from decloud_trainer.localnet.ledger import Ledger
from decloud_trainer.localnet.rpc_server import MAX_BODY_BYTES, serve_ledger
from decloud_trainer.localnet.slots import Commitment


@pytest.fixture
async def net() -> AsyncIterator[Served]:
    async with served() as found:
        yield found


async def test_one_request_one_answer(net: Served) -> None:
    """The id comes back as it was sent, number or text."""
    for request_id in (7, "seven"):
        answer = await net.post(request("getHealth", id=request_id))
        assert answer == {"jsonrpc": "2.0", "result": "ok", "id": request_id}


async def test_a_batch_is_answered_in_order(net: Served) -> None:
    """Each request of a batch stands for itself: one may fail beside others."""
    answers = await net.post([request("getSlot", id=1), request("noSuchMethod", id=2), "nonsense"])
    assert [answer["id"] for answer in answers] == [1, 2, None]
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, -32601, -32600]


async def test_a_notification_gets_no_answer(net: Served) -> None:
    """A request without an id is carried out silently."""
    body = {"jsonrpc": "2.0", "method": "getSlot"}
    async with net.http.post(net.endpoints.rpc_url, json=body) as response:
        assert (response.status, await response.read()) == (200, b"")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{not json", -32700),
        (b"[" * 100_000, -32700),
        (b"\xff\xfe", -32700),
        (b"[]", -32600),
        (b"3", -32600),
        (b'{"id": 1, "method": "getSlot"}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": 5}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "getSlots"}', -32601),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "getSlot", "params": {"a": 1}}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "getSlot", "params": [[]]}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "getBalance", "params": []}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "getBalance", "params": ["x0x"]}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "getBlockTime", "params": [true]}', -32602),
        (
            b'{"jsonrpc": "2.0", "id": 1, "method": "getBlockTime", "params": [1%s]}' % (b"0" * 30),
            -32602,
        ),
    ],
)
async def test_wrong_requests_get_the_standard_codes(net: Served, body: bytes, code: int) -> None:
    """No body takes the server down; each gets the JSON-RPC code for what is wrong with it."""
    headers = {"Content-Type": "application/json"}
    async with net.http.post(net.endpoints.rpc_url, data=body, headers=headers) as response:
        answer = json.loads(await response.text())
    assert answer["error"]["code"] == code


async def test_bodies_have_a_limit_and_a_type(net: Served) -> None:
    """Too long is 413, not JSON is 415, as on a node."""
    headers = {"Content-Type": "application/json"}
    body = b" " * (MAX_BODY_BYTES + 1)
    async with net.http.post(net.endpoints.rpc_url, data=body, headers=headers) as response:
        assert response.status == 413
    async with net.http.post(net.endpoints.rpc_url, data="{}") as response:
        assert response.status == 415


async def test_health_and_browsers(net: Served) -> None:
    """`GET /health` says ok; a page under development may call the RPC."""
    async with net.http.get(f"{net.endpoints.rpc_url}/health") as response:
        assert await response.text() == "ok"
    async with net.http.options(net.endpoints.rpc_url) as response:
        assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_listens_on_loopback_only() -> None:
    """Whoever reaches the local network can do everything with it."""
    ledger = Ledger()
    for host in ("0.0.0.0", "192.168.1.1", "example.org"):
        with pytest.raises(SettingsError, match="doesn't listen"):
            async with serve_ledger(ledger, host=host, port=0):
                pass
    ledger.close()


async def test_a_taken_port_is_told(net: Served) -> None:
    """Also when it is the WebSocket's, one above."""
    taken = int(net.endpoints.ws_url.rsplit(":", 1)[1])
    assert net.endpoints.rpc_url.endswith(str(taken - 1))
    for port in (taken - 1, taken):
        with pytest.raises(SettingsError, match=f"port {port}"):
            async with serve_ledger(net.ledger, port=port):
                pass


async def test_slots_pass_by_themselves() -> None:
    """With a slot time the ledger's slots go on without anyone asking."""
    clock = asyncio.get_running_loop().time
    began = clock()
    async with served(slot_s=0.01) as net:
        before = net.ledger.current.number
        await until(lambda: net.ledger.current.number >= before + 10)
        assert net.ledger.current.number - before <= (clock() - began) / 0.01 + 1


async def control(net: Served, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    url = f"{net.endpoints.control_url}/{path}"
    async with net.http.post(url, json=body, headers=headers) as response:
        is_json = response.content_type == "application/json"
        return response.status, await response.json() if is_json else await response.text()


async def test_the_clock_is_driven_over_http(net: Served) -> None:
    """`POST /control/warp` moves the programs' time; a wrong amount is told."""
    before = net.ledger.unix_timestamp
    status, found = await control(net, "warp", {"seconds": 3600})
    assert status == 200
    assert 3600 <= found["unix_timestamp"] - before <= 3605
    for wrong in ({"seconds": -1}, {"seconds": "x"}, {"seconds": True}, []):
        assert (await control(net, "warp", wrong))[0] == 400


async def test_faults_are_switched_over_http(net: Served) -> None:
    """`POST /control/fault` switches, `GET /control/status` shows what is on."""
    status, found = await control(net, "fault", {"name": "gateway_wrong_bytes", "count": 2})
    assert (status, found["faults"]) == (
        200,
        {"gateway_wrong_bytes": {"count": 2, "seconds": None}},
    )
    assert net.faults.take("gateway_wrong_bytes")
    async with net.http.get(f"{net.endpoints.control_url}/status") as response:
        assert (await response.json())["faults"]["gateway_wrong_bytes"]["count"] == 1
    await control(net, "fault", {"name": "gateway_wrong_bytes", "on": False})
    assert not net.faults.take("gateway_wrong_bytes")
    status, found = await control(net, "fault", {"name": "nonsense"})
    assert (status, "no fault called" in found["error"]) == (400, True)


async def test_web_pages_cannot_steer(net: Served) -> None:
    """A page's request carries an Origin or isn't JSON; neither reaches the controls."""
    assert (await control(net, "warp", {"seconds": 1}, Origin="http://localhost"))[0] == 403
    url = f"{net.endpoints.control_url}/warp"
    async with net.http.post(url, data='{"seconds": 1}') as response:
        assert response.status == 415
    headers = {"Origin": "null"}
    async with net.http.get(f"{net.endpoints.control_url}/status", headers=headers) as response:
        assert response.status == 403


async def test_rpc_429(net: Served) -> None:
    """The rate limit of a public endpoint, so many times."""
    net.faults.switch("rpc_429", count=1)
    async with net.http.post(net.endpoints.rpc_url, json=request("getSlot")) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
    assert await net.call("getHealth") == "ok"


async def test_rpc_timeout(net: Served) -> None:
    """The request is taken and nothing is done or answered."""
    net.faults.switch("rpc_timeout", count=1)
    to = Pubkey.new_unique()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await net.call("requestAirdrop", str(to), SOL)
    assert net.ledger.account(to) is None
    assert await net.call("getHealth") == "ok"


async def test_rpc_lost_answer(net: Served) -> None:
    """The transaction lands and its sender never hears of it."""
    net.faults.switch("rpc_lost_answer", count=1)
    to = Pubkey.new_unique()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await net.call("requestAirdrop", str(to), SOL)
    assert net.ledger.account(to, Commitment.PROCESSED) is not None


async def test_a_hanging_request_does_not_hold_up_the_end() -> None:
    """The servers close in a moment, also with a client that still waits."""
    async with aiohttp.ClientSession() as http:
        async with served() as net:
            net.faults.switch("rpc_timeout")
            waiting = asyncio.create_task(http.post(net.endpoints.rpc_url, json=request("getSlot")))
            await asyncio.sleep(0.05)
            ended = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - ended < 1
        await asyncio.gather(waiting, return_exceptions=True)
