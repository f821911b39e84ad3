"""Fetch files by CID from public gateways, believing none of them.

Each gateway is asked for the plain file; the bytes are verified against the CID. Where they can't
be (wrong, or cut into blocks in a way that we can't rebuild), the same gateway is asked for the
blocks one by one, each of which proves itself. Nothing unverified gets the file's final name.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from decloud_trainer.errors import (
    ContentMismatch,
    DecloudError,
    GatewayError,
    InvalidCid,
    SettingsError,
    TooLarge,
    UntrustedData,
)
from decloud_trainer.files import publish
from decloud_trainer.ipfs.cid import Cid, Codec, check_file, is_content
from decloud_trainer.ipfs.gateway import Gateway, Patience
from decloud_trainer.ipfs.http import check_base_url
from decloud_trainer.ipfs.unixfs import Kind, Node, decode_node

MAX_BLOCK_BYTES = 4 * 1024 * 1024  # twice what IPFS nodes exchange
_MAX_DEPTH = 16
_MAX_DROPS = 3  # connections lost in a row without a new byte

Report = Callable[[int, int | None], None]
"""Progress: bytes done, bytes in all where known."""


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
    """Gateways in the order in which they are asked. May be used by several threads."""

    def __init__(self, urls: Sequence[str], patience: Patience | None = None) -> None:
        """Take base addresses like ``https://ipfs.io`` (``/ipfs`` at the end is understood).

        Raises:
            SettingsError: none given, or one that can't be used.
        """
        checked = [check_base_url(url, "an IPFS gateway").removesuffix("/ipfs") for url in urls]
        if not checked:
            raise SettingsError("no IPFS gateway is configured")
        self._urls = tuple(dict.fromkeys(checked))
        self._patience = patience or Patience()

    def __repr__(self) -> str:
        return f"Gateways({list(self._urls)})"

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

        A file that is there already and is right is left alone. Setting `stop` from another
        thread ends the fetch soon, with a GatewayError.

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
        with _part_file(into) as part:
            self._fetch(_Fetch(wanted, part, max_bytes, report), stop or threading.Event())
            with _writing(into):
                publish(part, into)

    def _fetch(self, fetch: _Fetch, stop: threading.Event) -> None:
        failures = _Failures()
        for url in self._urls:
            try:
                with contextlib.closing(Gateway(url, self._patience, stop)) as gateway:
                    fetch.run(gateway)
                return
            except (GatewayError, ContentMismatch, TooLarge) as error:
                if fetch.is_proven:
                    raise
                failures.add(url, error)
        raise failures.error(fetch.cid)


@dataclass(slots=True)
class _Fetch:
    """The transfer of one CID's content to one temporary file.

    Attributes:
        size: content bytes as the verified root block states them.
        is_proven: the content's own blocks have proved that it isn't acceptable, so that no
            other gateway can help.
    """

    cid: Cid
    part: Path
    max_bytes: int
    report: Report | None
    size: int | None = None
    is_proven: bool = False

    def run(self, gateway: Gateway) -> None:
        """Leave verified content in the file, or raise why this gateway couldn't help."""
        try:
            with _writing(self.part), self.part.open("wb") as file:
                self._plain(gateway, file)
            check_file(self.part, self.cid)
        except (ContentMismatch, TooLarge) as error:
            reason = "wrong bytes" if isinstance(error, ContentMismatch) else error.message
            if self.cid.codec is Codec.RAW:
                raise type(error)(reason) from error
            try:
                with _writing(self.part), self.part.open("wb") as file:
                    self._by_blocks(gateway, file)
            except ContentMismatch as without:
                if self.is_proven:
                    raise
                raise type(error)(f"{reason}, {without.message}") from without

    def _plain(self, gateway: Gateway, file: BinaryIO) -> None:
        """The whole file, resumed where a connection drops on the way."""
        drops = 0
        while True:
            before = file.tell()
            try:
                self._append(gateway, file)
                return
            except GatewayError:
                drops = 0 if file.tell() > before else drops + 1
                if file.tell() == 0 or drops >= _MAX_DROPS:
                    raise
                gateway.pause(0.1 * 4**drops)

    def _append(self, gateway: Gateway, file: BinaryIO) -> None:
        offset = file.tell()
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with gateway.open(self.cid, headers) as answer:
            if offset and not answer.continues_at(offset):
                offset = file.seek(0)
                file.truncate()
            answer.require(206 if offset else 200)
            total = None if answer.length is None else offset + answer.length
            if total is not None and total > self.max_bytes:
                raise TooLarge(f"{total} bytes, {self.max_bytes} are accepted")
            for chunk in answer.chunks():
                self._write(file, chunk, total)
            if total is not None and file.tell() != total:
                raise GatewayError(f"it broke off after {file.tell()} of {total} bytes")

    def _write(self, file: BinaryIO, data: bytes, total: int | None) -> None:
        if file.tell() + len(data) > self.max_bytes:
            raise TooLarge(f"more than the {self.max_bytes} bytes that are accepted")
        file.write(data)
        if self.report is not None:
            self.report(file.tell(), total)

    def _by_blocks(self, gateway: Gateway, file: BinaryIO) -> None:
        """Walk the tree, parents before children, every block verified before it is used.

        A tree can't hold itself, since each link is a hash. Sizes are stated by the parent and
        checked in the child, and no piece may be empty, so that a small root can't stand for an
        endless walk.
        """
        waiting: list[tuple[Cid, int | None, int]] = [(self.cid, None, 0)]
        blocks_left = 1000 + self.max_bytes // 16_384
        while waiting:
            cid, size, depth = waiting.pop()
            node = self._node(gateway, cid)
            if size is None:
                size = self.size = node.size
                if size > self.max_bytes:
                    text = f"{self.cid} has {size} bytes, {self.max_bytes} are accepted"
                    raise self._proven(TooLarge(text))
            blocks_left -= 1
            if node.size != size or 0 in node.sizes or depth > _MAX_DEPTH or blocks_left < 0:
                text = f"the blocks of {self.cid} are not those of a sound file"
                raise self._proven(ContentMismatch(text))
            self._write(file, node.data, self.size)
            for link, below in reversed(list(zip(node.links, node.sizes, strict=True))):
                waiting.append((self._child(link.cid), below, depth + 1))

    def _proven(self, error: UntrustedData) -> UntrustedData:
        self.is_proven = True
        return error

    def _node(self, gateway: Gateway, cid: Cid) -> Node:
        block = self._block(gateway, cid)
        if cid.codec is Codec.RAW:
            return Node(Kind.FILE, data=block, size=len(block))
        try:
            node = decode_node(block)
        except UntrustedData as error:
            text = f"{self.cid} is not a file: {error.message}"
            raise self._proven(ContentMismatch(text)) from error
        if node.kind not in (Kind.FILE, Kind.RAW):
            text = f"{self.cid} is not a file but a {node.kind.name.lower()}"
            raise self._proven(ContentMismatch(text))
        return node

    def _child(self, data: bytes) -> Cid:
        try:
            return Cid.from_bytes(data)
        except InvalidCid as error:
            text = f"{self.cid} is not a file that can be verified: {error.message}"
            raise self._proven(ContentMismatch(text)) from error

    def _block(self, gateway: Gateway, cid: Cid) -> bytes:
        for attempt in range(_MAX_DROPS):
            try:
                block = self._read_block(gateway, cid)
                break
            except GatewayError:
                if attempt == _MAX_DROPS - 1 or cid == self.cid:
                    raise
                gateway.pause(0.1 * 4**attempt)
        if not cid.names(block):
            raise ContentMismatch("and wrong blocks too")
        return block

    def _read_block(self, gateway: Gateway, cid: Cid) -> bytes:
        data = bytearray()
        with gateway.open(cid, {"Accept": "application/vnd.ipld.raw"}, "?format=raw") as answer:
            if answer.is_refusal and cid == self.cid:
                raise ContentMismatch(f"and no blocks to be had ({answer.status})")
            answer.require(200)
            for chunk in answer.chunks():
                data += chunk
                if len(data) > MAX_BLOCK_BYTES:
                    raise ContentMismatch("and no blocks to be had")
        return bytes(data)


@contextlib.contextmanager
def _part_file(into: Path) -> Iterator[Path]:
    """A private temporary file beside the target; gone afterwards unless it was moved."""
    with _writing(into):
        handle = tempfile.NamedTemporaryFile(  # noqa: SIM115  closed at once, only the name is wanted
            dir=into.parent, prefix=f".{into.name}.", suffix=".part", delete=False
        )
        handle.close()
    part = Path(handle.name)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DecloudError(
            f"can't write {path}: {error.strerror or error}",
            hint="check the free space and the permissions of its folder",
        ) from error
