from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decloud_trainer.errors import UntrustedData
from decloud_trainer.ipfs.cid import Cid, Codec
from decloud_trainer.ipfs.unixfs import (
    Kind,
    Link,
    Node,
    decode_node,
    encode_leaf,
    encode_node,
    read_varint,
    varint,
)

CHILD = Cid.of_block(b"child", Codec.RAW, 1).to_bytes()
SAMPLES = (
    encode_leaf(b""),
    encode_leaf(b"some bytes"),
    encode_node(Node(Kind.DIRECTORY, (Link(CHILD, "a", 5), Link(CHILD, "ü", 300)))),
    encode_node(Node(Kind.FILE, (Link(CHILD, "", 5),) * 3, b"", 15, (5, 5, 5))),
)


def test_the_empty_file_and_folder_have_their_well_known_bytes() -> None:
    """The shortest nodes are those of every IPFS node in the world."""
    assert encode_leaf(b"").hex() == "0a0408021800"
    assert encode_node(Node(Kind.DIRECTORY)).hex() == "0a020801"
    empty_folder = Cid.of_block(encode_node(Node(Kind.DIRECTORY)), Codec.DAG_PB, 0)
    assert str(empty_folder) == "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"


@pytest.mark.parametrize("block", SAMPLES)
def test_nodes_survive_the_round_trip(block: bytes) -> None:
    """What we encode we decode to the same, and encode to the same bytes again."""
    assert encode_node(decode_node(block)) == block


@given(st.binary(max_size=200))
def test_random_bytes_are_nodes_or_refused(block: bytes) -> None:
    """No bytes crash the decoder."""
    with contextlib.suppress(UntrustedData):
        decode_node(block)


@given(st.sampled_from(SAMPLES), st.data())
def test_damaged_blocks_are_nodes_or_refused(block: bytes, data: st.DataObject) -> None:
    """A changed, cut or lengthened block decodes to sound sizes or not at all."""
    at = data.draw(st.integers(0, len(block) - 1))
    change = data.draw(st.binary(max_size=3))
    damaged = block[:at] + change + block[at + data.draw(st.integers(0, 3)) :]
    with contextlib.suppress(UntrustedData):
        node = decode_node(damaged)
        if node.kind in (Kind.FILE, Kind.RAW):
            assert len(node.sizes) == len(node.links)
            assert node.size == len(node.data) + sum(node.sizes)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        bytes.fromhex("0a"),
        bytes.fromhex("0aff"),
        bytes.fromhex("0a0408021805"),  # states five bytes and has none
        bytes.fromhex("0a0408091800"),  # unknown type
        bytes.fromhex("0a021800"),  # no type
        bytes.fromhex("0a0408021800") * 2,
        bytes.fromhex("0d00000000"),  # a wire type that doesn't occur
        bytes.fromhex("0a0608021880808000"),  # a number longer than needed
        bytes.fromhex("12020a00") + encode_leaf(b""),  # a link to nowhere
        bytes.fromhex("1a00"),
    ],
)
def test_unsound_blocks_are_refused(block: bytes) -> None:
    """Contradictions, foreign fields and lax encodings are no nodes."""
    with pytest.raises(UntrustedData):
        decode_node(block)


@given(st.integers(0, 2**63 - 1))
def test_numbers_survive_the_round_trip(number: int) -> None:
    """All sizes up to 63 bits have one encoding."""
    data = varint(number)
    assert read_varint(data + b"tail", 0) == (number, len(data))
