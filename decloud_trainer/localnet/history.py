"""What the ledger keeps for ever, in SQLite: accounts, transactions, its identity and its clock.

Each landed transaction is one database transaction, committed before anyone hears of it, so a
killed process loses nothing that was answered. (A power cut may lose the last moments, never
the consistency: WAL with ``synchronous=NORMAL``. This is play money.)
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solders.account import Account as VmAccount
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

from decloud_trainer.errors import CorruptionError, DecloudError
from decloud_trainer.files import make_private_dir
from decloud_trainer.localnet.accounts import Account
from decloud_trainer.localnet.failures import Failure

FORMAT = "1"
FILE = "ledger.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS slots (slot INTEGER PRIMARY KEY, blockhash BLOB NOT NULL,
                                  block_time INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (address BLOB PRIMARY KEY, state BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS transactions (number INTEGER PRIMARY KEY, signature BLOB UNIQUE NOT NULL,
                                         slot INTEGER NOT NULL, block_time INTEGER NOT NULL,
                                         error TEXT NOT NULL, wire BLOB NOT NULL,
                                         meta TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS transactions_slot ON transactions (slot);
CREATE TABLE IF NOT EXISTS mentions (address BLOB, number INTEGER,
                                     PRIMARY KEY (address, number)) WITHOUT ROWID;
"""
_LANDED = "number, signature, slot, block_time, error, wire, meta"


@dataclass(frozen=True, slots=True)
class Landed:
    """A transaction that is part of the ledger, successful or not.

    Attributes:
        block_time: unix seconds.
        error: None for success.
        wire: the signed transaction, serialized.
        meta: a node's ``meta`` of ``getTransaction``.
    """

    signature: Signature
    slot: int
    block_time: int
    error: Failure | None
    wire: bytes
    meta: dict[str, Any]


class History:
    """The database. Not for several threads or processes; the ledger's owner sees to that.

    Args:
        folder: where it lives; None keeps all in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._where = "memory" if folder is None else str(make_private_dir(folder) / FILE)
        with self._translated():
            self._db = sqlite3.connect(
                ":memory:" if folder is None else self._where, isolation_level=None
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        if folder is not None:
            Path(self._where).chmod(0o600)
        found = self.fact("format")
        if found is None:
            self.set_fact("format", FORMAT)
        elif found != FORMAT:
            raise CorruptionError(
                f"{self._where} has the format {found}; this version reads {FORMAT}",
                hint="use another state folder, or delete this one to start a new ledger",
            )

    def close(self) -> None:
        self._db.close()

    def fact(self, name: str) -> str | None:
        with self._translated():
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_fact(self, name: str, value: str) -> None:
        with self._translated():
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def add_slot(self, slot: int, blockhash: Hash, block_time: int, *, keep: int) -> None:
        """Record a slot, and forget those more than `keep` before it."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO slots VALUES (?, ?, ?)",
                (slot, bytes(blockhash), block_time),
            )
            self._db.execute("DELETE FROM slots WHERE slot <= ?", (slot - keep,))

    def slots(self) -> list[tuple[int, Hash, int]]:
        """Those kept, oldest first: slot, blockhash, unix seconds."""
        with self._translated():
            rows = self._db.execute("SELECT slot, blockhash, block_time FROM slots ORDER BY slot")
            return [(slot, Hash(blockhash), time) for slot, blockhash, time in rows]

    def block_time(self, slot: int) -> int | None:
        """Unix seconds of a slot that is kept or has a transaction."""
        with self._translated():
            row = self._db.execute(
                "SELECT block_time FROM slots WHERE slot = ? UNION ALL "
                "SELECT block_time FROM transactions WHERE slot = ? LIMIT 1",
                (slot, slot),
            ).fetchone()
        return None if row is None else int(row[0])

    def accounts(self) -> Iterator[tuple[Pubkey, Account]]:
        """All accounts that exist, in no order."""
        with self._translated():
            for address, state in self._db.execute("SELECT address, state FROM accounts"):
                account = Account.from_vm(VmAccount.from_bytes(state))
                if account is not None:
                    yield Pubkey(address), account

    def put_accounts(self, accounts: Mapping[Pubkey, Account | None]) -> None:
        with self._transaction():
            self._put(accounts)

    def land(
        self,
        landed: Landed,
        mentions: Iterable[Pubkey],
        accounts: Mapping[Pubkey, Account | None],
    ) -> None:
        """Record a transaction and its effects, all or nothing.

        Raises:
            DecloudError: the database can't be written; or the signature is not new.
        """
        with self._transaction():
            number = self._db.execute(
                "INSERT INTO transactions (signature, slot, block_time, error, wire, meta) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    bytes(landed.signature),
                    landed.slot,
                    landed.block_time,
                    json.dumps(landed.error),
                    landed.wire,
                    json.dumps(landed.meta),
                ),
            ).lastrowid
            self._db.executemany(
                "INSERT OR IGNORE INTO mentions VALUES (?, ?)",
                [(bytes(address), number) for address in mentions],
            )
            self._put(accounts)

    def transaction(self, signature: Signature) -> Landed | None:
        with self._translated():
            row = self._db.execute(
                f"SELECT {_LANDED} FROM transactions WHERE signature = ?",  # noqa: S608
                (bytes(signature),),
            ).fetchone()
        return None if row is None else _landed(row)

    def since(self, slot: int) -> list[Landed]:
        """All transactions of that slot and later ones, oldest first."""
        with self._translated():
            rows = self._db.execute(
                f"SELECT {_LANDED} FROM transactions WHERE slot >= ? ORDER BY number",  # noqa: S608
                (slot,),
            ).fetchall()
        return [_landed(row) for row in rows]

    def transaction_count(self) -> int:
        with self._translated():
            row = self._db.execute("SELECT max(number) FROM transactions").fetchone()
        return int(row[0] or 0)

    def mentioning(
        self,
        address: Pubkey,
        *,
        last_slot: int,
        before: Signature | None = None,
        until: Signature | None = None,
        limit: int = 1000,
    ) -> list[Landed]:
        """Transactions up to `last_slot` that name `address`, newest first.

        Those at and after `before`, and those at and before `until`, are left out. An unknown
        `before` gives nothing; an unknown `until` leaves nothing out.
        """
        newest = self._number(before, unknown=0) if before is not None else None
        oldest = self._number(until, unknown=0) if until is not None else 0
        with self._translated():
            rows = self._db.execute(
                f"SELECT {_LANDED} FROM mentions JOIN transactions USING (number) "  # noqa: S608
                "WHERE address = ? AND number > ? AND (? IS NULL OR number < ?) AND slot <= ? "
                "ORDER BY number DESC LIMIT ?",
                (bytes(address), oldest, newest, newest, last_slot, limit),
            ).fetchall()
        return [_landed(row) for row in rows]

    def _number(self, signature: Signature, *, unknown: int) -> int:
        with self._translated():
            row = self._db.execute(
                "SELECT number FROM transactions WHERE signature = ?", (bytes(signature),)
            ).fetchone()
        return unknown if row is None else int(row[0])

    def _put(self, accounts: Mapping[Pubkey, Account | None]) -> None:
        for address, account in accounts.items():
            if account is None:
                self._db.execute("DELETE FROM accounts WHERE address = ?", (bytes(address),))
            else:
                self._db.execute(
                    "INSERT OR REPLACE INTO accounts VALUES (?, ?)",
                    (bytes(address), bytes(account.to_vm())),
                )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            damaged = "malformed" in str(error) or "not a database" in str(error)
            kind = CorruptionError if damaged else DecloudError
            raise kind(
                f"the local ledger's database ({self._where}) failed: {error}",
                hint="check the free disk space and the folder's permissions, or use another "
                "state folder",
            ) from error


def _landed(row: Sequence[Any]) -> Landed:
    _, signature, slot, block_time, error, wire, meta = row
    return Landed(
        Signature(signature), slot, block_time, json.loads(error), bytes(wire), json.loads(meta)
    )
