from __future__ import annotations

import contextlib
import io
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decloud_trainer.errors import ContentMismatch, DecloudError, InvalidCid
from decloud_trainer.ipfs import cid as cids
from decloud_trainer.ipfs.cid import Cid, Codec, check_file, file_cid, folder_cid, is_content
from decloud_trainer.ipfs.unixfs import decode_node

# Computed with the JavaScript reference importer and, for version 0, with kubo.
GOLDEN = {
    ("empty", 0): (
        "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    ),
    ("small", 11): (
        "QmRE89EHeV6JR5jRx77XFfAdZyMXnhtaZb8X2rUVSqo1SB",
        "bafkreidumtlsaclif7euneod3kfy5h4qu52nw5ukb4be2yrun6v3ccbvzq",
    ),
    ("hello", 12): (
        "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o",
        "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4",
    ),
    ("c256k", 262_144): (
        "QmbcTrWgKcAg3p13J6ZrFPMKcCAFnPC27BCxLofeAm3JgM",
        "bafkreiej4levcn2z2njwuc5xigntw6d74en3qupexllenudwt5st3xm724",
    ),
    ("c256k1", 262_145): (
        "QmYLW8hwfLoP3Skzubd9quxNHn1X3GPJjWUdd4zxQJsMm4",
        "bafybeiazplsbgq4rvdkevqypos4gvrb4umuothuk5l26dv3mbnjsvsnrlq",
    ),
    ("m1", 1_000_000): (
        "QmUPvoFCTojacw65HicUxNzxCmSbh6rov3aZGTrZYnFyCo",
        "bafybeicp3j7jdwnctbbou3w237hqhh3tz6d5hd7oyzqfttoogacraidscm",
    ),
    ("m60", 60_000_000): (
        "QmchNx49kDZB4E1m6AHkB5XYUA5ecWyRM53Aq9wZkGiq13",
        "bafybeiffle7ym6zjlg5fxqeq4ng7tuo3otjk4y3p6hh7q4rakrh2rxpw2a",
    ),
}
FOLDER = (
    "QmQiMnvyC2tqoUDsgcw1MR2c5AUm4Nr4QdZB5KZzGcnLPi",
    "bafybeih46d6u7j6szsb6zpx2ho6r2wrd6bfkjyjoikvax7muuy2guyfgzi",
)
V0, V1 = GOLDEN["m1", 1_000_000]


def content(name: str, size: int) -> bytes:
    return b"hello world\n" if name == "hello" else random.Random(name).randbytes(size)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("golden") / "dir"
    (root / "sub").mkdir(parents=True)
    for i in range(5):
        (root / f"f{i}.bin").write_bytes(content(f"dir/f{i}.bin", 1000 * i + 1))
    (root / "sub/a.txt").write_bytes(content("dir/sub/a.txt", 300_000))
    (root / "sub/b.txt").write_bytes(content("dir/sub/b.txt", 5))
    return root


@pytest.fixture
def m1(tmp_path: Path) -> Path:
    path = tmp_path / "m1"
    path.write_bytes(content("m1", 1_000_000))
    return path


@pytest.mark.parametrize(("name", "size"), GOLDEN)
def test_files_have_the_reference_importers_cids(name: str, size: int, tmp_path: Path) -> None:
    """A file's CID is what the reference importers compute, from empty to two levels of blocks."""
    path = tmp_path / name
    path.write_bytes(content(name, size))
    assert (str(file_cid(path, 0)), str(file_cid(path, 1))) == GOLDEN[name, size]


def test_other_profiles_have_the_reference_importers_cids(tmp_path: Path) -> None:
    """The rarer ways to cut a file agree with the JavaScript importer too."""
    path = tmp_path / "m60"
    path.write_bytes(content("m60", 60_000_000))
    wrapped = "bafybeif3wbyigxencjs4xw6b4yr4l2z5oepy56qvqkqbhbcejotithhyki"
    newer = "bafybeiadg44e6xfy3syca3xzkatgpppp65dfucepw7itxbbydtnr44bh2e"
    check_file(path, Cid.parse(wrapped))
    check_file(path, Cid.parse(newer))


def test_folders_have_the_reference_importers_cids(folder: Path) -> None:
    """A folder's CID covers nested files and is what the reference importers compute."""
    assert (str(folder_cid(folder, 0)), str(folder_cid(folder, 1))) == FOLDER
    assert is_content(folder, Cid.parse(FOLDER[0]))
    assert is_content(folder, Cid.parse(FOLDER[1]))


def test_large_files_are_streamed(tmp_path: Path) -> None:
    """A file of 60 MB needs a few chunks of memory, not 60 MB."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(60_000_000)
    tracemalloc.start()
    file_cid(path, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize("pair", [*GOLDEN.values(), FOLDER])
def test_golden_cids_parse_and_print_as_they_were(pair: tuple[str, str]) -> None:
    """Text, value and binary form of a CID are the same thing."""
    for version, text in enumerate(pair):
        cid = Cid.parse(text)
        assert cid.version == version
        assert str(cid) == text
        assert Cid.from_bytes(cid.to_bytes()) == cid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Qm",
        V0[:-1],
        V0 + "1",
        V0[:-1] + "0",  # not in the alphabet
        "Qm" + "z" * 44,  # larger than a digest
        "Qm" + "1" * 44,
        V1[:-1],
        V1 + "a",
        V1.upper(),
        "B" + V1[1:],
        V1[:-1] + "b",  # bits behind the end that a lax decoder drops
        V1[:20] + "=" + V1[21:],
        " " + V1,
        V1 + "\n",
        V1 + "/x",
        "../" * 16,
        "/" * 46,
        "Qm../../../../../../../../../../../../etc/passwd",
        "QmфMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
        "zdj7WcDSFNSsZkdkbpSDGeLsBtHbYKyvPQsaw6PpeeYdGqoAx",  # version 1 in base58
        "bafyreigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",  # dag-cbor
        "bafkrmic6upgtmkcwhyfdoxjtcnzsz3zd2udyhyrrbzdhqc7nnhkcwm7xzy",  # not sha2-256
        "f" + "0" * 58,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    """Text that isn't a canonical CID of a kind we verify never becomes one."""
    with pytest.raises(InvalidCid):
        Cid.parse(text)


@given(st.binary(min_size=32, max_size=32), st.sampled_from([(0, 0x70), (1, 0x70), (1, 0x55)]))
def test_every_cid_survives_the_round_trip(digest: bytes, kind: tuple[int, int]) -> None:
    """Any digest can be written and read back."""
    cid = Cid(kind[0], Codec(kind[1]), digest)
    assert Cid.parse(str(cid)) == cid
    assert 46 <= len(str(cid)) <= 64


@given(st.text(max_size=70) | st.from_regex(r"Qm[1-9A-Za-z]{44}|ba[a-z2-7]{57}", fullmatch=True))
def test_parsing_never_fails_otherwise(text: str) -> None:
    """Any text either is a CID, spelled canonically, or is refused as InvalidCid."""
    with contextlib.suppress(InvalidCid):
        assert str(Cid.parse(text)) == text


@pytest.mark.parametrize(
    "profile", [*cids.PROFILES, cids.Profile(1, raw_leaves=True, chunk_bytes=1_048_576, fanout=174)]
)
def test_known_profiles_verify(profile: cids.Profile, tmp_path: Path) -> None:
    """A file verifies against the CID of every usual way to cut it, and no other bytes do."""
    path = tmp_path / "file"
    path.write_bytes(content("m1", 2_500_000))
    with path.open("rb") as file:
        cid = cids.build_file(file, profile).cid
    check_file(path, cid)
    flipped = bytearray(path.read_bytes())
    flipped[-1] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(ContentMismatch, match=str(cid)):
        check_file(path, cid)


def test_an_unusual_cut_is_not_verified(m1: Path) -> None:
    """Right bytes whose tree we can't rebuild are refused, not believed."""
    with m1.open("rb") as file:
        cid = cids.build_file(file, cids.Profile(1, True, chunk_bytes=100_000)).cid
    with pytest.raises(ContentMismatch, match="can't be verified"):
        check_file(m1, cid)


def test_a_root_of_version_0_verifies_under_its_other_spelling(m1: Path) -> None:
    """Gateways write Qm... roots as bafybei... in host names; it is the same content."""
    old = Cid.parse(V0)
    check_file(m1, Cid(1, Codec.DAG_PB, old.digest))


def test_one_raw_block_of_any_size_verifies(m1: Path) -> None:
    """bafkrei... is the plain hash of the bytes, however many they are."""
    cid = Cid.of_block(m1.read_bytes(), Codec.RAW, 1)
    check_file(m1, cid)
    m1.write_bytes(b"x")
    with pytest.raises(ContentMismatch):
        check_file(m1, cid)


@pytest.mark.parametrize("leaves", [1, 2, 3, 4, 8, 9, 10, 27, 28, 29, 81, 82])
def test_blocks_reassemble_at_every_shape_of_the_tree(leaves: int) -> None:
    """Full, half full and single-child levels all hold the content, and sizes add up."""
    blocks: dict[Cid, bytes] = {}
    data = random.Random(leaves).randbytes(leaves * 10 - 3)
    profile = cids.Profile(1, raw_leaves=True, chunk_bytes=10, fanout=3)
    tree = cids.build_file(io.BytesIO(data), profile, blocks.__setitem__)

    def read(cid: Cid) -> bytes:
        if cid.codec is Codec.RAW:
            return blocks[cid]
        node = decode_node(blocks[cid])
        parts = [read(Cid.from_bytes(link.cid)) for link in node.links]
        assert tuple(map(len, parts)) == node.sizes
        return b"".join(parts)

    assert read(tree.cid) == data
    assert tree.size == len(data)
    assert tree.total == sum(map(len, blocks.values()))


def test_folders_that_would_not_arrive_whole_are_refused(tmp_path: Path) -> None:
    """Links, empty folders and names that multipart can't carry are named, not skipped."""
    root = tmp_path / "root"
    (root / "empty").mkdir(parents=True)
    (root / "file").write_bytes(b"1")
    with pytest.raises(DecloudError, match="empty"):
        folder_cid(root)
    (root / "empty").rmdir()
    (root / "link").symlink_to("/etc/passwd")
    with pytest.raises(DecloudError, match="link"):
        folder_cid(root)
    (root / "link").unlink()
    (root / 'quo"te').write_bytes(b"1")
    with pytest.raises(DecloudError, match="rename"):
        folder_cid(root)
