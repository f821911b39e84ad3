"""Accounts over time: what each one was at the end of each recent slot, and who owns what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from solders.account import Account as VmAccount
from solders.pubkey import Pubkey

SYSTEM_PROGRAM = Pubkey.default()


@dataclass(frozen=True, slots=True)
class Account:
    """One state of one account."""

    lamports: int
    data: bytes
    owner: Pubkey
    executable: bool
    rent_epoch: int

    @classmethod
    def from_vm(cls, account: VmAccount | None) -> Account | None:
        """None for an account that doesn't exist; one without lamports doesn't either."""
        if account is None or account.lamports == 0:
            return None
        return cls(
            account.lamports,
            account.data,
            account.owner,
            account.executable,
            account.rent_epoch,
        )

    def to_vm(self) -> VmAccount:
        return VmAccount(self.lamports, self.data, self.owner, self.executable, self.rent_epoch)


# What a node reports for an account that is gone, and what removes one from the VM.
CLOSED = Account(0, b"", SYSTEM_PROGRAM, False, 0)


class AccountVersions:
    """The states that can still be asked for: all since the finalized slot, and the one then.

    Only accounts that were ever written are known here; the VM's own ones (sysvars, built-in
    programs) are not.
    """

    def __init__(self) -> None:
        self._versions: dict[Pubkey, list[tuple[int, Account | None]]] = {}
        # Dicts as sets that keep their order, so that listings are stable. An entry stays until
        # pruning shows that no version has that owner any more.
        self._by_owner: defaultdict[Pubkey, dict[Pubkey, None]] = defaultdict(dict)

    def __contains__(self, address: Pubkey) -> bool:
        return address in self._versions

    def write(self, slot: int, address: Pubkey, account: Account | None) -> None:
        """Set the state as of `slot`, which is never before that of an earlier write."""
        versions = self._versions.setdefault(address, [])
        if versions and versions[-1][0] == slot:
            versions[-1] = (slot, account)
        else:
            versions.append((slot, account))
        if account is not None:
            self._by_owner[account.owner][address] = None

    def at(self, slot: int, address: Pubkey) -> Account | None:
        """The account at the end of `slot`; None if it didn't exist (or isn't known here)."""
        for version_slot, account in reversed(self._versions.get(address, ())):
            if version_slot <= slot:
                return account
        return None

    def owned_by(self, slot: int, owner: Pubkey) -> Iterator[tuple[Pubkey, Account]]:
        """The accounts of `owner` at the end of `slot`, in the order of their first writing."""
        for address in tuple(self._by_owner.get(owner, ())):
            account = self.at(slot, address)
            if account is not None and account.owner == owner:
                yield address, account

    def prune(self, slot: int, addresses: Iterable[Pubkey]) -> None:
        """Forget of these accounts what only slots before `slot` can see."""
        for address in addresses:
            versions = self._versions.get(address)
            if versions is None:
                continue
            before = {account.owner for _, account in versions if account is not None}
            current = max((i for i, (at, _) in enumerate(versions) if at <= slot), default=0)
            del versions[:current]
            if len(versions) == 1 and versions[0][1] is None:
                del self._versions[address]
                versions = []
            for owner in before - {account.owner for _, account in versions if account is not None}:
                self._by_owner[owner].pop(address, None)
