"""Fetch files by CID from public gateways, believing none of them.

The best gateway is asked first. While it delivers hardly a byte, the next one is asked as well,
from where the first has got to; whoever has verified content first wins. Bytes that come slowly
never make a fetch fail, only silence does. Nothing unverified gets the file's final name.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from decloud_trainer.errors import (
    ContentMismatch,
    DecloudError,
    GatewayError,
    SettingsError,
    TooLarge,
)
from decloud_trainer.files import PART_SUFFIX, publish, temporary_prefix
from decloud_trainer.ipfs.cid import Cid, is_content
from decloud_trainer.ipfs.gateway import Gateway, Patience
from decloud_trainer.ipfs.http import check_base_url
from decloud_trainer.ipfs.race import Race
from decloud_trainer.ipfs.scores import FAILED_S, WRONG_S, Scores
from decloud_trainer.ipfs.transfer import Report, Transfer, writing

MAX_AT_ONCE = 3
# Less than this within `hedge_s` is as good as nothing.
HEDGE_BYTES = 16 * 1024
_LOOK_S = 0.1  # between two looks at how the transfers do


@dataclass(slots=True)
class _Failures:
    """Why each gateway could not help."""

    reasons: list[str] = field(default_factory=list)
    network: bool = False
    too_large: bool = False

    def add(self, url: str, error: DecloudError) -> None:
        self.reasons.append(f"{url}: {error.message}")
        self.network |= isinstance(error, GatewayError)
        self.too_large |= isinstance(error, TooLarge)

    def error(self, cid: Cid) -> DecloudError:
        told = "; ".join(self.reasons)
        if self.network:
            return GatewayError(
                f"no gateway delivered {cid}: {told}", hint="it will be tried again later"
            )
        if self.too_large:
            return TooLarge(f"{cid} is larger than accepted: {told}")
        return ContentMismatch(
            f"no gateway has the right bytes for {cid}: {told}", hint="add another gateway"
        )


class Gateways:
    """Gateways, those that have served best of late first. May be used by several threads."""

    def __init__(
        self,
        urls: Sequence[str],
        patience: Patience | None = None,
        *,
        scores: Scores | None = None,
    ) -> None:
        """Take base addresses like ``https://ipfs.io`` (``/ipfs`` at the end is understood).

        Raises:
            SettingsError: none given, or one that can't be used.
        """
        checked = [check_base_url(url, "an IPFS gateway").removesuffix("/ipfs") for url in urls]
        if not checked:
            raise SettingsError("no IPFS gateway is configured")
        self.urls = tuple(dict.fromkeys(checked))
        self._patience = patience or Patience()
        self._scores = scores or Scores()

    def __repr__(self) -> str:
        return f"Gateways({list(self.urls)})"

    def fetch(
        self,
        cid: str,
        into: Path,
        *,
        max_bytes: int,
        report: Report | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Write the verified content of a file's CID to the path `into`, atomically.

        A file that is there already and is right is left alone; a damaged one is replaced.
        Setting `stop` from another thread ends the fetch soon, with a GatewayError.

        Raises:
            InvalidCid: `cid` is none.
            GatewayError: retryable; every gateway failed, at least one by the network.
            TooLarge: the content is larger than `max_bytes`.
            ContentMismatch: every gateway answered, none with the right bytes; or it is a folder.
            DecloudError: the file can't be written.
        """
        wanted = Cid.parse(cid)
        if into.is_file() and into.stat().st_size <= max_bytes and is_content(into, wanted):
            return
        with _part_folder(into) as folder:
            fetch = _Fetch(
                wanted, folder, max_bytes, report, self._patience, stop or threading.Event()
            )
            winner = fetch.run(self._scores.order(self.urls), self._scores)
            with writing(into):
                publish(winner.part, into)


@dataclass(slots=True)
class _Fetch:
    """The race of the gateways for one CID's content."""

    cid: Cid
    folder: Path
    max_bytes: int
    report: Report | None
    patience: Patience
    stop: threading.Event
    race: Race[None] = field(default_factory=Race)
    settled: threading.Event = field(default_factory=threading.Event)
    transfers: dict[str, Transfer] = field(default_factory=dict)
    failures: _Failures = field(default_factory=_Failures)
    _idle_from: float = 0.0
    _bytes_then: int = 0
    _told: int = -1
    _telling: threading.Lock = field(default_factory=threading.Lock)

    def run(self, urls: list[str], scores: Scores) -> Transfer:
        """The transfer that has the verified content."""
        waiting = list(reversed(urls))
        try:
            while True:
                if self.stop.is_set():
                    raise GatewayError("the fetch was stopped")
                if not waiting and not self.race.running:
                    raise self.failures.error(self.cid)
                if waiting and self._wants_another():
                    self._start(waiting.pop())
                ended = self.race.wait(_LOOK_S)
                if ended is not None and (won := self._judge(*ended, scores)) is not None:
                    return won
        finally:
            self.settled.set()

    def _start(self, url: str) -> None:
        part = self.folder / str(len(self.transfers))
        with writing(part):
            part.touch(mode=0o600)
            file = part.open("w+b")
        transfer = Transfer(self.cid, part, file, self.max_bytes, self._tell)
        lender = max(
            (t for t in self.transfers.values() if not t.is_wrong),
            key=lambda t: (t.proven, t.written),
            default=None,
        )
        if lender is not None:
            try:
                transfer.borrow(lender)
            except DecloudError:  # the disk; no thread is there yet to close the file
                file.close()
                raise
        self.transfers[url] = transfer
        self._idle_from, self._bytes_then = time.monotonic(), self._received()

        def call() -> None:
            with (
                file,
                contextlib.closing(Gateway(url, self.patience, self.stop, self.settled)) as gateway,
            ):
                transfer.run(gateway)

        self.race.start(url, call)

    def _received(self) -> int:
        return sum(transfer.received for transfer in self.transfers.values())

    def _wants_another(self) -> bool:
        at_once = len(self.race.running)
        return at_once == 0 or (at_once < MAX_AT_ONCE and self._is_idle())

    def _is_idle(self) -> bool:
        """Whether hardly a byte has come for a while, and nobody is at work on what came."""
        now, received = time.monotonic(), self._received()
        checking = any(self.transfers[url].is_checking for url in self.race.running)
        if checking or received - self._bytes_then >= HEDGE_BYTES:
            self._idle_from, self._bytes_then = now, received
        return now - self._idle_from >= self.patience.hedge_s

    def _judge(self, url: str, outcome: DecloudError | None, scores: Scores) -> Transfer | None:
        """What the end of one transfer means: the winner, or None if others must do it."""
        transfer = self.transfers[url]
        if outcome is None:
            for slower in self.race.running:
                scores.note(slower, FAILED_S / 2)
            scores.note(url, transfer.first_byte_s or 0.0)
            return transfer
        if transfer.is_final or not isinstance(outcome, GatewayError | ContentMismatch | TooLarge):
            raise outcome
        if not self.stop.is_set():
            scores.note(url, WRONG_S if transfer.is_wrong else FAILED_S)
            self.failures.add(url, outcome)
        return None

    def _tell(self, done: int, total: int | None) -> None:
        """Progress of the transfer that is ahead."""
        with self._telling:
            if self.report is not None and done > self._told and not self.settled.is_set():
                self._told = done
                self.report(done, total)


@contextlib.contextmanager
def _part_folder(into: Path) -> Iterator[Path]:
    """A private folder beside the target for what is on its way; gone afterwards."""
    with writing(into):
        folder = Path(
            tempfile.mkdtemp(dir=into.parent, prefix=temporary_prefix(into), suffix=PART_SUFFIX)
        )
    try:
        yield folder
    finally:
        # Attempts that nobody waits for may still hold their files open, but make no new ones.
        shutil.rmtree(folder, ignore_errors=True)
