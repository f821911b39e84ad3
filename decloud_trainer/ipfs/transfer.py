"""One gateway's attempt to deliver one CID's content into a file, verified at the end.

The gateway is asked for the plain file, from where another one stopped if there is such a part.
Where the bytes can't be verified (wrong, or cut into blocks in a way that we can't rebuild), it is
asked for the blocks one by one, each of which proves itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from decloud_trainer.errors import (
    ContentMismatch,
    DecloudError,
    GatewayError,
    InvalidCid,
    StorageError,
    TooLarge,
    UntrustedData,
)
from decloud_trainer.ipfs.cid import Cid, Codec, check_file
from decloud_trainer.ipfs.gateway import Answer, Gateway
from decloud_trainer.ipfs.unixfs import Kind, Node, decode_node

MAX_BLOCK_BYTES = 4 * 1024 * 1024  # twice what IPFS nodes exchange
_MAX_DEPTH = 16
_MAX_DROPS = 3  # connections lost in a row without a new byte
_COPY_BYTES = 1024 * 1024
# A gateway that serves blocks alone refuses plain files so.
_BLOCKS_ONLY = (400, 406, 415, 501)

Report = Callable[[int, int | None], None]
"""Progress: bytes done, bytes in all where known."""


@dataclass(slots=True)
class Transfer:
    """The state of one attempt. Others read its plain fields while it runs.

    Attributes:
        part: a file of its own, opened as `file`; others may copy its beginning.
        size: content bytes as the verified root block states them.
        written: bytes of the file that are there so far.
        proven: of these, how many stand behind verified blocks.
        borrowed: bytes that were taken over from another attempt.
        received: bytes from the network so far, whatever became of them.
        is_checking: it has all bytes and verifies them.
        is_wrong: its bytes were found to be wrong.
        is_final: the content's own blocks have proved that it isn't acceptable, so that no
            other gateway can help.
        truncations: how often bytes were thrown away.
        first_byte_s: from the start to the first byte.
    """

    cid: Cid
    part: Path
    file: BinaryIO
    max_bytes: int
    report: Report | None = None
    size: int | None = None
    written: int = 0
    proven: int = 0
    borrowed: int = 0
    received: int = 0
    is_checking: bool = False
    is_wrong: bool = False
    is_final: bool = False
    truncations: int = 0
    first_byte_s: float | None = None
    _began: float = field(default_factory=time.monotonic)

    def borrow(self, other: Transfer) -> None:
        """Take over the beginning that another attempt has. Wrong bytes are found at the end."""
        truncations, proven, left = other.truncations, other.proven, other.written
        with writing(self.part), other.part.open("rb") as source:
            while left > 0 and (chunk := source.read(min(left, _COPY_BYTES))):
                self.file.write(chunk)
                left -= len(chunk)
            self.file.flush()
        self.written = self.borrowed = self.file.tell()
        # What was proven stays so only if no other bytes took its place while we copied.
        if truncations == other.truncations:
            self.proven = min(proven, self.borrowed)

    def run(self, gateway: Gateway) -> None:
        """Leave verified content in the file, or raise why this gateway couldn't help."""
        try:
            self._plain_or_anew(gateway)
        except (ContentMismatch, TooLarge) as error:
            self.is_wrong = isinstance(error, ContentMismatch)
            reason = "wrong bytes" if self.is_wrong else error.message
            if self.cid.codec is Codec.RAW:
                raise type(error)(reason) from error
            self._or_by_blocks(gateway, type(error), reason)
        except _NoPlainFiles as error:
            self._or_by_blocks(gateway, GatewayError, error.message)

    def _or_by_blocks(self, gateway: Gateway, kind: type[DecloudError], reason: str) -> None:
        """Get the blocks instead; an error names both reasons."""
        try:
            self._by_blocks(gateway)
        except ContentMismatch as without:
            if self.is_final:
                raise
            raise kind(f"{reason}, {without.message}") from without

    def _plain_or_anew(self, gateway: Gateway) -> None:
        if self.borrowed:
            try:
                self._plain(gateway)
                return
            except (ContentMismatch, TooLarge):
                self._truncate(0)  # what was taken over may be what is wrong
        self._plain(gateway)

    def _plain(self, gateway: Gateway) -> None:
        """The whole file, resumed where a connection drops on the way, and verified."""
        drops = 0
        while True:
            before = self.written
            try:
                self._append(gateway)
                break
            except GatewayError:
                drops = 0 if self.written > before else drops + 1
                if self.received == 0 or drops >= _MAX_DROPS:
                    raise
                gateway.pause(0.1 * 4**drops)
        self.is_checking = True
        try:
            check_file(self.part, self.cid)
        finally:
            self.is_checking = False

    def _append(self, gateway: Gateway) -> None:
        offset = self.written
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with gateway.open(self.cid, headers) as answer:
            if offset and answer.response.status_code == 416:
                return  # nothing is left beyond what we have
            _require_plain(answer)
            if offset and not answer.continues_at(offset):
                self._truncate(0)
                offset = 0
                answer.require(200)
            total = None if answer.length is None else offset + answer.length
            if total is not None and total > self.max_bytes:
                raise TooLarge(f"{total} bytes, {self.max_bytes} are accepted")
            for chunk in answer.chunks():
                self._received(len(chunk))
                self._write(chunk, total)
            if total is not None and self.written != total:
                raise GatewayError(f"it broke off after {self.written} of {total} bytes")

    def _received(self, count: int) -> None:
        if self.first_byte_s is None:
            self.first_byte_s = time.monotonic() - self._began
        self.received += count

    def _write(self, data: bytes, total: int | None) -> None:
        if self.written + len(data) > self.max_bytes:
            raise TooLarge(f"more than the {self.max_bytes} bytes that are accepted")
        with writing(self.part):
            self.file.write(data)
            self.file.flush()  # others may copy it
        self.written += len(data)
        if self.report is not None:
            self.report(self.written, total)

    def _truncate(self, size: int) -> None:
        self.truncations += 1  # before the file changes: see `borrow`
        self.written = size
        self.proven = min(self.proven, size)
        self.borrowed = min(self.borrowed, size)
        with writing(self.part):
            self.file.seek(size)
            self.file.truncate()

    def _by_blocks(self, gateway: Gateway) -> None:
        """Walk the tree, parents before children, every block verified before it is used.

        What blocks have proved before, here or with another gateway, isn't fetched again. A tree
        can't hold itself, since each link is a hash. Sizes are stated by the parent and checked
        in the child, and no piece may be empty, so that a small root can't stand for an endless
        walk.
        """
        self._truncate(self.proven)
        waiting: list[tuple[Cid, int | None, int]] = [(self.cid, None, 0)]
        blocks_left = 1000 + self.max_bytes // 16_384
        at = 0
        while waiting:
            cid, size, depth = waiting.pop()
            if size is not None and at + size <= self.proven:
                at += size
                continue
            node = self._node(gateway, cid)
            if size is None:
                size = self.size = node.size
                if size > self.max_bytes:
                    text = f"{self.cid} has {size} bytes, {self.max_bytes} are accepted"
                    raise self._final(TooLarge(text))
            blocks_left -= 1
            if node.size != size or 0 in node.sizes or depth > _MAX_DEPTH or blocks_left < 0:
                text = f"the blocks of {self.cid} are not those of a sound file"
                raise self._final(ContentMismatch(text))
            at += len(node.data)
            if at > self.written:
                self._write(node.data[self.written - at :], self.size)
                self.proven = self.written
            for link, below in reversed(list(zip(node.links, node.sizes, strict=True))):
                waiting.append((self._child(link.cid), below, depth + 1))

    def _final(self, error: UntrustedData) -> UntrustedData:
        self.is_final = True
        return error

    def _node(self, gateway: Gateway, cid: Cid) -> Node:
        block = self._block(gateway, cid)
        if cid.codec is Codec.RAW:
            return Node(Kind.FILE, data=block, size=len(block))
        try:
            node = decode_node(block)
        except UntrustedData as error:
            text = f"{self.cid} is not a file: {error.message}"
            raise self._final(ContentMismatch(text)) from error
        if node.kind not in (Kind.FILE, Kind.RAW):
            text = f"{self.cid} is not a file but a {node.kind.name.lower()}"
            raise self._final(ContentMismatch(text))
        return node

    def _child(self, data: bytes) -> Cid:
        try:
            return Cid.from_bytes(data)
        except InvalidCid as error:
            text = f"{self.cid} is not a file that can be verified: {error.message}"
            raise self._final(ContentMismatch(text)) from error

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
            self.is_wrong = True
            raise ContentMismatch("and wrong blocks too")
        return block

    def _read_block(self, gateway: Gateway, cid: Cid) -> bytes:
        data = bytearray()
        with gateway.open(cid, {"Accept": "application/vnd.ipld.raw"}, "?format=raw") as answer:
            if answer.is_refusal and cid == self.cid:
                raise ContentMismatch(f"and no blocks to be had ({answer.status})")
            answer.require(200)
            for chunk in answer.chunks():
                self._received(len(chunk))
                data += chunk
                if len(data) > MAX_BLOCK_BYTES:
                    raise ContentMismatch("and no blocks to be had")
        return bytes(data)


class _NoPlainFiles(DecloudError):
    """The gateway refuses plain files; it may have the blocks."""


def _require_plain(answer: Answer) -> None:
    if answer.response.status_code in _BLOCKS_ONLY:
        raise _NoPlainFiles(f"it has no plain files ({answer.status})")
    answer.require(200, 206)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """The disk's errors as ours."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"can't write {path}: {error.strerror or error}",
            hint="check the free space and the permissions of its folder",
        ) from error
