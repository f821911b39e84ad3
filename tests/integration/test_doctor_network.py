"""The doctor's checks of the network, against the local one and its faults."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import pytest
from solders.keypair import Keypair

from decloud_trainer.chain import v1
from decloud_trainer.chain.wallet import Wallet
from decloud_trainer.checks import chain, content
from decloud_trainer.checks.chain import ChainReport, chain_checks, websocket_check
from decloud_trainer.checks.content import gateway_checks, pin_checks
from decloud_trainer.checks.model import Check, Verdict
from decloud_trainer.localnet.network import LocalNetwork
from decloud_trainer.localnet.options import LocalOptions
from decloud_trainer.settings import Settings

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL
SOL = 10**9
# The file of content.HELLO_CID as the pin service names it.
HELLO_V1 = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"


@pytest.fixture
async def network() -> AsyncIterator[LocalNetwork]:
    async with LocalNetwork(LocalOptions(actors=False, slot_ms=20)) as running:
        yield running


def settings_for(network: LocalNetwork) -> Settings:
    where = network.endpoints
    return Settings(
        network="localnet",
        rpc_url=where.rpc_url,
        ws_url=where.ws_url,
        gateways=(where.gateway_url,),
        pinata_jwt=where.pin_jwt,
        pinata_api_url=where.pin_api_url,
        pinata_upload_url=where.pin_upload_url,
    )


def funded(network: LocalNetwork, lamports: int) -> Wallet:
    keypair = Keypair()
    if lamports:
        network.ledger.airdrop(keypair.pubkey(), lamports)
    for _ in range(3):
        network.ledger.advance_slot()
    return Wallet(keypair, "test")


def by_name(report: ChainReport) -> dict[str, Check]:
    return {check.name: check for check in report.checks}


async def test_a_healthy_network_passes(network: LocalNetwork) -> None:
    """Endpoint, program, layout, generation, clock, money, pins and gateway: all measured."""
    posted = await network.post_round(reward_lamports=SOL // 10)
    settings = settings_for(network)
    report = await chain_checks(settings, funded(network, SOL))
    checks = by_name(report)
    assert {check.verdict for check in report.checks} == {PASS}
    assert checks["rpc"].numbers["latency_ms"] < 1000
    assert checks["rounds"].numbers["generation"] == "v1.2 (detected by simulation)"
    assert checks["balance"].numbers["rounds"] > 500
    assert report.newest is not None
    assert report.newest.id == posted.round_id

    socket = await websocket_check(settings)
    (gateway,) = await gateway_checks(settings, report.newest.model_cid)
    (pins,) = await pin_checks(settings, upload=True)
    assert (socket.verdict, gateway.verdict, pins.verdict) == (PASS, PASS, PASS)
    assert gateway.numbers["bytes"] > 2_000_000
    assert pins.numbers["pinned_files"] == 1
    (hello,) = await gateway_checks(settings, HELLO_V1)
    assert hello.numbers["bytes"] == len(content.HELLO)


async def test_an_empty_wallet_is_a_failure_and_hides_nothing(network: LocalNetwork) -> None:
    """The fix names the faucet; a wallet with money for a few rounds is a warning."""
    await network.post_round(reward_lamports=SOL // 10)
    settings = settings_for(network)
    wallet = funded(network, 0)
    checks = by_name(await chain_checks(settings, wallet))
    assert checks["balance"].verdict is FAIL
    assert checks["balance"].fix == f"decloud-trainer localnet airdrop {wallet.pubkey} 1"
    assert [c.name for c in checks.values() if c.verdict is not PASS] == ["balance"]
    checks = by_name(await chain_checks(settings, funded(network, 10_000_000)))
    assert (checks["balance"].verdict, checks["balance"].numbers["rounds"]) == (WARN, 5)
    checks = by_name(await chain_checks(settings, None))
    assert checks["balance"].verdict is WARN


async def test_rounds_of_another_layout_are_a_failure(network: LocalNetwork) -> None:
    """An account that isn't as expected is named, and no older round hides it."""
    posted = await network.post_round(reward_lamports=SOL // 10)
    address, _ = v1.round_address(posted.round_id)
    account = network.ledger.account(address)
    assert account is not None
    data = bytearray(account.data)
    data[8] ^= 1  # its id
    network.ledger.set_account(address, dataclasses.replace(account, data=bytes(data)))
    for _ in range(3):
        network.ledger.advance_slot()
    checks = by_name(await chain_checks(settings_for(network), None))
    assert checks["rounds"].verdict is FAIL
    assert checks["rounds"].numbers["unreadable"] == 1
    assert checks["program"].verdict is PASS


async def test_wrong_programs_are_told_apart(network: LocalNetwork) -> None:
    """One that isn't there, and one that is a plain account."""
    nobody = str(Keypair().pubkey())
    settings = dataclasses.replace(settings_for(network), program_id=nobody)
    checks = by_name(await chain_checks(settings, None))
    assert (checks["program"].verdict, checks["rounds"].verdict) == (FAIL, WARN)
    assert "doesn't exist" in checks["program"].text
    settings = dataclasses.replace(settings, program_id=funded(network, SOL).pubkey)
    checks = by_name(await chain_checks(settings, None))
    assert "is no program" in checks["program"].text


async def test_another_network_than_the_one_set_is_a_failure(network: LocalNetwork) -> None:
    """Round ids would mean other rounds, and the money would be another's."""
    settings = dataclasses.replace(settings_for(network), network="devnet")
    checks = by_name(await chain_checks(settings, None))
    assert checks["rpc"].verdict is FAIL
    assert "not devnet" in checks["rpc"].text


async def test_a_moved_clock_is_told(network: LocalNetwork) -> None:
    """On a local network it is meant; elsewhere this machine's clock should be set."""
    network.ledger.warp(3600)
    settings = settings_for(network)
    clock = by_name(await chain_checks(settings, None))["clock"]
    assert clock.verdict is PASS
    assert 3590 < clock.numbers["skew_s"] < 3610


async def test_a_dead_endpoint_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What depends on it is not known, and not failed; the WebSocket can be done without."""
    monkeypatch.setattr(chain, "TIMEOUT_S", 1.0)
    settings = Settings(network="localnet", rpc_url="http://127.0.0.1:9")
    checks = by_name(await chain_checks(settings, None))
    assert [c.verdict for c in checks.values()] == [FAIL, WARN, WARN, WARN, WARN]
    assert "decloud-trainer localnet up" in checks["rpc"].fix
    socket = await websocket_check(settings)
    assert socket.verdict is WARN
    assert "every 5 s instead" in socket.text


async def test_faulty_services_are_told(network: LocalNetwork) -> None:
    """A gateway with wrong bytes, a pin service that is down, refused or without credentials."""
    posted = await network.post_round(reward_lamports=SOL // 10)
    settings = settings_for(network)
    network.faults.switch("gateway_wrong_bytes")
    (wrong,) = await gateway_checks(settings, posted.model_cid)
    assert wrong.verdict is FAIL
    assert "wrong bytes" in wrong.text
    network.faults.switch("gateway_wrong_bytes", on=False)

    two = dataclasses.replace(settings, gateways=("http://127.0.0.1:9", *settings.gateways))
    first, second = await gateway_checks(two, posted.model_cid)
    assert (first.verdict, second.verdict) == (WARN, PASS)
    (unknown,) = await gateway_checks(settings, None)
    assert unknown.verdict is WARN

    network.faults.switch("pin_down")
    (down,) = await pin_checks(settings)
    assert (down.verdict, "503" in down.text) == (FAIL, True)
    network.faults.switch("pin_down", on=False)

    bad = dataclasses.replace(settings, pinata_jwt="not-the-one")
    (refused,) = await pin_checks(bad)
    assert (refused.verdict, "401" in refused.text) == (FAIL, True)
    assert "pinata_jwt" in refused.fix
    both = dataclasses.replace(settings, kubo_api_url="http://127.0.0.1:9")
    first, second = await pin_checks(both)
    assert [first.verdict, second.verdict] == [PASS, WARN]
    assert second.name == "pin service Kubo"
    nothing = dataclasses.replace(settings, network="devnet", pinata_jwt="")
    (check,) = await pin_checks(nothing)
    assert (check.verdict, "pinata_jwt=-" in check.fix) == (FAIL, True)


async def test_each_endpoint_has_a_line_and_one_that_is_down_is_no_failure(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another one serves, the rest is known, too; no key in a URL is shown."""
    monkeypatch.setattr(chain, "TIMEOUT_S", 5.0)
    settings = dataclasses.replace(
        settings_for(network),
        rpc_url="http://127.0.0.1:9/SECRETKEY",
        rpc_fallbacks=(network.endpoints.rpc_url,),
        ws_fallbacks=("ws://127.0.0.1:9/SECRETKEY",),
    )
    checks = by_name(await chain_checks(settings, None))
    assert (checks["rpc"].verdict, checks["rpc 2"].verdict) == (WARN, PASS)
    assert checks["program"].verdict is PASS
    socket = await websocket_check(settings)
    assert socket.verdict is WARN
    assert "at 1 of 2 endpoints" in socket.text
    assert "SECRETKEY" not in repr([checks, socket, settings])
