"""Content identifiers: parse them strictly, compute them for files and folders, verify with them.

A CID names the root of a tree of blocks, so a file over one block has as many CIDs as there are
ways to cut it. A way is a `Profile`; files are verified by rebuilding the tree with each profile
that the CID allows. Everything streams: at most one chunk and the open levels of the tree are in
memory. Standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

from decloud_trainer.errors import ContentMismatch, DecloudError, InvalidCid, TooLarge
from decloud_trainer.ipfs.unixfs import Kind, Link, Node, encode_leaf, encode_node

MIN_LENGTH, MAX_LENGTH = 46, 64  # characters, as the chain's program accepts them
# Beyond this, importers shard a folder into a hash tree, which we neither need nor build.
MAX_FOLDER_BLOCK_BYTES = 256 * 1024
_SHA2_256 = b"\x12\x20"  # multihash prefix: sha2-256, 32 bytes
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Codec(IntEnum):
    """What the root block is."""

    RAW = 0x55
    DAG_PB = 0x70


_CODECS = frozenset(int(codec) for codec in Codec)


@dataclass(frozen=True, slots=True)
class Cid:
    """A CID of the two kinds that files and folders on IPFS have.

    Attributes:
        version: 0 (``Qm...``, dag-pb only) or 1 (``ba...``).
        codec: raw bytes, or a dag-pb node.
        digest: SHA-256 of the root block, 32 bytes.
    """

    version: int
    codec: Codec
    digest: bytes

    def __post_init__(self) -> None:
        if self.version not in (0, 1) or len(self.digest) != 32:
            raise InvalidCid("only CIDs of version 0 and 1 with a 32-byte digest are accepted")
        if self.version == 0 and self.codec is not Codec.DAG_PB:
            raise InvalidCid("a CID of version 0 names a dag-pb node, nothing else")

    @classmethod
    def of_block(cls, block: bytes, codec: Codec, version: int) -> Cid:
        return cls(version, codec, hashlib.sha256(block).digest())

    @classmethod
    def parse(cls, text: str) -> Cid:
        """Read a CID in its one canonical spelling.

        Raises:
            InvalidCid: any other text; also other bases, hashes and codecs.
        """
        if not (MIN_LENGTH <= len(text) <= MAX_LENGTH and text.isascii() and text.isalnum()):
            raise InvalidCid(f"not a CID: {text[:80]!r}", hint=_CID_HINT)
        if text.startswith("Qm"):
            cid = cls.from_bytes(_from_base58(text))
        elif text.startswith("b"):
            cid = cls.from_bytes(_from_base32(text))
        else:
            raise InvalidCid(f"not a CID of a kind that is used here: {text}", hint=_CID_HINT)
        if str(cid) != text:
            raise InvalidCid(f"not a CID in its canonical spelling: {text}", hint=_CID_HINT)
        return cid

    @classmethod
    def from_bytes(cls, data: bytes) -> Cid:
        """Read the binary form, as links and CAR files hold it; raises InvalidCid."""
        if len(data) == 34 and data.startswith(_SHA2_256):
            return cls(0, Codec.DAG_PB, data[2:])
        if len(data) == 36 and data[0] == 1 and data[1] in _CODECS and data[2:4] == _SHA2_256:
            return cls(1, Codec(data[1]), data[4:])
        raise InvalidCid(
            f"a CID of an unknown kind: {data[:40].hex()}",
            hint="only sha2-256 with the codecs dag-pb and raw is accepted",
        )

    def to_bytes(self) -> bytes:
        if self.version == 0:
            return _SHA2_256 + self.digest
        return bytes((1, self.codec)) + _SHA2_256 + self.digest

    def names(self, block: bytes) -> bool:
        """Whether these are the bytes of the CID's root block."""
        return hashlib.sha256(block).digest() == self.digest

    def __str__(self) -> str:
        if self.version == 0:
            return _to_base58(self.to_bytes())
        return "b" + base64.b32encode(self.to_bytes()).decode("ascii").rstrip("=").lower()


_CID_HINT = "a CID starts with Qm (46 characters) or with ba (59 characters)"


def _to_base58(data: bytes) -> str:
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        out = _BASE58[digit] + out
    return out  # leading zero bytes can't occur: all our data starts with 0x12


def _from_base58(text: str) -> bytes:
    number = 0
    for character in text:
        digit = _BASE58.find(character)
        if digit < 0:
            raise InvalidCid(f"not base58: {text}", hint=_CID_HINT)
        number = number * 58 + digit
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _from_base32(text: str) -> bytes:
    body = text[1:].upper()
    try:
        return base64.b32decode(body + "=" * (-len(body) % 8))
    except ValueError as error:
        raise InvalidCid(f"not base32: {text}", hint=_CID_HINT) from error


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to cut a file into a balanced tree of blocks.

    Attributes:
        version: of all CIDs in it, except that raw leaves are always version 1.
        raw_leaves: pieces are bare bytes; otherwise they are wrapped in dag-pb.
        chunk_bytes: content bytes of a leaf.
        fanout: links of an inner node.
    """

    version: int
    raw_leaves: bool
    chunk_bytes: int = 262_144
    fanout: int = 174


V0 = Profile(0, raw_leaves=False)
V1 = Profile(1, raw_leaves=True)
V1_WRAPPED = Profile(1, raw_leaves=False)
V1_2025 = Profile(1, raw_leaves=True, chunk_bytes=1_048_576, fanout=1024)
PROFILES = (V0, V1, V1_WRAPPED, V1_2025)
BY_VERSION = {0: V0, 1: V1}

Keep = Callable[[Cid, bytes], None]


@dataclass(frozen=True, slots=True)
class Tree:
    """The root of a built tree.

    Attributes:
        cid: of the root block.
        size: content bytes; for a folder, the sum over its files.
        total: bytes of all blocks, each occurrence counted ("Tsize").
    """

    cid: Cid
    size: int
    total: int


def _forget(cid: Cid, block: bytes) -> None:
    """The default for `keep`: only the CID is wanted."""


def build_file(source: BinaryIO, profile: Profile, keep: Keep = _forget) -> Tree:
    """Read a file to its end and build its tree; `keep` gets every block, the root last."""
    levels: list[list[Tree]] = [[]]

    def add(level: int, tree: Tree) -> None:
        if level == len(levels):
            levels.append([])
        levels[level].append(tree)
        if len(levels[level]) == profile.fanout:
            add(level + 1, _join(levels[level], profile, keep))
            levels[level] = []

    while chunk := _read_full(source, profile.chunk_bytes):
        add(0, _leaf(chunk, profile, keep))
    if levels == [[]]:
        return _leaf(b"", profile, keep)
    for level in range(len(levels)):  # a level that is added on the way has one tree: the root
        trees = levels[level]
        if level == len(levels) - 1 and len(trees) == 1:
            break
        if trees:
            levels[level] = []
            add(level + 1, _join(trees, profile, keep))
    return levels[-1][0]


def _read_full(source: BinaryIO, size: int) -> bytes:
    chunk = source.read(size)
    while 0 < len(chunk) < size and (more := source.read(size - len(chunk))):
        chunk += more
    return chunk


def _leaf(chunk: bytes, profile: Profile, keep: Keep) -> Tree:
    if profile.raw_leaves:
        block, cid = chunk, Cid.of_block(chunk, Codec.RAW, 1)
    else:
        block = encode_leaf(chunk)
        cid = Cid.of_block(block, Codec.DAG_PB, profile.version)
    keep(cid, block)
    return Tree(cid, len(chunk), len(block))


def _join(trees: list[Tree], profile: Profile, keep: Keep) -> Tree:
    node = Node(
        Kind.FILE,
        links=tuple(Link(tree.cid.to_bytes(), "", tree.total) for tree in trees),
        size=sum(tree.size for tree in trees),
        sizes=tuple(tree.size for tree in trees),
    )
    return _inner(node, node.size, profile.version, keep)


def _inner(node: Node, size: int, version: int, keep: Keep) -> Tree:
    block = encode_node(node)
    cid = Cid.of_block(block, Codec.DAG_PB, version)
    keep(cid, block)
    return Tree(cid, size, len(block) + sum(link.total for link in node.links))


def build_folder(
    files: Iterable[tuple[tuple[str, ...], Tree]], version: int, keep: Keep = _forget
) -> Tree:
    """The tree of a folder of built files, each given by the names on its way.

    Raises:
        DecloudError: a name stands for both a file and a folder.
        TooLarge: a folder with so many entries that importers would shard it.
    """
    trees: dict[str, Tree] = {}
    below: dict[str, list[tuple[tuple[str, ...], Tree]]] = {}
    for names, tree in files:
        first, rest = names[0], names[1:]
        if (rest and first in trees) or (not rest and (first in trees or first in below)):
            raise DecloudError(f"two things in one folder are named {first!r}")
        if rest:
            below.setdefault(first, []).append((rest, tree))
        else:
            trees[first] = tree
    for name, inner in below.items():
        trees[name] = build_folder(inner, version, keep)
    links = [Link(tree.cid.to_bytes(), name, tree.total) for name, tree in trees.items()]
    if sum(len(link.cid) + len(link.name.encode()) for link in links) > MAX_FOLDER_BLOCK_BYTES:
        raise TooLarge(f"a folder with {len(links)} entries is too large to be pinned")
    links.sort(key=lambda link: link.name.encode("utf-8"))
    size = sum(tree.size for tree in trees.values())
    return _inner(Node(Kind.DIRECTORY, links=tuple(links)), size, version, keep)


def folder_files(path: Path) -> list[tuple[tuple[str, ...], Path]]:
    """All files below a folder with the names on their way, in the order of their paths.

    Raises:
        DecloudError: it holds something that pin services don't keep (a symbolic link, a device,
            an empty folder) or a name that doesn't travel.
    """
    found: list[tuple[tuple[str, ...], Path]] = []
    for inner in sorted(path.iterdir()):
        _check_name(inner)
        mode = inner.lstat().st_mode
        if stat.S_ISDIR(mode):
            found += [((inner.name, *names), file) for names, file in folder_files(inner)]
        elif stat.S_ISREG(mode):
            found.append(((inner.name,), inner))
        else:
            raise DecloudError(f"can't pin {inner}: it is neither a file nor a folder")
    if not found:
        raise DecloudError(f"can't pin {path}: the folder is empty")
    return found


def _check_name(path: Path) -> None:
    name = path.name
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DecloudError(f"can't pin {str(path)!r}: its name isn't UTF-8") from error
    if not name.isprintable() or '"' in name or "\\" in name:
        raise DecloudError(f"can't pin {str(path)!r}: rename it, that name doesn't travel")


def file_cid(path: Path, version: int = 1) -> Cid:
    """The CID that pin services give a file by default, in version 0 or 1."""
    return _build_file_at(path, BY_VERSION[version]).cid


def folder_cid(path: Path, version: int = 1) -> Cid:
    """The CID of a folder with all its files; its own name is no part of it."""
    return _build_folder_at(path, BY_VERSION[version]).cid


def _build_file_at(path: Path, profile: Profile) -> Tree:
    with path.open("rb") as file:
        return build_file(file, profile)


def _build_folder_at(path: Path, profile: Profile) -> Tree:
    files = [(names, _build_file_at(file, profile)) for names, file in folder_files(path)]
    return build_folder(files, profile.version)


def is_content(path: Path, cid: Cid) -> bool:
    """Whether a file or folder is what the CID names, by one of the known profiles.

    False doesn't prove the opposite: the content may have been cut in yet another way.
    """
    if path.is_dir():
        built = (_build_folder_at(path, profile).cid for profile in _likely_first(cid))
    elif cid.codec is Codec.RAW:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest() == cid.digest
    else:
        size = os.stat(path).st_size
        built = (
            _build_file_at(path, profile).cid
            for profile in _likely_first(cid)
            if size > profile.chunk_bytes or not profile.raw_leaves  # else its root is raw
        )
    # Not by the whole CID: a root of version 0 may be written as a CID of version 1.
    return any((root.codec, root.digest) == (cid.codec, cid.digest) for root in built)


def _likely_first(cid: Cid) -> list[Profile]:
    return sorted(PROFILES, key=lambda profile: profile.version != cid.version)


def check_file(path: Path, cid: Cid) -> None:
    """Verify a file against its CID.

    Raises:
        ContentMismatch: no known profile makes these bytes the content of that CID.
    """
    if not is_content(path, cid):
        raise ContentMismatch(
            f"the bytes in {path} can't be verified as the content of {cid}",
            hint="they are wrong, or were cut into blocks in an unusual way",
        )
