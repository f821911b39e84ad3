"""Pinned content on disk: blocks by their real CIDs, and a record for each pin.

A folder holds `blocks/<network>/<cid>`, `pins/<network>-<cid>.json` and `incoming/` for uploads
on their way. Private blocks lie apart from public ones, so that the gateway can't serve them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from decloud_trainer.errors import CorruptionError, DecloudError
from decloud_trainer.files import make_private_dir, write_atomic
from decloud_trainer.ipfs.cid import Cid, Codec, Profile, Tree, build_file, build_folder
from decloud_trainer.ipfs.unixfs import Kind, Node, decode_node, varint

Network = Literal["public", "private"]
NETWORKS: tuple[Network, ...] = ("public", "private")


class NotPinned(LookupError):
    """Content that this store doesn't hold: an answer for the servers here, never for a user."""


@dataclass(frozen=True, slots=True)
class Part:
    """An uploaded file: the names on its way inside the pin, and where its bytes lie."""

    names: tuple[str, ...]
    path: Path


@dataclass(frozen=True, slots=True)
class Pin:
    """A pin's record.

    Attributes:
        size: content bytes.
        total: bytes of all blocks.
        files: how many files the content has.
        created_at: ISO 8601, UTC.
    """

    id: str
    cid: str
    network: Network
    name: str
    size: int
    total: int
    files: int
    created_at: str
    keyvalues: dict[str, str] = field(default_factory=dict)
    group_id: str | None = None


class Blocks:
    """A block store, and files and folders read through it."""

    def __init__(self, folder: Path) -> None:
        self._folder = make_private_dir(folder)

    def put(self, cid: Cid, block: bytes) -> None:
        path = self._path(cid)
        if path.exists():
            return
        # Not synced: a local network may lose its last uploads in a power cut.
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
            file.write(block)
        Path(file.name).replace(path)

    def get(self, cid: Cid) -> bytes:
        """The verified block; raises NotPinned, CorruptionError."""
        try:
            block = self._path(cid).read_bytes()
        except FileNotFoundError as error:
            raise NotPinned(f"no content is pinned under {cid}") from error
        if not cid.names(block):
            raise CorruptionError(f"the stored block {self._path(cid)} is damaged")
        return block

    def node(self, cid: Cid) -> Node:
        """The block as a node; a raw block is a file without links."""
        block = self.get(cid)
        if cid.codec is Codec.RAW:
            return Node(Kind.FILE, data=block, size=len(block))
        return decode_node(block)

    def resolve(self, cid: Cid, names: Sequence[str]) -> Cid:
        """Walk down folders; raises NotPinned."""
        for name in names:
            node = self.node(cid)
            found = [link for link in node.links if link.name == name]
            if node.kind is not Kind.DIRECTORY or not found:
                raise NotPinned(f"{cid} holds nothing that is named {name!r}")
            cid = Cid.from_bytes(found[0].cid)
        return cid

    def read(self, cid: Cid, start: int, stop: int) -> Iterator[bytes]:
        """The content bytes [start, stop) of a file, block by block."""
        node = self.node(cid)
        if node.data[start:stop]:
            yield node.data[start:stop]
        at = len(node.data)
        for link, size in zip(node.links, node.sizes, strict=True):
            if at < stop and at + size > start:
                yield from self.read(Cid.from_bytes(link.cid), max(start - at, 0), stop - at)
            at += size

    def walk(self, root: Cid) -> Iterator[tuple[Cid, bytes]]:
        """All blocks of a tree, each once, parents before children."""
        seen: set[Cid] = set()
        waiting = [root]
        while waiting:
            cid = waiting.pop()
            if cid in seen:
                continue
            seen.add(cid)
            block = self.get(cid)
            yield cid, block
            if cid.codec is Codec.DAG_PB:
                children = [Cid.from_bytes(link.cid) for link in decode_node(block).links]
                waiting += reversed(children)

    def car(self, root: Cid) -> Iterator[bytes]:
        """The tree as a CARv1 file, section by section."""
        link = b"\x00" + root.to_bytes()
        header = b"\xa2\x65roots\x81\xd8\x2a\x58" + bytes([len(link)]) + link + b"\x67version\x01"
        yield varint(len(header)) + header
        for cid, block in self.walk(root):
            name = cid.to_bytes()
            yield varint(len(name) + len(block)) + name + block

    def keep_only(self, wanted: set[str]) -> None:
        """Delete all blocks but those of the given file names."""
        for path in self._folder.iterdir():
            if path.name not in wanted:
                path.unlink()

    def _path(self, cid: Cid) -> Path:
        return self._folder / self.file_name(cid)

    @staticmethod
    def file_name(cid: Cid) -> str:
        """One name for a block, whichever CID version asks for it."""
        return str(Cid(1, cid.codec, cid.digest))


class PinStore:
    """Pins under a folder; they survive a restart. Methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self._records = make_private_dir(folder / "pins")
        self._blocks = {net: Blocks(folder / "blocks" / net) for net in NETWORKS}
        shutil.rmtree(folder / "incoming", ignore_errors=True)  # uploads that a crash cut off
        self._incoming = make_private_dir(folder / "incoming")
        self._lock = threading.Lock()
        self._pins = {(pin.network, pin.cid): pin for pin in self._load()}

    @property
    def public(self) -> Blocks:
        """What the gateway serves."""
        return self._blocks["public"]

    def pins(self, network: Network) -> list[Pin]:
        """All pins of a network, the newest first."""
        with self._lock:
            pins = [pin for pin in self._pins.values() if pin.network == network]
        return sorted(pins, key=lambda pin: pin.created_at, reverse=True)

    def incoming(self) -> tempfile.TemporaryDirectory[str]:
        """A folder for the parts of one upload."""
        return tempfile.TemporaryDirectory(dir=self._incoming)

    def add(
        self,
        parts: Sequence[Part],
        profile: Profile,
        *,
        network: Network,
        name: str,
        keyvalues: dict[str, str] | None = None,
        group_id: str | None = None,
    ) -> tuple[Pin, bool]:
        """Pin one file (a part without names) or a folder; whether it was pinned before.

        Raises:
            DecloudError: parts that don't make a folder.
        """
        with self._lock:
            tree = self._build(parts, profile, self._blocks[network])
            known = self._pins.get((network, str(tree.cid)))
            if known is not None:
                return known, True
            pin = Pin(
                id=str(uuid.uuid4()),
                cid=str(tree.cid),
                network=network,
                name=name,
                size=tree.size,
                total=tree.total,
                files=len(parts),
                created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
                keyvalues=keyvalues or {},
                group_id=group_id,
            )
            write_atomic(self._record(pin), json.dumps(asdict(pin), indent=1).encode())
            self._pins[network, pin.cid] = pin
            return pin, False

    def remove(self, cid: Cid, network: Network) -> None:
        """Unpin, and delete the blocks that no other pin of the network needs.

        Raises:
            NotPinned: there is no such pin.
        """
        with self._lock:
            pin = self._pins.pop((network, str(cid)), None)
            if pin is None:
                raise NotPinned(f"{cid} is not pinned")
            self._record(pin).unlink()
            blocks = self._blocks[network]
            roots = [Cid.parse(pin.cid) for pin in self._pins.values() if pin.network == network]
            blocks.keep_only({blocks.file_name(c) for root in roots for c, _ in blocks.walk(root)})

    @staticmethod
    def _build(parts: Sequence[Part], profile: Profile, blocks: Blocks) -> Tree:
        trees = []
        for part in parts:
            with part.path.open("rb") as file:
                trees.append(build_file(file, profile, blocks.put))
        if len(parts) == 1 and not parts[0].names:
            return trees[0]
        if not all(part.names for part in parts):
            raise DecloudError("a folder's parts need names")
        named = [(part.names, tree) for part, tree in zip(parts, trees, strict=True)]
        return build_folder(named, profile.version, blocks.put)

    def _record(self, pin: Pin) -> Path:
        return self._records / f"{pin.network}-{pin.cid}.json"

    def _load(self) -> Iterator[Pin]:
        for path in self._records.glob("*.json"):
            try:
                yield Pin(**json.loads(path.read_text("utf-8")))
            except (ValueError, TypeError) as error:
                raise CorruptionError(
                    f"the pin record {path} is damaged",
                    hint="delete it and pin the content again",
                ) from error
