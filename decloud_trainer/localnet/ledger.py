"""The local ledger: a Solana cluster of one, without its network.

Slots, blockhashes, commitment levels, signatures and history around the virtual machine. It is
synchronous and belongs to one thread (the servers' event loop); it never waits for anything
but its own database.

Where it is simpler than a cluster: a transaction lands in the moment it is submitted, no slot
is skipped (block height = slot), nothing is ever rolled back, an epoch is only a number, and
durable nonces are not accepted as blockhashes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from decloud_trainer.errors import (
    ChainError,
    CorruptionError,
    DecloudError,
    InsufficientFunds,
    SettingsError,
)
from decloud_trainer.localnet.accounts import SYSTEM_PROGRAM, Account, AccountVersions
from decloud_trainer.localnet.failures import (
    ALREADY_PROCESSED,
    BLOCKHASH_NOT_FOUND,
    Failure,
    sentence,
)
from decloud_trainer.localnet.faucet import FAUCET_LAMPORTS, faucet_transfer
from decloud_trainer.localnet.history import History, Landed
from decloud_trainer.localnet.machine import Machine, Outcome, TransactionKeys, landed_meta
from decloud_trainer.localnet.slots import (
    BLOCKHASH_SLOTS,
    GENESIS_SLOT,
    REMEMBERED_SLOTS,
    Commitment,
    Slot,
    Slots,
)


@dataclass(frozen=True, slots=True)
class Change:
    """News for subscribers: `landed` transactions and `accounts` that reached a commitment.

    Attributes:
        slot: what the level has reached; account states are those at its end.
        new_slot: at PROCESSED only: whether the news is that the slot began.
    """

    commitment: Commitment
    slot: int
    landed: tuple[Landed, ...] = ()
    accounts: tuple[Pubkey, ...] = ()
    new_slot: bool = False


class Refused(ChainError):
    """The transaction can't be part of the ledger; it left no trace and cost nothing.

    Attributes:
        failure: why, in a node's JSON form.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(sentence(failure))
        self.failure = failure


class Ledger:
    """One ledger.

    Args:
        state: the folder that keeps it over restarts; None = in memory only.
        confirmed_lag, finalized_lag: after how many further slots a slot counts as such. On the
            real network about 1 and 32; fewer here, to keep tests and demos quick.
        now: unix seconds; the ledger's clock runs with it.
    """

    def __init__(
        self,
        state: Path | None = None,
        *,
        confirmed_lag: int = 1,
        finalized_lag: int = 8,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._vm = Machine()
        self._history = History(state)
        self._versions = AccountVersions()
        self._slots = Slots(confirmed_lag, finalized_lag)
        self._recent: dict[int, tuple[list[Landed], dict[Pubkey, None]]] = {}
        self._listeners: list[Callable[[Change], None]] = []
        self._airdrops = 0
        self._open()

    def close(self) -> None:
        self._history.close()

    # --- slots, time and blockhashes ------------------------------------------------------------

    @property
    def current(self) -> Slot:
        return self._slots.current

    def slot_at(self, commitment: Commitment) -> int:
        """The newest slot of that commitment."""
        return self._slots.at(commitment).number

    def blockhash_at(self, commitment: Commitment) -> Hash:
        return self._slots.at(commitment).blockhash

    def blockhash_is_valid(self, blockhash: Hash, commitment: Commitment) -> bool:
        """Whether a transaction with it would be accepted by a reader at that commitment."""
        return self._slots.blockhash_is_valid(blockhash, commitment)

    def last_valid_height(self, commitment: Commitment) -> int:
        """The last block height at which a transaction with that blockhash can land."""
        return self.slot_at(commitment) + BLOCKHASH_SLOTS

    def commitment_of(self, slot: int) -> Commitment:
        """What a slot that has begun has reached."""
        return self._slots.commitment_of(slot)

    def block_time(self, slot: int) -> int | None:
        return self._history.block_time(slot)

    @property
    def first_slot(self) -> int:
        """The oldest slot whose blockhash is still known."""
        return self._slots.first.number

    @property
    def unix_timestamp(self) -> int:
        """The time that programs see in the current slot, unix seconds."""
        return self._clock

    def advance_slot(self) -> int:
        """End the current slot and begin the next, whose number is returned."""
        reached = {level: self.slot_at(level) for level in Commitment}
        self._begin_slot(self.current.number + 1)
        self._tell(Change(Commitment.PROCESSED, self.current.number, new_slot=True))
        for level in (Commitment.CONFIRMED, Commitment.FINALIZED):
            for slot in range(reached[level] + 1, self.slot_at(level) + 1):
                landed, accounts = self._recent.get(slot, ((), ()))
                self._tell(Change(level, slot, tuple(landed), tuple(accounts)))
        self._forget(reached[Commitment.FINALIZED])
        return self.current.number

    def warp(self, seconds: float) -> int:
        """Move the clock forward; slots and blockhashes stay. Returns the new unix time.

        Raises:
            SettingsError: it would move back.
        """
        if not 0 <= seconds < 10**9:
            raise SettingsError(f"the clock can't be moved by {seconds} seconds, only forward")
        self._offset += seconds
        self._history.set_fact("clock offset", repr(self._offset))
        self.advance_slot()
        return self.unix_timestamp

    # --- accounts -------------------------------------------------------------------------------

    def account(
        self, address: Pubkey, commitment: Commitment = Commitment.PROCESSED
    ) -> Account | None:
        """The account as of that commitment; None if it doesn't exist there."""
        return self.account_in_slot(address, self.slot_at(commitment))

    def account_in_slot(self, address: Pubkey, slot: int) -> Account | None:
        """The account at the end of a slot that is not older than the finalized one."""
        if address in self._versions:
            return self._versions.at(slot, address)
        return self._vm.get(address)

    def program_accounts(
        self, program: Pubkey, commitment: Commitment = Commitment.PROCESSED
    ) -> Iterator[tuple[Pubkey, Account]]:
        """All accounts that the program owns as of that commitment."""
        return self._versions.owned_by(self.slot_at(commitment), program)

    def set_account(self, address: Pubkey, account: Account | None) -> None:
        """Put an account there by decree (no transaction, no history)."""
        self._vm.put(address, account)
        self._history.put_accounts({address: account})
        self._write(address, account)
        self._tell(Change(Commitment.PROCESSED, self.current.number, accounts=(address,)))

    def add_program(self, program: Pubkey, elf: bytes) -> None:
        """Load a program. It is not part of the stored state: load it at each start."""
        self._vm.add_program(program, elf)

    def rent_exempt_lamports(self, data_bytes: int) -> int:
        return self._vm.rent_exempt_lamports(data_bytes)

    # --- transactions ---------------------------------------------------------------------------

    def submit(self, transaction: VersionedTransaction) -> Landed:
        """Execute a transaction whose form and signatures have been verified.

        A failed one lands too if it could pay its fee; see `Landed.error`.

        Raises:
            Refused: it left no trace.
            DecloudError: the database failed; it left no trace either.
        """
        refusal = self._refusal(transaction, Commitment.PROCESSED)
        if refusal is not None:
            raise Refused(refusal)
        keys = self._vm.keys(transaction.message)
        states = {key: self._vm.get(key) for key in keys.all}
        before = self._vm.balances(keys)
        outcome = self._vm.execute(transaction, keys)
        if not outcome.landed:
            raise Refused(outcome.error or "AccountNotFound")
        landed = Landed(
            signature=transaction.signatures[0],
            slot=self.current.number,
            block_time=self.current.block_time,
            error=outcome.error,
            wire=bytes(transaction),
            meta=landed_meta(outcome, keys, before, self._vm.balances(keys)),
        )
        try:
            self._history.land(landed, keys.all, outcome.accounts)
        except DecloudError:
            for address in outcome.accounts:
                self._vm.put(address, states[address])
            raise
        for address, account in outcome.accounts.items():
            self._write(address, account, before=states[address])
        self._recent.setdefault(landed.slot, ([], {}))[0].append(landed)
        self._tell(
            Change(Commitment.PROCESSED, landed.slot, (landed,), tuple(outcome.accounts)),
        )
        return landed

    def simulate(
        self,
        transaction: VersionedTransaction,
        commitment: Commitment = Commitment.PROCESSED,
        *,
        check_blockhash: bool = True,
    ) -> Outcome:
        """What the transaction would do on the accounts as of that commitment, without effects."""
        refusal = self._refusal(transaction, commitment) if check_blockhash else None
        if refusal is not None:
            return Outcome(refusal, False, (), 0, 0, (), None, {})
        keys = self._vm.keys(transaction.message)
        slot = self.slot_at(commitment)
        return self._vm.simulate(transaction, keys, dict(self._past(keys, slot)))

    def keys(self, transaction: VersionedTransaction) -> TransactionKeys:
        return self._vm.keys(transaction.message)

    def transaction(self, signature: Signature) -> Landed | None:
        return self._history.transaction(signature)

    def mentioning(
        self,
        address: Pubkey,
        commitment: Commitment = Commitment.FINALIZED,
        *,
        before: Signature | None = None,
        until: Signature | None = None,
        limit: int = 1000,
    ) -> list[Landed]:
        """Landed transactions that name the account, newest first, between two others."""
        return self._history.mentioning(
            address, last_slot=self.slot_at(commitment), before=before, until=until, limit=limit
        )

    def landed_since(self, slot: int) -> list[Landed]:
        """All transactions of that slot and later ones, oldest first."""
        return self._history.since(slot)

    def transaction_count(self) -> int:
        return self._history.transaction_count()

    def airdrop(self, address: Pubkey, lamports: int) -> Landed:
        """Transfer from the faucet, by an ordinary transaction.

        Raises:
            SettingsError: the amount is no amount.
            InsufficientFunds: the faucet has run dry, or so few lamports can't stand alone there.
        """
        if not 0 < lamports <= FAUCET_LAMPORTS:
            raise SettingsError(f"{lamports} lamports can't be given; ask for at least 1")
        self._airdrops += 1
        blockhash = self.blockhash_at(Commitment.PROCESSED)
        landed = self.submit(
            faucet_transfer(self._faucet, address, lamports, blockhash, self._airdrops)
        )
        if landed.error is not None:
            raise InsufficientFunds(
                f"the airdrop of {lamports} lamports to {address} failed: {sentence(landed.error)}",
                hint=f"a new account needs at least {self.rent_exempt_lamports(0)} lamports",
            )
        return landed

    # --- listeners ------------------------------------------------------------------------------

    def listen(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Have `listener(change)` called with all news, in order; the answer ends that.

        It is called from within `submit` and `advance_slot` and must not call those.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # --- inside ---------------------------------------------------------------------------------

    def _open(self) -> None:
        genesis = self._history.fact("genesis hash")
        if genesis is None:
            self._create()
            return
        faucet, offset = self._history.fact("faucet"), self._history.fact("clock offset")
        slots = self._history.slots()
        if faucet is None or offset is None or not slots:
            raise CorruptionError(
                "the local ledger's stored state is incomplete",
                hint="delete the state folder to start a new ledger",
            )
        self.genesis_hash = Hash.from_string(genesis)
        self._faucet = Keypair.from_base58_string(faucet)
        self._offset = float(offset)
        self._slots.restore(Slot(*row) for row in slots)
        self._clock = self.current.block_time
        # Programs last: the VM reads a program's data account when the program is put.
        stored = sorted(self._history.accounts(), key=lambda item: item[1].executable)
        for address, account in stored:
            self._vm.put(address, account)
            self._versions.write(self._slots.floor, address, account)
        self._begin_slot(self.current.number + 1)

    def _create(self) -> None:
        self._offset = 0.0
        self._clock = 0
        self.genesis_hash = Hash(secrets.token_bytes(32))
        self._faucet = Keypair()
        self._begin_slot(GENESIS_SLOT)
        self._history.set_fact("faucet", str(self._faucet))
        self._history.set_fact("clock offset", repr(self._offset))
        money = Account(FAUCET_LAMPORTS, b"", SYSTEM_PROGRAM, False, 0)
        self.set_account(self._faucet.pubkey(), money)
        # Last: a ledger without it has not been created.
        self._history.set_fact("genesis hash", str(self.genesis_hash))
        self._begin_slot(GENESIS_SLOT + 1)

    def _begin_slot(self, number: int) -> None:
        self._clock = max(self._clock, int(self._now() + self._offset))
        slot = Slot(number, Hash(secrets.token_bytes(32)), self._clock)
        # First of all: if the database fails, the slot has not begun and can be tried again.
        self._history.add_slot(number, slot.blockhash, slot.block_time, keep=REMEMBERED_SLOTS)
        self._vm.set_slot(number, self._clock, self._slots.hashes())
        self._slots.add(slot)

    def _refusal(self, transaction: VersionedTransaction, commitment: Commitment) -> Failure | None:
        if not self.blockhash_is_valid(transaction.message.recent_blockhash, commitment):
            return BLOCKHASH_NOT_FOUND
        if self._history.transaction(transaction.signatures[0]) is not None:
            return ALREADY_PROCESSED
        return None

    def _past(self, keys: TransactionKeys, slot: int) -> Iterator[tuple[Pubkey, Account | None]]:
        """Those of the accounts that were different at the end of `slot`."""
        for key in keys.all:
            if key in self._versions:
                then, present = self._versions.at(slot, key), self._vm.get(key)
                if then != present and not (present and present.executable):
                    yield key, then

    def _write(
        self, address: Pubkey, account: Account | None, *, before: Account | None = None
    ) -> None:
        if before is not None and address not in self._versions:
            self._versions.write(self._slots.floor, address, before)
        slot = self.current.number
        self._versions.write(slot, address, account)
        self._recent.setdefault(slot, ([], {}))[1][address] = None

    def _forget(self, before: int) -> None:
        final = self.slot_at(Commitment.FINALIZED)
        for slot in range(before, final + 1):
            _, accounts = self._recent.pop(slot, ((), ()))
            self._versions.prune(final, accounts)

    def _tell(self, change: Change) -> None:
        for listener in tuple(self._listeners):
            listener(change)
