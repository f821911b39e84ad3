"""A ledger with a state folder, over restarts and kill -9."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from transfers import SOL, signed_transfer

from decloud_trainer.errors import CorruptionError, DecloudError
from decloud_trainer.localnet.history import FILE
from decloud_trainer.localnet.ledger import Ledger, Refused
from decloud_trainer.localnet.slots import Commitment

# Answers each airdrop on stdout, then waits to be killed in the middle of the next.
CHILD = """
import sys
from pathlib import Path
from solders.pubkey import Pubkey
from decloud_trainer.localnet.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
while True:
    print(ledger.airdrop(Pubkey.from_string(sys.argv[2]), 10**9).signature, flush=True)
    ledger.advance_slot()
"""


def test_a_restart_keeps_the_whole_ledger(tmp_path: Path) -> None:
    """Identity, money, history, signatures, blockhashes and the moved clock are all there."""
    first = Ledger(tmp_path)
    payer, to = Keypair(), Pubkey.new_unique()
    first.airdrop(payer.pubkey(), 5 * SOL)
    blockhash = first.current.blockhash
    transaction = signed_transfer(payer, to, SOL, blockhash)
    landed = first.submit(transaction)
    first.warp(7200)
    first.close()

    again = Ledger(tmp_path)
    assert again.genesis_hash == first.genesis_hash
    assert again.current.number == first.current.number + 1
    assert again.unix_timestamp >= first.unix_timestamp
    assert again.transaction(landed.signature) == landed
    assert again.commitment_of(landed.slot) is Commitment.FINALIZED
    assert again.mentioning(to) == [landed]
    for level in Commitment:
        account = again.account(to, level)
        assert account is not None
        assert account.lamports == SOL
    with pytest.raises(Refused) as refused:
        again.submit(transaction)
    assert refused.value.failure == "AlreadyProcessed"
    assert again.submit(signed_transfer(payer, to, 2 * SOL, blockhash)).error is None
    again.airdrop(to, SOL)
    again.close()


def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    """Every signature that a killed ledger gave out is there, with its lamports."""
    to = Pubkey.new_unique()
    words = [sys.executable, "-c", CHILD, str(tmp_path), str(to)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        answered = [child.stdout.readline().strip() for _ in range(40)]
        child.kill()
        answered += child.stdout.read().split()

    ledger = Ledger(tmp_path)
    whole = [text for text in answered if len(text) > 80]
    assert len(whole) >= 40
    found = [ledger.transaction(Signature.from_string(text)) for text in whole]
    assert all(landed is not None and landed.error is None for landed in found)
    account = ledger.account(to)
    assert account is not None
    assert account.lamports == ledger.transaction_count() * SOL
    ledger.close()


def test_the_folder_is_private(tmp_path: Path) -> None:
    """It holds the faucet's key."""
    folder = tmp_path / "state"
    Ledger(folder).close()
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / FILE).stat().st_mode & 0o077 == 0


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    """Neither a foreign file nor a newer format is overwritten."""
    (tmp_path / FILE).write_bytes(b"this is no database" * 100)
    with pytest.raises(CorruptionError, match="not a database"):
        Ledger(tmp_path)
    newer = tmp_path / "newer"
    Ledger(newer).close()
    database = sqlite3.connect(newer / FILE)
    database.execute("UPDATE facts SET value = '99' WHERE name = 'format'")
    database.commit()
    database.close()
    with pytest.raises(CorruptionError, match="format 99"):
        Ledger(newer)


def test_a_creation_that_was_cut_short_starts_over(tmp_path: Path) -> None:
    """Killed before it had its identity, a ledger is simply made again."""
    Ledger(tmp_path).close()
    database = sqlite3.connect(tmp_path / FILE)
    database.execute("DELETE FROM facts WHERE name = 'genesis hash'")
    database.commit()
    database.close()
    ledger = Ledger(tmp_path)
    ledger.airdrop(Pubkey.new_unique(), SOL)
    ledger.close()


def land_until_full(ledger: Ledger, transactions: list[VersionedTransaction]) -> int:
    """How many landed before the database was full."""
    for number, transaction in enumerate(transactions):
        try:
            ledger.submit(transaction)
        except DecloudError:
            return number
    raise AssertionError("the database never was full")


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """What can't be stored has not happened: no money moved, and it may be sent again."""
    ledger = Ledger(tmp_path)
    payer, to = Keypair(), Pubkey.new_unique()
    ledger.airdrop(payer.pubkey(), 5 * SOL)
    pages = ledger._history._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._history._db.execute(f"PRAGMA max_page_count = {pages}")
    blockhash = ledger.current.blockhash
    transactions = [signed_transfer(payer, to, SOL // 100 + n, blockhash) for n in range(200)]
    landed = land_until_full(ledger, transactions)
    account = ledger.account(payer.pubkey())
    assert account is not None
    spent = sum(SOL // 100 + n + 5000 for n in range(landed))
    assert account.lamports == 5 * SOL - spent
    ledger._history._db.execute("PRAGMA max_page_count = 1000000")
    assert ledger.submit(transactions[landed]).slot == ledger.current.number
    ledger.close()
