"""What the steps need of the outside. Implementations: `chain.client`, `ipfs.pins`.

Every method may raise a `NetworkError` (retryable, nothing is known to have changed).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Protocol

from decloud_trainer.rounds.model import Action, Costs, Intent, Outcome, Round, Submission


class Chain(Protocol):
    """Reads of one program by one wallet. An answer may be some seconds old and may be older
    than an earlier answer; it is never made up."""

    async def round(self, round_id: int) -> Round | None:
        """The round, or None where the chain has none of that id.

        Raises LayoutError when the account there isn't a round of this generation."""
        ...

    async def open_rounds(self) -> Sequence[Round]:
        """Rounds that can be joined or soon can: waiting for a validator or for trainers."""
        ...

    async def submission(self, round_id: int) -> Submission | None:
        """The wallet's own submission in the round, or None if it hasn't joined."""
        ...

    async def submissions(self, *, unclaimed: bool = False) -> Sequence[Submission]:
        """All submissions of the wallet, or those whose reward it hasn't claimed; by round."""
        ...

    async def balance(self, *, since_slot: int = 0) -> int:
        """The wallet's lamports; with a slot: as of that one or later."""
        ...

    async def costs(self, round_id: int | None = None) -> Costs:
        """With a round: also what others pay at the moment to have its transactions early."""
        ...


class Sender(Protocol):
    """Signs and lands transactions. Between the two calls the caller records the intent."""

    async def prepare(self, action: Action) -> Intent:
        """Sign a transaction for the action; nothing is sent."""
        ...

    async def settle(self, intent: Intent, *, fresh: bool) -> Outcome:
        """Send, confirm, rebroadcast until the intent's fate is final.

        May be called again after a crash or a NetworkError, with `fresh=False`: then it first
        looks the signature up, and takes a preflight refusal as no proof, since the transaction
        may have been broadcast before."""
        ...


class Watch(Protocol):
    """Tells when rounds change."""

    def changes(self) -> AsyncGenerator[Round, None]:
        """Rounds as they appear and change, for ever. Hints: they may repeat, come late or out
        of order, and single ones may be lost; all open rounds are told again after each
        reconnect and from time to time. Never raises a NetworkError: it waits and goes on."""
        ...


class Pins(Protocol):
    """Content by CID. Both directions are idempotent."""

    async def fetch(self, cid: str, into: Path, *, max_bytes: int) -> None:
        """Write the verified content of a file's CID to the path `into`, atomically.

        What is there is verified as well: left alone if it is right, replaced if not.
        Raises InvalidCid, TooLarge, ContentMismatch (no gateway had the right bytes)."""
        ...

    async def pin(self, path: Path, *, name: str, within_s: float | None = None) -> str:
        """Pin a file or folder publicly; its CID, which was also computed here and is equal.

        When it returns, a gateway delivers the content or the pin service confirms it.
        `within_s` is the time left: no wait is longer, but bytes that advance aren't cut off.

        Raises PinError (retry), PinRefused (credentials)."""
        ...
