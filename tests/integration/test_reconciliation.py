"""The ledger equals the chain, to the lamport, over rounds of every outcome."""

from __future__ import annotations

from pathlib import Path

from reconciliation import reconcile


async def test_twenty_rounds_are_booked_to_the_lamport(tmp_path: Path) -> None:
    """Won, shared, lost, aborted, expired, unclaimable for now, refused by the guard, failed on
    chain, with priority fees and transfers to the cold address: the book's sum is the change of
    the wallet's balance, and has each of its transactions once."""
    found = await reconcile(tmp_path, 20)
    assert found.booked == found.on_chain
    assert found.unbooked == 0
    assert found.totals.fees_lamports == found.chain_fees
    assert found.rounds == 20
    assert found.states == {"claimed": 8, "lost": 8, "claimable": 2, "skipped": 2}
    assert found.refused == 2
    assert found.totals.priority_lamports > 0
    assert found.totals.stored_lamports > 0
    assert found.totals.net_lamports - found.totals.stored_lamports == found.on_chain
