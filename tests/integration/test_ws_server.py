"""The WebSocket server: subscriptions by hand, at each commitment, and with faults."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientError, web
from localchain import until
from loopback import serving
from served import Served, Socket, served, socket
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from transfers import SOL, signed_transfer

from decloud_trainer.localnet.accounts import Account
from decloud_trainer.localnet.faults import Faults
from decloud_trainer.localnet.ws_server import WsServer

LEVELS = ("processed", "confirmed", "finalized")


@pytest.fixture
async def net() -> AsyncIterator[Served]:
    async with served() as found:
        yield found


@pytest.fixture
async def ws(net: Served) -> AsyncIterator[Socket]:
    async with socket(net) as found:
        yield found


async def test_an_account_is_told_at_each_commitment(net: Served, ws: Socket) -> None:
    """Three subscribers of one account hear of one change, each when their level has it."""
    to = Pubkey.new_unique()
    ids = [await ws.ask("accountSubscribe", str(to), {"commitment": level}) for level in LEVELS]
    net.ledger.airdrop(to, SOL)
    slot = net.ledger.current.number
    heard = [await ws.note()]
    net.pass_slots(1)
    heard.append(await ws.note())
    net.pass_slots(7)
    heard.append(await ws.note())
    value = {
        "lamports": SOL,
        "owner": str(Pubkey.default()),
        "data": "",
        "executable": False,
        "rentEpoch": heard[0][2]["value"]["rentEpoch"],
        "space": 0,
    }
    result = {"context": {"slot": slot}, "value": value}
    assert heard == [("accountNotification", number, result) for number in ids]


async def test_a_slots_changes_are_one_notification_later(net: Served, ws: Socket) -> None:
    """Two changes in a slot: the confirmed subscriber sees the state at its end, once."""
    to = Pubkey.new_unique()
    await ws.ask("accountSubscribe", str(to), {"commitment": "confirmed"})
    for _ in range(2):
        net.ledger.airdrop(to, SOL)
    net.pass_slots(3)
    net.ledger.airdrop(to, SOL)
    net.pass_slots(1)
    heard = [(await ws.note())[2]["value"]["lamports"] for _ in range(2)]
    assert heard == [2 * SOL, 3 * SOL]


async def test_a_closed_account_is_told_as_empty(net: Served, ws: Socket) -> None:
    """To its own subscriber; a program's subscriber hears nothing of it, as on a node."""
    address, program = Pubkey.new_unique(), Pubkey.new_unique()
    net.ledger.set_account(address, Account(SOL, b"abc", program, False, 0))
    await ws.ask("programSubscribe", str(program), {"commitment": "processed"})
    mine = await ws.ask("accountSubscribe", str(address), {"commitment": "processed"})
    net.ledger.set_account(address, None)
    _, number, result = await ws.note()
    assert number == mine
    assert (result["value"]["lamports"], result["value"]["data"]) == (0, "")


async def test_a_programs_accounts_pass_the_filters(net: Served, ws: Socket) -> None:
    """Only changes that match all filters are sent, with the account's address."""
    program, address = Pubkey.new_unique(), Pubkey.new_unique()
    config = {
        "commitment": "confirmed",
        "encoding": "base64",
        "filters": [
            {"dataSize": 4},
            {"memcmp": {"offset": 1, "bytes": "YmM=", "encoding": "base64"}},
        ],
    }
    number = await ws.ask("programSubscribe", str(program), config)
    for data in (b"abc", b"abxd"):
        net.ledger.set_account(Pubkey.new_unique(), Account(SOL, data, program, False, 0))
    net.ledger.set_account(address, Account(SOL, b"abcd", program, False, 0))
    net.pass_slots(1)
    method, heard, result = await ws.note()
    assert (method, heard) == ("programNotification", number)
    assert result["value"]["pubkey"] == str(address)
    assert result["value"]["account"]["data"] == [base64.b64encode(b"abcd").decode(), "base64"]
    await ws.ask("slotSubscribe")
    net.pass_slots(1)
    assert (await ws.note())[0] == "slotNotification"


async def test_logs_of_all_or_of_one_account(net: Served, ws: Socket) -> None:
    """`all` hears everything, `mentions` what names the account; failures are told as such."""
    payer = Keypair()
    net.ledger.airdrop(payer.pubkey(), 5 * SOL)
    config = {"commitment": "processed"}
    everything = await ws.ask("logsSubscribe", "all", config)
    mine = await ws.ask("logsSubscribe", {"mentions": [str(payer.pubkey())]}, config)
    net.ledger.airdrop(Pubkey.new_unique(), SOL)
    blockhash = net.ledger.current.blockhash
    failed = net.ledger.submit(signed_transfer(payer, Pubkey.new_unique(), 9 * SOL, blockhash))
    heard = [await ws.note() for _ in range(3)]
    assert [number for _, number, _ in heard] == [everything, everything, mine]
    assert heard[2][0] == "logsNotification"
    assert heard[2][2] == {
        "context": {"slot": failed.slot},
        "value": {
            "signature": str(failed.signature),
            "err": {"InstructionError": [0, {"Custom": 1}]},
            "logs": failed.meta["logMessages"],
        },
    }
    assert (await ws.ask("logsSubscribe", {"mentions": []}))["code"] == -32602


@pytest.mark.parametrize("late", [False, True])
async def test_a_signature_is_told_once(net: Served, ws: Socket, late: bool) -> None:
    """At its commitment, also to those who ask after it got there; then the subscription ends."""
    payer = Keypair()
    net.ledger.airdrop(payer.pubkey(), 5 * SOL)
    net.pass_slots(1)
    transaction = signed_transfer(payer, Pubkey.new_unique(), SOL, net.ledger.current.blockhash)
    signature, config = str(transaction.signatures[0]), {"commitment": "confirmed"}
    if late:
        net.ledger.submit(transaction)
        net.pass_slots(2)
    number = await ws.ask("signatureSubscribe", signature, config)
    if not late:
        net.ledger.submit(transaction)
        net.pass_slots(1)
    method, heard, result = await ws.note()
    assert (method, heard, result["value"]) == ("signatureNotification", number, {"err": None})
    net.pass_slots(9)
    assert (await ws.ask("signatureUnsubscribe", number))["code"] == -32602


async def test_a_signature_may_be_told_as_received(net: Served, ws: Socket) -> None:
    """With `enableReceivedNotification` the landing is told too, before the commitment."""
    sent = net.ledger.airdrop(Pubkey.new_unique(), SOL).signature
    config = {"commitment": "finalized", "enableReceivedNotification": True}
    await ws.ask("signatureSubscribe", str(sent), config)
    assert (await ws.note())[2]["value"] == "receivedSignature"
    net.pass_slots(8)
    assert (await ws.note())[2]["value"] == {"err": None}


async def test_slots_are_told(net: Served, ws: Socket) -> None:
    """Each new slot with its parent and the finalized one."""
    number = await ws.ask("slotSubscribe")
    net.pass_slots(20)
    heard = [await ws.note() for _ in range(20)]
    slot = net.ledger.current.number
    result = {"slot": slot, "parent": slot - 1, "root": slot - 8}
    assert heard[-1] == ("slotNotification", number, result)


async def test_unsubscribing_ends_it(net: Served, ws: Socket) -> None:
    """True for one's own subscription, an error for any other, and silence afterwards."""
    number = await ws.ask("slotSubscribe")
    async with socket(net) as other:
        assert (await other.ask("slotUnsubscribe", number))["code"] == -32602
    assert await ws.ask("slotUnsubscribe", number) is True
    net.pass_slots(3)
    assert (await ws.ask("slotUnsubscribe", number))["code"] == -32602


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", -32700),
        ("[]", -32600),
        ('{"jsonrpc": "2.0", "id": 1, "method": "voteSubscribe"}', -32601),
        ('{"jsonrpc": "2.0", "id": 1, "method": "accountSubscribe"}', -32602),
        ('{"jsonrpc": "2.0", "id": 1, "method": "logsSubscribe", "params": ["some"]}', -32602),
    ],
)
async def test_wrong_requests_are_told(ws: Socket, text: str, code: int) -> None:
    """The connection stays usable after any of them."""
    await ws.raw.send_str(text)
    assert (await ws.next())["error"]["code"] == code
    assert isinstance(await ws.ask("slotSubscribe"), int)


async def test_ws_drop_cuts_what_is_open_and_what_comes(net: Served, ws: Socket) -> None:
    """While it is on no connection lives; afterwards new ones do."""
    net.faults.switch("ws_drop", count=2)
    assert await ws.is_cut()
    for _ in range(2):
        async with socket(net) as other:
            assert await other.is_cut()
    async with socket(net) as other:
        assert isinstance(await other.ask("slotSubscribe"), int)


async def test_ws_lose_event_loses_just_those(net: Served, ws: Socket) -> None:
    """The next two events never arrive, the third does; slot notifications don't count."""
    to = Pubkey.new_unique()
    await ws.ask("slotSubscribe")
    await ws.ask("accountSubscribe", str(to), {"commitment": "processed"})
    net.faults.switch("ws_lose_event", count=2)
    for _ in range(3):
        net.ledger.airdrop(to, SOL)
        net.pass_slots(1)
    heard = [await ws.note() for _ in range(4)]
    told = [
        result["value"]["lamports"] for name, _, result in heard if name == "accountNotification"
    ]
    assert told == [3 * SOL]


async def test_a_client_that_does_not_read_is_cut_off(net: Served) -> None:
    """The server's memory is bounded: whoever is too far behind loses the connection."""
    loop = asyncio.get_running_loop()
    async with socket(net) as slow:
        for _ in range(50):
            assert isinstance(await slow.ask("slotSubscribe"), int)
        net.pass_slots(30)  # 1,500 notifications without a moment to send any
        started = loop.time()
        assert await slow.is_cut()
        assert loop.time() - started < 2
    async with socket(net) as healthy:
        assert isinstance(await healthy.ask("slotSubscribe"), int)


async def test_a_connection_may_end_at_any_time(net: Served) -> None:
    """Nothing of a client that went away without a word is left behind."""
    server = WsServer(net.ledger, Faults())
    async with serving(server.app()) as url:
        async with net.http.ws_connect(url) as raw:
            assert isinstance(await Socket(raw).ask("slotSubscribe"), int)
            assert len(server._connections) == 1
        net.pass_slots(1)
        await until(lambda: not server._connections)


async def test_a_client_may_go_during_the_handshake(
    net: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That is nothing to complain of."""

    async def prepare(self: web.WebSocketResponse, request: web.Request) -> None:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(web.WebSocketResponse, "prepare", prepare)
    async with serving(WsServer(net.ledger, Faults()).app()) as url:
        with pytest.raises(ClientError):
            await net.http.ws_connect(url)
    assert [record.getMessage() for record in caplog.records] == []
