"""JSON-RPC methods that read accounts: shapes, encodings, filters, commitments."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import base58
import pytest
from served import Served, served
from solders.pubkey import Pubkey
from transfers import SOL

from decloud_trainer.localnet.accounts import Account

PROGRAM = Pubkey.new_unique()
SHORT, LONG = bytes(range(100)), bytes(range(200))


@pytest.fixture
async def net() -> AsyncIterator[Served]:
    async with served() as found:
        yield found


def put(net: Served, data: bytes, lamports: int = SOL) -> str:
    address = Pubkey.new_unique()
    net.ledger.set_account(address, Account(lamports, data, PROGRAM, False, 2**64 - 1))
    net.pass_slots(9)
    return str(address)


async def test_an_account_has_a_nodes_shape(net: Served) -> None:
    """Every field under the name and in the type that clients parse strictly."""
    address = put(net, SHORT)
    found = await net.call("getAccountInfo", address, {"encoding": "base64"})
    assert found["context"]["slot"] == net.ledger.current.number - 8
    assert found["value"] == {
        "lamports": SOL,
        "owner": str(PROGRAM),
        "data": [base64.b64encode(SHORT).decode(), "base64"],
        "executable": False,
        "rentEpoch": 2**64 - 1,
        "space": 100,
    }
    missing = await net.call("getAccountInfo", str(Pubkey.new_unique()))
    assert missing["value"] is None


async def test_data_comes_in_the_encoding_asked_for(net: Served) -> None:
    """base58 with and without its label, base64, and jsonParsed, which falls back to base64."""
    address = put(net, SHORT)

    async def data(**config: Any) -> Any:
        return (await net.call("getAccountInfo", address, config))["value"]["data"]

    text = base58.b58encode(SHORT).decode()
    plain = [base64.b64encode(SHORT).decode(), "base64"]
    assert await data() == text
    assert await data(encoding="base58") == [text, "base58"]
    assert await data(encoding="jsonParsed") == plain
    piece = {"offset": 10, "length": 5}
    sliced = [base64.b64encode(SHORT[10:15]).decode(), "base64"]
    assert await data(encoding="base64", dataSlice=piece) == sliced
    error = await net.error("getAccountInfo", address, {"encoding": "base64+zstd"})
    assert error["code"] == -32602


async def test_base58_is_for_short_data(net: Served) -> None:
    """A node refuses to encode more than 128 bytes; a slice of more is fine."""
    address = put(net, LONG)
    error = await net.error("getAccountInfo", address, {"encoding": "base58"})
    assert (error["code"], "please use Base64" in error["message"]) == (-32600, True)
    piece = {"encoding": "base58", "dataSlice": {"offset": 190, "length": 20}}
    found = await net.call("getAccountInfo", address, piece)
    assert found["value"]["data"] == [base58.b58encode(LONG[190:]).decode(), "base58"]


async def test_several_accounts_at_once(net: Served) -> None:
    """In the order asked for, null for those that don't exist, at most 100."""
    known, unknown = put(net, SHORT), str(Pubkey.new_unique())
    found = await net.call("getMultipleAccounts", [unknown, known], {"encoding": "base64"})
    assert [account and account["space"] for account in found["value"]] == [None, 100]
    error = await net.error("getMultipleAccounts", [known] * 101)
    assert error == {"code": -32602, "message": "Too many inputs provided; max 100"}


@pytest.mark.parametrize(
    ("filters", "matching"),
    [
        ([], {b"abcd", b"abxyz", b""}),
        ([{"dataSize": 4}], {b"abcd"}),
        (
            [{"memcmp": {"offset": 0, "bytes": base58.b58encode(b"ab").decode()}}],
            {b"abcd", b"abxyz"},
        ),
        ([{"memcmp": {"offset": 2, "bytes": "eHl6", "encoding": "base64"}}], {b"abxyz"}),
        ([{"memcmp": {"offset": 2, "bytes": [120, 121]}}], {b"abxyz"}),
        (
            [{"dataSize": 4}, {"memcmp": {"offset": 2, "bytes": "eHl6", "encoding": "base64"}}],
            set(),
        ),
        ([{"memcmp": {"offset": 4, "bytes": base58.b58encode(b"zz").decode()}}], set()),
        ([{"memcmp": {"offset": 10**12, "bytes": "2"}}], set()),
    ],
)
async def test_filters_choose_on_the_server(
    net: Served, filters: list[Any], matching: set[bytes]
) -> None:
    """All filters must hold; bytes beyond the data never match."""
    for data in (b"abcd", b"abxyz", b""):
        put(net, data)
    config = {"encoding": "base64", "filters": filters}
    found = await net.call("getProgramAccounts", str(PROGRAM), config)
    assert {base64.b64decode(one["account"]["data"][0]) for one in found} == matching
    wrapped = await net.call("getProgramAccounts", str(PROGRAM), config | {"withContext": True})
    assert wrapped["value"] == found


@pytest.mark.parametrize(
    "wrong",
    [
        [{"dataSize": 1}] * 5,
        [{"size": 1}],
        [{"dataSize": -1}],
        [{"memcmp": {"offset": 0, "bytes": "0OIl"}}],
        [{"memcmp": {"offset": 0, "bytes": "****", "encoding": "base64"}}],
        [{"memcmp": {"bytes": "2"}}],
        [{"memcmp": {"offset": 0}}],
        [{"memcmp": {"offset": 0, "bytes": base58.b58encode(bytes(129)).decode()}}],
    ],
)
async def test_wrong_filters_are_told(net: Served, wrong: list[Any]) -> None:
    """A filter that can't be understood is an error, never an unfiltered answer."""
    error = await net.error("getProgramAccounts", str(PROGRAM), {"filters": wrong})
    assert error["code"] == -32602


async def test_answers_are_those_of_the_commitment(net: Served) -> None:
    """A node's default is finalized; the old names of the levels still work."""
    to = Pubkey.new_unique()
    net.ledger.airdrop(to, SOL)

    async def balances() -> list[int]:
        names = ("processed", "recent", "confirmed", "single", "finalized", "max")
        configs: list[Any] = [{"commitment": name} for name in names] + [{}]
        return [(await net.call("getBalance", str(to), config))["value"] for config in configs]

    assert await balances() == [SOL, SOL, 0, 0, 0, 0, 0]
    net.pass_slots(1)
    assert await balances() == [SOL, SOL, SOL, SOL, 0, 0, 0]
    net.pass_slots(7)
    assert await balances() == [SOL] * 7
    assert (await net.error("getBalance", str(to), {"commitment": "sure"}))["code"] == -32602


async def test_min_context_slot_is_honoured(net: Served) -> None:
    """A reader that has seen a slot is never given an older state."""
    slot = net.ledger.current.number
    config = {"commitment": "processed", "minContextSlot": slot + 1}
    error = await net.error("getBalance", str(PROGRAM), config)
    assert (error["code"], error["data"]) == (-32016, {"contextSlot": slot})
    net.pass_slots(1)
    assert (await net.call("getBalance", str(PROGRAM), config))["context"]["slot"] == slot + 1
    assert await net.call("getSlot", config) == slot + 1


async def test_rent_is_solanas(net: Served) -> None:
    """The amounts that every Solana user knows."""
    for size, lamports in ((0, 890_880), (200, 2_282_880)):
        assert await net.call("getMinimumBalanceForRentExemption", size) == lamports


async def test_the_cluster_describes_itself(net: Served) -> None:
    """Heights, epoch, version, genesis hash and times are consistent with each other."""
    net.pass_slots(20)
    slot = await net.call("getSlot", {"commitment": "processed"})
    assert slot == await net.call("getBlockHeight", {"commitment": "processed"})
    epoch = await net.call("getEpochInfo", {"commitment": "processed"})
    assert epoch["absoluteSlot"] == epoch["epoch"] * epoch["slotsInEpoch"] + epoch["slotIndex"]
    assert epoch["absoluteSlot"] == slot
    assert await net.call("getGenesisHash") == str(net.ledger.genesis_hash)
    assert set(await net.call("getVersion")) == {"solana-core", "feature-set"}
    assert await net.call("getBlockTime", slot) == net.ledger.unix_timestamp
    assert await net.call("getBlockTime", slot + 1) is None
    assert await net.call("getFirstAvailableBlock") == await net.call("minimumLedgerSlot") == 0
    fees = await net.call("getRecentPrioritizationFees", [])
    assert fees[-1] == {"slot": slot, "prioritizationFee": 0}
