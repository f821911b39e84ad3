"""solana-py, unchanged, against the local ledger: what its users call works as on a node."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from served import Served, served
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed, Finalized, Processed
from solana.rpc.core import RPCException
from solana.rpc.models import DataSliceOpts, MemcmpOpts, TxOpts
from solana.rpc.websocket_api import SolanaWsClient
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.rpc.config import RpcTransactionLogsFilter, RpcTransactionLogsFilterMentions
from solders.rpc.errors import SendTransactionPreflightFailureMessage
from solders.rpc.responses import (
    AccountNotification,
    LogsNotification,
    ProgramNotification,
    SignatureNotification,
    SlotNotification,
)
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from solders.transaction_status import (
    InstructionErrorCustom,
    TransactionConfirmationStatus,
    TransactionErrorInstructionError,
)
from transfers import SOL, signed_transfer

from decloud_trainer.localnet.accounts import Account


@pytest.fixture
async def net() -> AsyncIterator[Served]:
    async with served(slot_s=0.01) as found:
        yield found


@pytest.fixture
async def client(net: Served) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(net.endpoints.rpc_url, commitment=Confirmed) as found:
        yield found


@pytest.fixture
async def rich(client: AsyncClient) -> Keypair:
    """10 SOL from an airdrop that is final."""
    keypair = Keypair()
    airdrop = (await client.request_airdrop(keypair.pubkey(), 10 * SOL)).value
    await client.confirm_transaction(airdrop, Finalized, sleep_seconds=0.02)
    return keypair


async def transfer(
    client: AsyncClient, payer: Keypair, to: Pubkey, lamports: int
) -> VersionedTransaction:
    blockhash = (await client.get_latest_blockhash()).value.blockhash
    return signed_transfer(payer, to, lamports, blockhash, version=0)


async def test_send_confirm_and_read_back(client: AsyncClient, rich: Keypair) -> None:
    """Airdrop, blockhash, fee, simulation, sending, confirmation, status, transaction, history."""
    to = Pubkey.new_unique()
    transaction = await transfer(client, rich, to, SOL)
    assert (await client.get_fee_for_message(transaction.message)).value == 5000
    simulated = (await client.simulate_transaction(transaction, sig_verify=True)).value
    assert (simulated.err, simulated.units_consumed) == (None, 150)
    last_valid = (await client.get_latest_blockhash()).value.last_valid_block_height
    options = TxOpts(
        skip_confirmation=False,
        preflight_commitment=Confirmed,
        last_valid_block_height=last_valid,
    )
    sent = (await client.send_transaction(transaction, options)).value
    assert sent == transaction.signatures[0]
    assert (await client.get_balance(to)).value == SOL

    await client.confirm_transaction(sent, Finalized, sleep_seconds=0.02)
    statuses = (await client.get_signature_statuses([sent, Signature.new_unique()])).value
    assert statuses[0] is not None
    assert statuses[0].confirmation_status == TransactionConfirmationStatus.Finalized
    assert statuses[1] is None
    for encoding in ("json", "jsonParsed", "base64"):
        found = await client.get_transaction(sent, encoding, max_supported_transaction_version=0)
        assert found.value is not None
        meta = found.value.transaction.meta
        assert meta is not None
        assert (meta.err, meta.fee, meta.post_balances[1]) == (None, 5000, SOL)
    history = (await client.get_signatures_for_address(to, limit=5)).value
    assert [one.signature for one in history] == [sent]


async def test_a_failure_is_the_librarys_own_error(client: AsyncClient, rich: Keypair) -> None:
    """The preflight failure arrives as solders' type, with its logs."""
    transaction = await transfer(client, rich, Pubkey.new_unique(), 50 * SOL)
    with pytest.raises(RPCException) as raised:
        await client.send_transaction(transaction)
    failure = raised.value.args[0]
    assert isinstance(failure, SendTransactionPreflightFailureMessage)
    assert failure.data.err == TransactionErrorInstructionError(0, InstructionErrorCustom(1))
    assert failure.data.logs is not None
    assert len(failure.data.logs) == 3


async def test_accounts_in_all_forms(net: Served, client: AsyncClient) -> None:
    """One, many, by program with filters and slices, raw and parsed."""
    program, address = Pubkey.new_unique(), Pubkey.new_unique()
    net.ledger.set_account(address, Account(SOL, b"abcdef", program, False, 0))
    net.ledger.set_account(Pubkey.new_unique(), Account(SOL, b"xyz", program, False, 0))
    for encoding in ("base64", "base58"):
        one = (await client.get_account_info(address, Processed, encoding)).value
        assert one is not None
        assert (one.data, one.owner, one.lamports) == (b"abcdef", program, SOL)
    many = (await client.get_multiple_accounts([Pubkey.new_unique(), address], Processed)).value
    assert [account and account.data for account in many] == [None, b"abcdef"]
    listed = await client.get_program_accounts(
        program,
        Processed,
        "base64",
        DataSliceOpts(offset=1, length=2),
        filters=[6, MemcmpOpts(offset=0, bytes="2gPihUTjt3")],
    )
    assert listed.value == []
    listed = await client.get_program_accounts(
        program, Processed, "base64", DataSliceOpts(offset=1, length=2), filters=[6]
    )
    assert [(one.pubkey, one.account.data) for one in listed.value] == [(address, b"bc")]
    parsed = (await client.get_account_info_json_parsed(address, Processed)).value
    assert parsed is not None
    assert parsed.data == b"abcdef"


async def test_the_cluster(net: Served, client: AsyncClient) -> None:
    """The library parses every answer about the cluster itself."""
    assert await client.is_connected()
    assert (await client.get_genesis_hash()).value == net.ledger.genesis_hash
    assert (await client.get_minimum_balance_for_rent_exemption(200)).value == 2_282_880
    assert (await client.get_version()).value.solana_core
    slot = (await client.get_slot(Finalized)).value
    assert (await client.get_block_height()).value >= slot
    assert (await client.get_epoch_info()).value.absolute_slot >= slot
    assert (await client.get_block_time(slot)).value
    assert (await client.get_first_available_block()).value == 0
    assert (await client.get_minimum_ledger_slot()).value == 0
    assert (await client.get_transaction_count()).value == 0
    assert (await client.get_recent_prioritization_fees()).value[0].prioritization_fee == 0


async def test_subscriptions(net: Served, client: AsyncClient, rich: Keypair) -> None:
    """Account, program, logs, signature and slot notifications arrive as solders' types."""
    to = Pubkey.new_unique()
    transaction = await transfer(client, rich, to, SOL)
    everything = RpcTransactionLogsFilter.All
    mention = RpcTransactionLogsFilterMentions(to)
    async with SolanaWsClient(net.endpoints.ws_url) as ws:
        await ws.account_subscribe(pubkey=to, commitment=Confirmed, encoding="base64")
        await ws.program_subscribe(
            program_id=Pubkey.default(), commitment=Processed, encoding="base64", filters=[0]
        )
        await ws.logs_subscribe(filter_=everything, commitment=Processed)
        await ws.logs_subscribe(filter_=mention, commitment=Finalized)
        await ws.signature_subscribe(signature=transaction.signatures[0], commitment=Confirmed)
        slots = await ws.slot_subscribe()
        await client.send_transaction(transaction)
        heard: dict[type, int] = {}
        while heard.get(LogsNotification, 0) < 2:
            note = await ws.recv()
            heard[type(note)] = heard.get(type(note), 0) + 1
            if isinstance(note, AccountNotification):
                assert note.result.value.lamports == SOL
            if isinstance(note, SignatureNotification):
                assert note.result.value.err is None
        assert heard.pop(SlotNotification) >= 8
        assert heard == {
            AccountNotification: 1,
            ProgramNotification: 2,
            LogsNotification: 2,
            SignatureNotification: 1,
        }
        await ws.unsubscribe(slots)
