"""The two formats of IPFS nodes, as bytes: dag-pb (links and data) and UnixFS (what the data is).

Pure and strict: encoding gives the one canonical form, decoding refuses what no importer writes.
Sources: the IPLD dag-pb specification and the UnixFS protobuf schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from decloud_trainer.errors import UntrustedData

_VARINT, _BYTES = 0, 2  # protobuf wire types; no other occurs in these formats


class Kind(IntEnum):
    """UnixFS data types."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    SHARD = 5


_KINDS = frozenset(int(kind) for kind in Kind)


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a dag-pb node.

    Attributes:
        cid: the target's CID in binary form.
        name: the entry's name in a folder; empty between a file's blocks.
        total: bytes of the target's block and of all blocks below it ("Tsize").
    """

    cid: bytes
    name: str
    total: int


@dataclass(frozen=True, slots=True)
class Node:
    """A dag-pb node that holds UnixFS.

    Attributes:
        kind: file, folder, ...
        links: the children, in order.
        data: content bytes that stand in the node itself.
        size: content bytes in the node and all below it; 0 for a folder.
        sizes: content bytes below each link; one for each link of a file.
    """

    kind: Kind
    links: tuple[Link, ...] = ()
    data: bytes = b""
    size: int = 0
    sizes: tuple[int, ...] = ()


def varint(number: int) -> bytes:
    """Unsigned LEB128, as protobuf, multiformats and CAR use it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and the position behind it.

    Raises UntrustedData for more than 63 bits, a longer form than needed, or missing bytes.
    """
    number = shift = 0
    while at < len(data) and shift < 63:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise UntrustedData("a number in an IPFS block is longer than needed")
            return number, at
        shift += 7
    raise UntrustedData("a number in an IPFS block is cut off or too large")


def encode_node(node: Node) -> bytes:
    """The node's block: links before data, as the dag-pb specification orders them."""
    links = b"".join(_field(2, _encode_link(link)) for link in node.links)
    return links + _field(1, _encode_unixfs(node))


def encode_leaf(chunk: bytes) -> bytes:
    """The block of a piece of a file, for profiles without raw leaves."""
    return encode_node(Node(Kind.FILE, data=chunk, size=len(chunk)))


def _encode_link(link: Link) -> bytes:
    name = _field(2, link.name.encode("utf-8"))
    return _field(1, link.cid) + name + b"\x18" + varint(link.total)


def _encode_unixfs(node: Node) -> bytes:
    out = b"\x08" + varint(node.kind)
    if node.data:
        out += _field(2, node.data)
    if node.kind is not Kind.DIRECTORY:
        out += b"\x18" + varint(node.size)
    return out + b"".join(b"\x20" + varint(size) for size in node.sizes)


def _field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | _BYTES) + varint(len(data)) + data


def decode_node(block: bytes) -> Node:
    """A block of codec dag-pb as a node.

    Raises:
        UntrustedData: it isn't dag-pb with UnixFS in it, or its sizes contradict each other.
    """
    links: list[Link] = []
    unixfs: bytes | None = None
    for number, value in _fields(block):
        if number == 2 and isinstance(value, bytes):
            links.append(_decode_link(value))
        elif number == 1 and isinstance(value, bytes) and unixfs is None:
            unixfs = value
        else:
            raise UntrustedData(f"an IPFS node has an unexpected field {number}")
    if unixfs is None:
        raise UntrustedData("an IPFS node holds no UnixFS data")
    return _decode_unixfs(unixfs, tuple(links))


def _decode_link(data: bytes) -> Link:
    cid, name, total = b"", "", 0
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            cid = value
        elif number == 2 and isinstance(value, bytes):
            name = _text(value)
        elif number == 3 and isinstance(value, int):
            total = value
        else:
            raise UntrustedData(f"a link of an IPFS node has an unexpected field {number}")
    if not cid:
        raise UntrustedData("a link of an IPFS node leads nowhere")
    return Link(cid, name, total)


def _decode_unixfs(data: bytes, links: tuple[Link, ...]) -> Node:
    kind: Kind | None = None
    content, size, sizes = b"", None, []
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int) and value in _KINDS:
            kind = Kind(value)
        elif number == 2 and isinstance(value, bytes):
            content = value
        elif number == 3 and isinstance(value, int):
            size = value
        elif number == 4 and isinstance(value, int):
            sizes.append(value)
        elif number not in (5, 6, 7, 8):  # hash type, fan-out, mode, time: not ours to judge
            raise UntrustedData(f"UnixFS data has an unexpected field {number}")
    if kind is None:
        raise UntrustedData("UnixFS data without a known type")
    if kind in (Kind.FILE, Kind.RAW):
        held = len(content) + sum(sizes)
        if len(sizes) != len(links) or size not in (None, held):
            raise UntrustedData("the sizes in a UnixFS file's node contradict each other")
        return Node(kind, links, content, held, tuple(sizes))
    return Node(kind, links, content, 0, tuple(sizes))


def _fields(data: bytes) -> Sequence[tuple[int, int | bytes]]:
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == _VARINT:
            number, at = read_varint(data, at)
            found.append((tag >> 3, number))
        elif tag & 7 == _BYTES:
            length, at = read_varint(data, at)
            if length > len(data) - at:
                raise UntrustedData("a field in an IPFS block is cut off")
            found.append((tag >> 3, data[at : at + length]))
            at += length
        else:
            raise UntrustedData("a field in an IPFS block has an unknown form")
    return found


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UntrustedData("a name in an IPFS folder isn't UTF-8") from error
