"""Accounts over time."""

from __future__ import annotations

from solders.account import Account as VmAccount
from solders.pubkey import Pubkey

from decloud_trainer.localnet.accounts import Account, AccountVersions

ONE, TWO = Pubkey.new_unique(), Pubkey.new_unique()
OWNER, OTHER = Pubkey.new_unique(), Pubkey.new_unique()


def state(lamports: int, owner: Pubkey = OWNER) -> Account:
    return Account(lamports, b"data", owner, False, 0)


def test_reads_the_state_at_the_end_of_each_slot() -> None:
    """A reader at an older slot sees what was there then, and nothing that came later."""
    versions = AccountVersions()
    versions.write(5, ONE, state(1))
    versions.write(7, ONE, state(2))
    versions.write(7, ONE, state(3))
    versions.write(9, ONE, None)
    found = [versions.at(slot, ONE) for slot in (4, 5, 6, 7, 8, 9)]
    assert found == [None, state(1), state(1), state(3), state(3), None]


def test_lists_by_the_owner_of_that_time() -> None:
    """An account that changed hands is listed under the owner that it had at that slot."""
    versions = AccountVersions()
    versions.write(1, ONE, state(1))
    versions.write(1, TWO, state(2))
    versions.write(3, ONE, state(1, OTHER))
    assert list(versions.owned_by(2, OWNER)) == [(ONE, state(1)), (TWO, state(2))]
    assert list(versions.owned_by(3, OWNER)) == [(TWO, state(2))]
    assert list(versions.owned_by(3, OTHER)) == [(ONE, state(1, OTHER))]


def test_pruning_changes_no_answer_from_that_slot_on() -> None:
    """What is still askable stays; what is not, and accounts that are gone, take no room."""
    versions = AccountVersions()
    versions.write(1, ONE, state(1))
    versions.write(3, ONE, state(2, OTHER))
    versions.write(6, ONE, state(3, OTHER))
    versions.write(2, TWO, state(1))
    versions.write(4, TWO, None)
    versions.prune(4, [ONE, TWO])
    assert [versions.at(slot, ONE) for slot in (4, 6)] == [state(2, OTHER), state(3, OTHER)]
    assert list(versions.owned_by(4, OTHER)) == [(ONE, state(2, OTHER))]
    assert list(versions.owned_by(6, OWNER)) == []
    assert ONE in versions
    assert TWO not in versions


def test_an_account_without_lamports_does_not_exist() -> None:
    """As on Solana: the VM may still hold it, readers don't see it."""
    assert Account.from_vm(VmAccount(0, b"x", OWNER)) is None
    assert Account.from_vm(VmAccount(5, b"x", OWNER)) == Account(5, b"x", OWNER, False, 0)
