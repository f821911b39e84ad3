"""The Solana virtual machine as the ledger uses it: one transaction in, its effects out."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import base58
from solders.address_lookup_table_account import AddressLookupTable
from solders.clock import Clock
from solders.hash import Hash
from solders.litesvm import LiteSVM
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, TransactionMetadata

from decloud_trainer.errors import SettingsError
from decloud_trainer.localnet.accounts import CLOSED, Account
from decloud_trainer.localnet.failures import Failure, failure

if TYPE_CHECKING:
    # An older solders, which `Machine` refuses by name, has no MessageV1.
    from solders.message import Message, MessageV1

    AnyMessage = Message | MessageV0 | MessageV1


@dataclass(frozen=True, slots=True)
class TransactionKeys:
    """The accounts of a transaction in the order in which its instructions number them.

    Attributes:
        static: those in the message itself.
        writable: those it loads writable from address lookup tables.
        readonly: those it loads readonly from address lookup tables.
    """

    static: tuple[Pubkey, ...]
    writable: tuple[Pubkey, ...] = ()
    readonly: tuple[Pubkey, ...] = ()

    @property
    def all(self) -> tuple[Pubkey, ...]:
        return self.static + self.writable + self.readonly


@dataclass(frozen=True, slots=True)
class Outcome:
    """What executing or simulating a transaction gave.

    Attributes:
        error: None for success.
        landed: whether it is part of the ledger: it succeeded, or failed after its fee was taken.
        inner: a node's ``innerInstructions``.
        return_data: a node's ``returnData``.
        accounts: the states after it, of all accounts that it may write (simulation) or wrote.
    """

    error: Failure | None
    landed: bool
    logs: tuple[str, ...]
    units: int
    fee: int
    inner: tuple[dict[str, Any], ...]
    return_data: dict[str, Any] | None
    accounts: Mapping[Pubkey, Account | None]


class Machine:
    """LiteSVM, with all that concerns history and blockhashes left to the ledger.

    LiteSVM accepts only the current blockhash and remembers few signatures, so both checks are
    off here. Signatures are verified by the ledger, once.
    """

    def __init__(self) -> None:
        if not hasattr(LiteSVM, "get_program_accounts"):
            raise SettingsError(
                "the local network needs solders 0.29 or newer; an older one is installed",
                hint="run: pip install --upgrade 'solders>=0.29' (anchorpy holds it back: "
                "use an environment without anchorpy)",
            )
        self._vm = (
            LiteSVM().with_blockhash_check(False).with_sigverify(False).with_transaction_history(0)
        )

    def get(self, address: Pubkey) -> Account | None:
        return Account.from_vm(self._vm.get_account(address))

    def put(self, address: Pubkey, account: Account | None) -> None:
        self._vm.set_account(address, (account or CLOSED).to_vm())

    def add_program(self, address: Pubkey, elf: bytes) -> None:
        self._vm.add_program(address, elf)

    def set_slot(self, slot: int, unix_timestamp: int, hashes: Sequence[tuple[int, Hash]]) -> None:
        """Enter `slot`: programs see this clock; `hashes` are of the slots before it."""
        self._vm.warp_to_slot(slot)
        clock = self._vm.get_clock()
        self._vm.set_clock(
            Clock(
                slot,
                clock.epoch_start_timestamp,
                clock.epoch,
                clock.leader_schedule_epoch,
                unix_timestamp,
            )
        )
        self._vm.set_slot_hashes(hashes)

    def rent_exempt_lamports(self, data_bytes: int) -> int:
        return self._vm.minimum_balance_for_rent_exemption(data_bytes)

    def balances(self, keys: TransactionKeys) -> list[int]:
        return [self._vm.get_balance(key) or 0 for key in keys.all]

    def keys(self, message: AnyMessage) -> TransactionKeys:
        """Its accounts, those from lookup tables included; a missing table gives none."""
        writable: list[Pubkey] = []
        readonly: list[Pubkey] = []
        if isinstance(message, MessageV0):
            for lookup in message.address_table_lookups:
                account = self.get(lookup.account_key)
                found = AddressLookupTable.deserialize(account.data).addresses if account else []
                for indexes, loaded in (
                    (lookup.writable_indexes, writable),
                    (lookup.readonly_indexes, readonly),
                ):
                    loaded += [found[index] for index in bytes(indexes) if index < len(found)]
        return TransactionKeys(tuple(message.account_keys), tuple(writable), tuple(readonly))

    def execute(self, transaction: VersionedTransaction, keys: TransactionKeys) -> Outcome:
        """Run it and keep its effects."""
        candidates = writable_keys(transaction.message, keys)
        before = {key: self.get(key) for key in candidates}
        result = self._vm.send_transaction(transaction)
        after = {key: self.get(key) for key in candidates}
        changed = {key: after[key] for key in candidates if after[key] != before[key]}
        # The VM doesn't say whether a failed transaction was charged; its payer's balance does.
        return _outcome(result, changed, landed=bool(changed))

    def simulate(
        self,
        transaction: VersionedTransaction,
        keys: TransactionKeys,
        states: Mapping[Pubkey, Account | None],
    ) -> Outcome:
        """Run it without effects, on the present except for the accounts in `states`."""
        with self._as_if(states):
            result = self._vm.simulate_transaction(transaction)
            candidates = writable_keys(transaction.message, keys)
            after = {key: self.get(key) for key in candidates}
        if isinstance(result, FailedTransactionMetadata):
            return _outcome(result, after, landed=False)
        after |= {key: Account.from_vm(account) for key, account in result.post_accounts()}
        return _outcome(result.meta(), after, landed=False)

    @contextlib.contextmanager
    def _as_if(self, states: Mapping[Pubkey, Account | None]) -> Iterator[None]:
        present = {address: self.get(address) for address in states}
        try:
            for address, account in states.items():
                self.put(address, account)
            yield
        finally:
            for address, account in present.items():
                self.put(address, account)


def writable_keys(message: AnyMessage, keys: TransactionKeys) -> list[Pubkey]:
    """The accounts that the message asks to write, the payer first."""
    header = message.header
    signers = header.num_required_signatures
    writable_signers = signers - header.num_readonly_signed_accounts
    last_writable = len(keys.static) - header.num_readonly_unsigned_accounts
    static = [
        key
        for index, key in enumerate(keys.static)
        if index < writable_signers or signers <= index < last_writable
    ]
    return static + list(keys.writable)


def landed_meta(
    outcome: Outcome, keys: TransactionKeys, before: list[int], after: list[int]
) -> dict[str, Any]:
    """A node's ``meta`` of a landed transaction; the balances are those of `keys.all`."""
    error = outcome.error
    return {
        "err": error,
        "status": {"Ok": None} if error is None else {"Err": error},
        "fee": outcome.fee,
        "preBalances": before,
        "postBalances": after,
        "innerInstructions": list(outcome.inner),
        "logMessages": list(outcome.logs),
        "preTokenBalances": [],
        "postTokenBalances": [],
        "rewards": [],
        "loadedAddresses": {
            "writable": [str(key) for key in keys.writable],
            "readonly": [str(key) for key in keys.readonly],
        },
        "returnData": outcome.return_data,
        "computeUnitsConsumed": outcome.units,
    }


def _outcome(
    result: TransactionMetadata | FailedTransactionMetadata,
    accounts: Mapping[Pubkey, Account | None],
    *,
    landed: bool,
) -> Outcome:
    failed = isinstance(result, FailedTransactionMetadata)
    meta = result.meta() if isinstance(result, FailedTransactionMetadata) else result
    return Outcome(
        error=failure(result.err()) if isinstance(result, FailedTransactionMetadata) else None,
        landed=landed or not failed,
        logs=tuple(meta.logs()),
        units=meta.compute_units_consumed(),
        fee=meta.fee(),
        inner=tuple(_inner(meta)),
        return_data=_return_data(meta),
        accounts=accounts,
    )


def _inner(meta: TransactionMetadata) -> Iterator[dict[str, Any]]:
    for index, instructions in enumerate(meta.inner_instructions()):
        if instructions:
            yield {
                "index": index,
                "instructions": [
                    {
                        "programIdIndex": inner.instruction().program_id_index,
                        "accounts": list(inner.instruction().accounts),
                        "data": base58.b58encode(inner.instruction().data).decode(),
                        "stackHeight": inner.stack_height(),
                    }
                    for inner in instructions
                ],
            }


def _return_data(meta: TransactionMetadata) -> dict[str, Any] | None:
    found = meta.return_data()
    if not found.data:
        return None
    encoded = base64.b64encode(bytes(found.data)).decode()
    return {"programId": str(found.program_id), "data": [encoded, "base64"]}
