"""JSON-RPC methods about transactions: sending, simulating, looking up."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import base58
import pytest
from served import Served, served
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from transfers import SOL, as_base64, signed_transfer

BASE64 = {"encoding": "base64"}
NOW = BASE64 | {"preflightCommitment": "processed"}


@pytest.fixture
async def net() -> AsyncIterator[Served]:
    async with served() as found:
        yield found


@pytest.fixture
def rich(net: Served) -> Keypair:
    """10 SOL, finalized."""
    keypair = Keypair()
    net.ledger.airdrop(keypair.pubkey(), 10 * SOL)
    net.pass_slots(9)
    return keypair


def fresh(net: Served, payer: Keypair, lamports: int = SOL, **options: Any) -> VersionedTransaction:
    blockhash = net.ledger.current.blockhash
    return signed_transfer(payer, Pubkey.new_unique(), lamports, blockhash, **options)


async def test_sending_answers_the_signature(net: Served, rich: Keypair) -> None:
    """In base64, and in base58, which is a node's default; legacy and version 0."""
    for version in (None, 0):
        transaction = fresh(net, rich, version=version)
        sent = await net.call("sendTransaction", as_base64(transaction), NOW)
        assert sent == str(transaction.signatures[0])
        plain = fresh(net, rich, version=version)
        text = base58.b58encode(bytes(plain)).decode()
        assert await net.call("sendTransaction", text, {"preflightCommitment": "processed"}) == str(
            plain.signatures[0]
        )


async def test_a_preflight_failure_has_a_nodes_shape(net: Served, rich: Keypair) -> None:
    """Code, sentence, error, logs and units, where every client looks for them."""
    error = await net.error("sendTransaction", as_base64(fresh(net, rich, 50 * SOL)), NOW)
    system = str(Pubkey.default())
    assert error == {
        "code": -32002,
        "message": "Transaction simulation failed: Error processing Instruction 0: "
        "custom program error: 0x1",
        "data": {
            "accounts": None,
            "err": {"InstructionError": [0, {"Custom": 1}]},
            "innerInstructions": [],
            "logs": [
                f"Program {system} invoke [1]",
                "Transfer: insufficient lamports 9999995000, need 50000000000",
                f"Program {system} failed: custom program error: 0x1",
            ],
            "replacementBlockhash": None,
            "returnData": None,
            "unitsConsumed": 150,
        },
    }


async def test_preflight_knows_old_and_new_blockhashes(net: Served, rich: Keypair) -> None:
    """An unknown hash fails; so does one that the preflight's commitment hasn't seen yet."""
    to = Pubkey.new_unique()
    unknown = as_base64(signed_transfer(rich, to, SOL, Hash.new_unique()))
    newest = as_base64(fresh(net, rich))
    for text, config in ((unknown, NOW), (newest, BASE64)):
        error = await net.error("sendTransaction", text, config)
        assert error["message"] == "Transaction simulation failed: Blockhash not found"
        assert error["data"]["err"] == "BlockhashNotFound"
    settled = (await net.call("getLatestBlockhash"))["value"]["blockhash"]
    good = signed_transfer(rich, to, SOL, Hash.from_string(settled))
    await net.call("sendTransaction", as_base64(good), BASE64)


async def test_a_second_sending_is_told(net: Served, rich: Keypair) -> None:
    """With preflight it is an error; without it the signature comes back, as on a node."""
    text = as_base64(fresh(net, rich))
    signature = await net.call("sendTransaction", text, NOW)
    error = await net.error("sendTransaction", text, NOW)
    assert error["data"]["err"] == "AlreadyProcessed"
    assert await net.call("sendTransaction", text, BASE64 | {"skipPreflight": True}) == signature
    assert net.ledger.transaction_count() == 2


async def test_without_preflight_a_failure_lands(net: Served, rich: Keypair) -> None:
    """The signature is answered; the failure stands in its status; the fee is gone."""
    config = BASE64 | {"skipPreflight": True}
    sent = await net.call("sendTransaction", as_base64(fresh(net, rich, 50 * SOL)), config)
    status = (await net.call("getSignatureStatuses", [sent]))["value"][0]
    assert status["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert status["status"] == {"Err": status["err"]}


async def test_without_preflight_the_impossible_vanishes(net: Served, rich: Keypair) -> None:
    """A dead blockhash or a false signature: an answer, and never a landing."""
    config = BASE64 | {"skipPreflight": True}
    dead = signed_transfer(rich, Pubkey.new_unique(), SOL, Hash.new_unique())
    false = VersionedTransaction.populate(fresh(net, rich).message, [Signature.new_unique()])
    for transaction in (dead, false):
        sent = await net.call("sendTransaction", as_base64(transaction), config)
        assert (await net.call("getSignatureStatuses", [sent]))["value"] == [None]


async def test_a_false_signature_is_refused(net: Served, rich: Keypair) -> None:
    """By preflight, and by a simulation that is to verify; another one doesn't look."""
    false = VersionedTransaction.populate(fresh(net, rich).message, [Signature.new_unique()])
    error = await net.error("sendTransaction", as_base64(false), NOW)
    assert error == {"code": -32003, "message": "Transaction signature verification failure"}
    config = BASE64 | {"commitment": "processed"}
    assert (await net.call("simulateTransaction", as_base64(false), config))["value"]["err"] is None
    error = await net.error("simulateTransaction", as_base64(false), config | {"sigVerify": True})
    assert error["code"] == -32003


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("not base64!", BASE64),
        ("0OIl", {}),
        ("AAAA", BASE64),
        ("", BASE64),
        (base64.b64encode(bytes(1233)).decode(), BASE64),
        ("A" * 5000, BASE64),
        ("AAAA", {"encoding": "hex"}),
        (5, BASE64),
    ],
)
async def test_what_is_no_transaction_is_refused(net: Served, text: Any, config: Any) -> None:
    """Wrong encodings, garbage and more than 1,232 bytes are wrong parameters."""
    for method in ("sendTransaction", "simulateTransaction"):
        assert (await net.error(method, text, config))["code"] == -32602


async def test_a_simulation_shows_accounts_and_replaces_blockhashes(
    net: Served, rich: Keypair
) -> None:
    """`accounts` are as they would be; an old blockhash may be replaced, and then is told."""
    to = Pubkey.new_unique()
    old = as_base64(signed_transfer(rich, to, SOL, Hash.new_unique()))
    config = BASE64 | {
        "commitment": "processed",
        "replaceRecentBlockhash": True,
        "accounts": {"encoding": "base64", "addresses": [str(to), str(Pubkey.new_unique())]},
    }
    value = (await net.call("simulateTransaction", old, config))["value"]
    assert value["err"] is None
    assert [account and account["lamports"] for account in value["accounts"]] == [SOL, None]
    assert value["replacementBlockhash"]["blockhash"] == str(net.ledger.current.blockhash)
    value = (await net.call("simulateTransaction", old, BASE64))["value"]
    assert value["err"] == "BlockhashNotFound"
    both = config | {"sigVerify": True}
    assert (await net.error("simulateTransaction", old, both))["code"] == -32602


async def test_a_status_rises_with_the_slots(net: Served, rich: Keypair) -> None:
    """confirmationStatus and confirmations, as clients poll them."""
    sent = await net.call("sendTransaction", as_base64(fresh(net, rich)), NOW)
    seen = []
    for _ in range(9):
        status = (await net.call("getSignatureStatuses", [sent]))["value"][0]
        seen.append((status["confirmationStatus"], status["confirmations"]))
        net.pass_slots(1)
    confirmed = [("confirmed", count) for count in range(1, 8)]
    assert seen == [("processed", 0), *confirmed, ("finalized", None)]


async def test_old_statuses_need_the_history_search(net: Served, rich: Keypair) -> None:
    """Without `searchTransactionHistory` a node has forgotten after 300 slots."""
    sent = await net.call("sendTransaction", as_base64(fresh(net, rich)), NOW)
    net.pass_slots(300)
    assert (await net.call("getSignatureStatuses", [sent]))["value"] == [None]
    found = await net.call("getSignatureStatuses", [sent], {"searchTransactionHistory": True})
    assert found["value"][0]["confirmationStatus"] == "finalized"
    assert (await net.error("getSignatureStatuses", [sent] * 257))["code"] == -32602


async def test_a_blockhash_tells_how_long_it_lives(net: Served) -> None:
    """lastValidBlockHeight is the last height at which isBlockhashValid says yes."""
    config = {"commitment": "processed"}
    value = (await net.call("getLatestBlockhash", config))["value"]
    while await net.call("getBlockHeight", config) < value["lastValidBlockHeight"]:
        net.pass_slots(1)
    assert (await net.call("isBlockhashValid", value["blockhash"], config))["value"] is True
    net.pass_slots(1)
    assert (await net.call("isBlockhashValid", value["blockhash"], config))["value"] is False
    assert (await net.error("isBlockhashValid", "nonsense"))["code"] == -32602


async def test_the_fee_is_what_will_be_charged(net: Served, rich: Keypair) -> None:
    """5,000 per signature and the priority fee asked for; null without a valid blockhash."""
    instructions = [set_compute_unit_limit(100_000), set_compute_unit_price(20_000)]
    blockhash = net.ledger.current.blockhash
    message = MessageV0.try_compile(rich.pubkey(), instructions, [], blockhash)
    config = {"commitment": "processed"}

    async def fee(message: MessageV0) -> Any:
        text = base64.b64encode(to_bytes_versioned(message)).decode()
        return (await net.call("getFeeForMessage", text, config))["value"]

    assert await fee(message) == 5000 + 2000
    landed = net.ledger.submit(VersionedTransaction(message, [rich]))
    assert landed.meta["fee"] == 7000
    assert await fee(MessageV0.try_compile(rich.pubkey(), [], [], Hash.new_unique())) is None
    assert (await net.error("getFeeForMessage", "AAAA"))["code"] == -32602


async def test_a_transaction_can_be_read_again(net: Served, rich: Keypair) -> None:
    """As JSON with its meta, as the signed bytes, and only when the commitment has it."""
    transaction = fresh(net, rich)
    sent = await net.call("sendTransaction", as_base64(transaction), NOW)
    assert await net.call("getTransaction", sent, {"commitment": "confirmed"}) is None
    net.pass_slots(1)
    found = await net.call("getTransaction", sent, {"commitment": "confirmed"})
    assert found["slot"] == net.ledger.current.number - 1
    assert found["blockTime"] == net.ledger.block_time(found["slot"])
    assert found["transaction"]["signatures"] == [sent]
    message = found["transaction"]["message"]
    assert message["accountKeys"][0] == str(rich.pubkey())
    assert message["header"]["numRequiredSignatures"] == 1
    assert (found["meta"]["err"], found["meta"]["fee"]) == (None, 5000)
    assert len(found["meta"]["logMessages"]) == 2
    assert await net.call("getTransaction", sent) is None
    net.pass_slots(8)
    raw = await net.call("getTransaction", sent, BASE64)
    assert raw["transaction"] == [as_base64(transaction), "base64"]
    parsed = (await net.call("getTransaction", sent, "jsonParsed"))["transaction"]["message"]
    assert parsed["accountKeys"][0] == {
        "pubkey": str(rich.pubkey()),
        "signer": True,
        "writable": True,
        "source": "transaction",
    }
    assert parsed["instructions"][0]["programId"] == str(Pubkey.default())
    error = await net.error("getTransaction", sent, {"commitment": "processed"})
    assert error["message"] == "Method does not support commitment below `confirmed`"


async def test_version_0_is_shown_to_those_who_ask_for_it(net: Served, rich: Keypair) -> None:
    """A client that doesn't know versions gets the error that tells it how to ask."""
    sent = await net.call("sendTransaction", as_base64(fresh(net, rich, version=0)), NOW)
    net.pass_slots(9)
    assert (await net.error("getTransaction", sent))["code"] == -32015
    found = await net.call("getTransaction", sent, {"maxSupportedTransactionVersion": 0})
    assert (found["version"], found["transaction"]["message"]["addressTableLookups"]) == (0, [])


async def test_signatures_for_an_address(net: Served, rich: Keypair) -> None:
    """Newest first, with slot, time and failure; pages by `before`, `until` and `limit`."""
    address, config = str(rich.pubkey()), {"commitment": "confirmed"}
    skip = BASE64 | {"skipPreflight": True}
    sent = []
    for lamports in (SOL, 50 * SOL, 2 * SOL):
        text = as_base64(fresh(net, rich, lamports))
        sent.insert(0, await net.call("sendTransaction", text, skip))
        net.pass_slots(1)
    found = await net.call("getSignaturesForAddress", address, config | {"limit": 3})
    assert [one["signature"] for one in found] == sent
    assert [one["err"] is None for one in found] == [True, False, True]
    assert found[0]["slot"] > found[1]["slot"] > found[2]["slot"]
    assert {one["confirmationStatus"] for one in found} == {"confirmed"}
    page = config | {"before": sent[0], "until": sent[2]}
    found = await net.call("getSignaturesForAddress", address, page)
    assert [one["signature"] for one in found] == [sent[1]]
    for wrong in ({"limit": 0}, {"limit": 1001}, {"before": "x"}, {"commitment": "processed"}):
        assert (await net.error("getSignaturesForAddress", address, wrong))["code"] == -32602


async def test_an_airdrop_is_a_transaction(net: Served) -> None:
    """Its signature has a status and a history; an impossible amount is told."""
    to = Pubkey.new_unique()
    sent = await net.call("requestAirdrop", str(to), SOL)
    net.pass_slots(9)
    assert (await net.call("getSignatureStatuses", [sent]))["value"][0]["err"] is None
    found = await net.call("getSignaturesForAddress", str(to))
    assert [one["signature"] for one in found] == [sent]
    error = await net.error("requestAirdrop", str(Pubkey.new_unique()), 1)
    assert (error["code"], "890880" in error["message"]) == (-32603, True)
    assert (await net.error("requestAirdrop", str(to), -5))["code"] == -32603
