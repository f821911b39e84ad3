"""The local ledger over the real virtual machine."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from transfers import SOL, signed_transfer

from decloud_trainer.errors import InsufficientFunds, SettingsError
from decloud_trainer.localnet.accounts import Account
from decloud_trainer.localnet.ledger import Change, Ledger, Refused
from decloud_trainer.localnet.slots import BLOCKHASH_SLOTS, Commitment

CLOCK = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger()
    yield ledger
    ledger.close()


@pytest.fixture
def rich(ledger: Ledger) -> Keypair:
    keypair = Keypair()
    ledger.airdrop(keypair.pubkey(), 10 * SOL)
    return keypair


def balance(ledger: Ledger, address: Pubkey, level: Commitment = Commitment.PROCESSED) -> int:
    account = ledger.account(address, level)
    return 0 if account is None else account.lamports


def test_a_transfer_moves_lamports_and_costs_5000(ledger: Ledger, rich: Keypair) -> None:
    """Payer: amount and 5,000 for the signature; receiver: the amount; both stand in the meta."""
    to = Pubkey.new_unique()
    landed = ledger.submit(signed_transfer(rich, to, 3 * SOL, ledger.current.blockhash))
    assert landed.error is None
    assert balance(ledger, to) == 3 * SOL
    assert balance(ledger, rich.pubkey()) == 7 * SOL - 5000
    assert landed.meta["fee"] == 5000
    assert landed.meta["preBalances"][:2] == [10 * SOL, 0]
    assert landed.meta["postBalances"][:2] == [7 * SOL - 5000, 3 * SOL]


def test_readers_see_it_when_their_commitment_has_it(ledger: Ledger, rich: Keypair) -> None:
    """Processed at once, confirmed with the next slot, finalized eight slots later."""
    to = Pubkey.new_unique()
    ledger.submit(signed_transfer(rich, to, SOL, ledger.current.blockhash))
    seen = []
    for _ in range(10):
        seen.append([balance(ledger, to, level) // SOL for level in Commitment])
        ledger.advance_slot()
    assert seen == [[1, 0, 0]] + 7 * [[1, 1, 0]] + 2 * [[1, 1, 1]]


def test_a_transaction_lands_once_for_ever(ledger: Ledger, rich: Keypair) -> None:
    """A rebroadcast costs nothing and does nothing, however much happens in between."""
    transaction = signed_transfer(rich, Pubkey.new_unique(), SOL, ledger.current.blockhash)
    ledger.submit(transaction)
    for _ in range(100):
        ledger.airdrop(Pubkey.new_unique(), SOL)
    ledger.advance_slot()
    before = balance(ledger, rich.pubkey())
    with pytest.raises(Refused) as refused:
        ledger.submit(transaction)
    assert refused.value.failure == "AlreadyProcessed"
    assert balance(ledger, rich.pubkey()) == before


def test_a_transaction_dies_with_its_blockhash(ledger: Ledger, rich: Keypair) -> None:
    """The last slot that takes it is the last valid height that was promised with the hash."""
    blockhash = ledger.blockhash_at(Commitment.CONFIRMED)
    last = ledger.last_valid_height(Commitment.CONFIRMED)
    while ledger.current.number < last:
        ledger.advance_slot()
    ledger.submit(signed_transfer(rich, Pubkey.new_unique(), SOL, blockhash))
    ledger.advance_slot()
    with pytest.raises(Refused, match="Blockhash not found"):
        ledger.submit(signed_transfer(rich, Pubkey.new_unique(), SOL + 1, blockhash))


def test_a_failed_transaction_lands_and_costs_its_fee(ledger: Ledger, rich: Keypair) -> None:
    """Only the fee is taken, and the failure can be looked up."""
    transaction = signed_transfer(rich, Pubkey.new_unique(), 50 * SOL, ledger.current.blockhash)
    landed = ledger.submit(transaction)
    assert landed.error == {"InstructionError": [0, {"Custom": 1}]}
    assert balance(ledger, rich.pubkey()) == 10 * SOL - 5000
    assert ledger.transaction(landed.signature) == landed


def test_who_cannot_pay_leaves_no_trace(ledger: Ledger) -> None:
    """Without money for the fee there is no transaction at all."""
    poor = Keypair()
    transaction = signed_transfer(poor, Pubkey.new_unique(), 1, ledger.current.blockhash)
    with pytest.raises(Refused, match="no record of a prior credit"):
        ledger.submit(transaction)
    assert ledger.transaction(transaction.signatures[0]) is None


def test_a_simulation_changes_nothing(ledger: Ledger, rich: Keypair) -> None:
    """It tells the accounts as they would be and leaves those that are."""
    to = Pubkey.new_unique()
    outcome = ledger.simulate(signed_transfer(rich, to, SOL, ledger.current.blockhash))
    assert outcome.error is None
    assert outcome.fee == 5000
    after = outcome.accounts[to]
    assert after is not None
    assert after.lamports == SOL
    assert ledger.account(to) is None


def test_a_simulation_knows_only_what_its_commitment_knows(ledger: Ledger) -> None:
    """Money that is not final yet can't be spent at `finalized`, as on a node."""
    fresh = Keypair()
    blockhash = ledger.blockhash_at(Commitment.FINALIZED)
    ledger.airdrop(fresh.pubkey(), SOL)
    transaction = signed_transfer(fresh, Pubkey.new_unique(), SOL // 2, blockhash)
    assert ledger.simulate(transaction, Commitment.PROCESSED).error is None
    assert ledger.simulate(transaction, Commitment.FINALIZED).error == "AccountNotFound"
    assert balance(ledger, fresh.pubkey()) == SOL
    for _ in range(8):
        ledger.advance_slot()
    assert ledger.simulate(transaction, Commitment.FINALIZED).error is None


def test_an_emptied_account_is_gone(ledger: Ledger, rich: Keypair) -> None:
    """An account without lamports doesn't exist any more, at each level in its time."""
    everything = 10 * SOL - 5000
    blockhash = ledger.current.blockhash
    ledger.submit(signed_transfer(rich, Pubkey.new_unique(), everything, blockhash))
    assert ledger.account(rich.pubkey()) is None
    ledger.advance_slot()
    assert ledger.account(rich.pubkey(), Commitment.CONFIRMED) is None
    for _ in range(20):
        ledger.advance_slot()
    assert ledger.account(rich.pubkey(), Commitment.FINALIZED) is None


def test_rent_rules_are_the_machines(ledger: Ledger, rich: Keypair) -> None:
    """A new account needs the rent-exempt minimum."""
    too_little = ledger.rent_exempt_lamports(0) - 1
    transaction = signed_transfer(rich, Pubkey.new_unique(), too_little, ledger.current.blockhash)
    landed = ledger.submit(transaction)
    assert landed.error == {"InsufficientFundsForRent": {"account_index": 1}}


def test_airdrops_are_transactions_and_may_repeat(ledger: Ledger) -> None:
    """The same airdrop twice in one slot is two transactions, each with its history."""
    to = Pubkey.new_unique()
    first, second = (ledger.airdrop(to, SOL) for _ in range(2))
    assert balance(ledger, to) == 2 * SOL
    assert ledger.mentioning(to, Commitment.PROCESSED) == [second, first]
    with pytest.raises(InsufficientFunds, match="insufficient funds for rent"):
        ledger.airdrop(Pubkey.new_unique(), 1)
    with pytest.raises(SettingsError):
        ledger.airdrop(to, 0)


def test_the_clock_runs_with_real_time_and_can_be_moved_forward() -> None:
    """Programs see the time of the slot; warping adds to it, and it never runs back."""
    now = [1_700_000_000.7]
    ledger = Ledger(now=lambda: now[0])
    now[0] += 5
    ledger.advance_slot()
    assert ledger.unix_timestamp == 1_700_000_005
    assert ledger.warp(3600) == 1_700_003_605
    now[0] -= 100
    ledger.advance_slot()
    assert ledger.unix_timestamp == 1_700_003_605
    clock = ledger.account(CLOCK)
    assert clock is not None
    assert int.from_bytes(clock.data[0:8], "little") == ledger.current.number
    assert int.from_bytes(clock.data[32:40], "little") == 1_700_003_605
    with pytest.raises(SettingsError):
        ledger.warp(-1)
    with pytest.raises(SettingsError):
        ledger.warp(float("nan"))
    ledger.close()


def test_the_clock_is_now_by_default(ledger: Ledger) -> None:
    """A fresh ledger's time is this machine's."""
    assert abs(ledger.unix_timestamp - time.time()) < 5


def test_history_pages_between_two_signatures(ledger: Ledger) -> None:
    """Newest first; `before` and `until` are themselves left out; unfinished ones are hidden."""
    to = Pubkey.new_unique()
    landed = [ledger.airdrop(to, SOL) for _ in range(5)][::-1]
    found = ledger.mentioning(
        to, Commitment.PROCESSED, before=landed[0].signature, until=landed[4].signature, limit=2
    )
    assert found == landed[1:3]
    assert ledger.mentioning(to, Commitment.CONFIRMED) == []
    ledger.advance_slot()
    assert ledger.mentioning(to, Commitment.CONFIRMED) == landed


def test_listeners_hear_of_each_level_once(ledger: Ledger, rich: Keypair) -> None:
    """A transaction is news three times: processed, confirmed, finalized, with its slot."""
    ledger.advance_slot()
    heard: list[Change] = []
    end = ledger.listen(heard.append)
    to = Pubkey.new_unique()
    landed = ledger.submit(signed_transfer(rich, to, SOL, ledger.current.blockhash))
    for _ in range(12):
        ledger.advance_slot()
    end()
    ledger.advance_slot()
    news = [change for change in heard if landed in change.landed]
    assert [(change.commitment, change.slot) for change in news] == [
        (level, landed.slot) for level in Commitment
    ]
    assert all(set(change.accounts) == {rich.pubkey(), to} for change in news)
    assert sum(change.new_slot for change in heard) == 12


def test_accounts_are_listed_by_program(ledger: Ledger) -> None:
    """`program_accounts` follows creation, change of owner and removal."""
    program, other, address = (Pubkey.new_unique() for _ in range(3))
    ledger.set_account(address, Account(SOL, b"abc", program, False, 0))
    assert [found for found, _ in ledger.program_accounts(program)] == [address]
    assert list(ledger.program_accounts(program, Commitment.CONFIRMED)) == []
    ledger.advance_slot()
    ledger.set_account(address, Account(SOL, b"abc", other, False, 0))
    assert list(ledger.program_accounts(program)) == []
    assert [found for found, _ in ledger.program_accounts(program, Commitment.CONFIRMED)] == [
        address
    ]
    ledger.set_account(address, None)
    assert list(ledger.program_accounts(other)) == []


def test_each_ledger_is_its_own_network() -> None:
    """Journals tell networks apart by the genesis hash."""
    ledgers = [Ledger() for _ in range(2)]
    assert ledgers[0].genesis_hash != ledgers[1].genesis_hash
    for ledger in ledgers:
        ledger.close()


def test_old_slots_leave_no_trace_in_memory(ledger: Ledger, rich: Keypair) -> None:
    """A ledger that runs for months holds a bounded number of slots and account versions."""
    for number in range(3 * BLOCKHASH_SLOTS):
        if number % 10 == 0:
            ledger.airdrop(rich.pubkey(), SOL)
        ledger.advance_slot()
    assert ledger.current.number - ledger.first_slot < 300
    assert len(ledger._recent) <= 9
    assert len(ledger._versions._versions[rich.pubkey()]) <= 2
