from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from loopback import serve

from decloud_trainer.errors import CorruptionError
from decloud_trainer.ipfs.cid import Cid, file_cid, folder_cid
from decloud_trainer.ipfs.unixfs import read_varint
from decloud_trainer.localnet.pin_server import make_pin_app
from decloud_trainer.localnet.pin_store import PinStore

KEYS = {"pinata_api_key": "localnet-key", "pinata_secret_api_key": "localnet-secret"}
BEARER = {"Authorization": "Bearer localnet-jwt"}
M1 = random.Random("m1").randbytes(1_000_000)
M1_V0 = "QmUPvoFCTojacw65HicUxNzxCmSbh6rov3aZGTrZYnFyCo"
M1_V1 = "bafybeicp3j7jdwnctbbou3w237hqhh3tz6d5hd7oyzqfttoogacraidscm"


class Faults:
    """A switchboard with counts, as a drill would set them."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def take(self, name: str) -> bool:
        left = self.counts.get(name, 0)
        self.counts[name] = max(left - 1, 0)
        return left > 0


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def url(tmp_path: Path, faults: Faults) -> Iterator[str]:
    app = make_pin_app(PinStore(tmp_path / "pins"), faults=faults, max_upload_bytes=2_000_000)
    with serve(app) as base:
        yield base


def pin_legacy(
    url: str,
    files: list[tuple[str, bytes]],
    headers: dict[str, str] = KEYS,
    **fields: Any,
) -> requests.Response:
    parts = [("file", (name, data)) for name, data in files]
    data = {name: json.dumps(value) for name, value in fields.items()}
    return requests.post(
        f"{url}/pinning/pinFileToIPFS", headers=headers, files=parts, data=data, timeout=10
    )


def pin_v3(url: str, data: bytes, **fields: str) -> requests.Response:
    files = {"file": ("gradient.pt", data)}
    return requests.post(f"{url}/v3/files", headers=BEARER, files=files, data=fields, timeout=10)


def get(url: str, **options: Any) -> requests.Response:
    return requests.get(url, timeout=10, **options)


@pytest.mark.parametrize(
    ("options", "cid"), [({}, M1_V0), ({"cidVersion": 0}, M1_V0), ({"cidVersion": 1}, M1_V1)]
)
@pytest.mark.parametrize("headers", [KEYS, BEARER])
def test_a_legacy_pin_has_its_real_cid_and_is_served(
    url: str, options: dict[str, int], cid: str, headers: dict[str, str]
) -> None:
    """A file pinned by key or by JWT is answered with IPFS's own CID, and the gateway has it."""
    answer = pin_legacy(url, [("m1", M1)], headers, pinataOptions=options)
    assert answer.status_code == 200
    assert answer.json()["IpfsHash"] == cid
    assert answer.json()["PinSize"] > 1_000_000
    served = get(f"{url}/ipfs/{cid}")
    assert served.content == M1
    assert served.headers["ETag"] == f'"{cid}"'
    assert served.headers["X-Ipfs-Path"] == f"/ipfs/{cid}"
    assert served.headers["Content-Type"] == "application/octet-stream"


def test_a_second_pin_of_the_same_content_is_a_duplicate(url: str) -> None:
    """Pinning again is harmless and says so."""
    first, second = (pin_legacy(url, [("m1", M1)]).json() for _ in range(2))
    assert "isDuplicate" not in first
    assert second["isDuplicate"] is True
    assert second["ID"] == first["ID"]


def test_a_folder_is_pinned_under_the_cid_of_the_folder(url: str, tmp_path: Path) -> None:
    """Parts named folder/... give the folder's CID; its files and its listing are served."""
    folder = tmp_path / "gradient"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "sub" / "b.bin").write_bytes(M1[:300_000])
    files = [("g/config.json", b"{}"), ("g/sub/b.bin", M1[:300_000])]
    answer = pin_legacy(url, files, pinataOptions={"cidVersion": 1, "wrapWithDirectory": False})
    cid = answer.json()["IpfsHash"]
    assert cid == str(folder_cid(folder, 1))
    assert answer.json()["NumberOfFiles"] == 2
    config = get(f"{url}/ipfs/{cid}/config.json")
    assert (config.content, config.headers["Content-Type"]) == (b"{}", "application/json")
    assert get(f"{url}/ipfs/{cid}/sub/b.bin").content == M1[:300_000]
    listing = get(f"{url}/ipfs/{cid}").json()
    assert [entry["name"] for entry in listing["entries"]] == ["config.json", "sub"]
    assert get(f"{url}/ipfs/{cid}/missing").status_code == 404
    assert get(f"{url}/ipfs/{cid}/config.json/x").status_code == 404


def test_a_wrapped_file_is_a_folder_with_the_file_in_it(url: str) -> None:
    """wrapWithDirectory keeps the file's name."""
    answer = pin_legacy(url, [("hello.txt", b"hi")], pinataOptions={"wrapWithDirectory": True})
    assert get(f"{url}/ipfs/{answer.json()['IpfsHash']}/hello.txt").content == b"hi"


@pytest.mark.parametrize(
    "names",
    [
        ["../evil"],
        ["a/../../evil"],
        ["a//b"],
        ["a/./b"],
        ["a\\\\b"],
        ["a", "b"],
        ["a/x", "b/x"],
        ["a/x", "a/x"],
        ["a/x", "a/x/y"],
    ],
)
def test_part_names_that_leave_the_pin_are_refused(
    url: str, names: list[str], tmp_path: Path
) -> None:
    """No upload writes anywhere but into the store, and no ambiguous folder is accepted."""
    answer = pin_legacy(url, [(name, b"x") for name in names])
    assert answer.status_code == 400
    assert answer.json()["error"]["reason"]
    assert not list(tmp_path.rglob("evil"))
    assert not list((tmp_path / "pins" / "incoming").iterdir())


@pytest.mark.parametrize("network", [None, "private", "public"])
def test_v3_content_is_private_unless_public_is_asked_for(url: str, network: str | None) -> None:
    """V3's default network keeps content off the gateway, which costs careless users a round."""
    fields = {"network": network} if network else {}
    data = pin_v3(url, M1, name="g", **fields).json()["data"]
    assert (data["cid"], data["size"], data["is_duplicate"]) == (M1_V1, 1_000_000, False)
    assert data["name"] == "g"
    on_gateway = get(f"{url}/ipfs/{M1_V1}")
    listed = {
        net: get(f"{url}/v3/files/{net}?cid={M1_V1}", headers=BEARER).json()["data"]["files"]
        for net in ("public", "private")
    }
    if network == "public":
        assert on_gateway.content == M1
        assert (len(listed["public"]), len(listed["private"])) == (1, 0)
    else:
        assert on_gateway.status_code == 404
        assert get(f"{url}/ipfs/{M1_V1}?format=raw").status_code == 404
        assert (len(listed["public"]), len(listed["private"])) == (0, 1)


def test_v3_takes_its_profiles_and_fields(url: str, tmp_path: Path) -> None:
    """cid_version chooses the tree; key values and group come back; repeats are told."""
    (tmp_path / "m1").write_bytes(M1)
    answer = pin_v3(
        url, M1, network="public", cid_version="v0", keyvalues='{"round": "7"}', group_id="g1"
    ).json()["data"]
    assert answer["cid"] == str(file_cid(tmp_path / "m1", 0))
    assert (answer["keyvalues"], answer["group_id"]) == ({"round": "7"}, "g1")
    assert pin_v3(url, M1, network="public", cid_version="v0").json()["data"]["is_duplicate"]
    assert pin_v3(url, M1, network="everyone").status_code == 400
    assert pin_v3(url, M1, cid_version="v7").status_code == 400


WRONG = [
    {},
    {"Authorization": "Bearer wrong"},
    {"Authorization": "localnet-jwt"},
    {"pinata_api_key": "localnet-key", "pinata_secret_api_key": "wrong"},
    {"pinata_api_key": "localnet-key", "pinata_secret_key": "localnet-secret"},
    {"pinata_secret_api_key": "localnet-secret"},
]


@pytest.mark.parametrize("headers", WRONG)
def test_wrong_credentials_are_401_everywhere(url: str, headers: dict[str, str]) -> None:
    """Every call of the API needs the right key and secret, or the right JWT."""
    for path in ("/data/testAuthentication", "/data/pinList", "/v3/files/public"):
        assert get(url + path, headers=headers).status_code == 401
    assert pin_legacy(url, [("x", b"x")], headers).status_code == 401
    unpin = requests.delete(f"{url}/pinning/unpin/{M1_V0}", headers=headers, timeout=10)
    assert unpin.status_code == 401
    assert unpin.json()["error"]["details"]


def test_v3_takes_no_key_and_secret(url: str) -> None:
    """The two interfaces differ: V3 wants a JWT."""
    assert get(f"{url}/data/testAuthentication", headers=KEYS).status_code == 200
    assert get(f"{url}/data/testAuthentication", headers=BEARER).status_code == 200
    assert get(f"{url}/v3/files/public", headers=KEYS).status_code == 401


def test_pins_are_listed_and_unpinned(url: str) -> None:
    """The list knows names; unpinned content is gone, blocks that another pin shares stay."""
    pin_legacy(url, [("m1", M1)], pinataMetadata={"name": "first", "keyvalues": {"round": 7}})
    # Its first block is a block of m1 too.
    part = pin_legacy(url, [("part", M1[:262_144])]).json()["IpfsHash"]
    rows = get(f"{url}/data/pinList?hashContains={M1_V0}", headers=KEYS).json()
    assert rows["count"] == 1
    assert rows["rows"][0]["metadata"] == {"name": "first", "keyvalues": {"round": "7"}}
    assert get(f"{url}/data/pinList?pageLimit=1", headers=KEYS).json()["count"] == 2
    for status in (200, 400):
        answer = requests.delete(f"{url}/pinning/unpin/{M1_V0}", headers=KEYS, timeout=10)
        assert answer.status_code == status
    assert get(f"{url}/ipfs/{M1_V0}").status_code == 404
    assert get(f"{url}/ipfs/{part}").content == M1[:262_144]


@pytest.mark.parametrize(
    ("header", "status", "start", "stop"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=262140-262150", 206, 262_140, 262_151),
        ("bytes=999999-", 206, 999_999, 1_000_000),
        ("bytes=500000-2000000", 206, 500_000, 1_000_000),
        ("bytes=-5", 206, 999_995, 1_000_000),
        ("bytes=-2000000", 206, 0, 1_000_000),
        ("bytes=1000000-", 416, 0, 0),
        ("bytes=5-1", 200, 0, 1_000_000),
        ("bytes=0-1,5-6", 200, 0, 1_000_000),
        ("lines=1-2", 200, 0, 1_000_000),
    ],
)
@pytest.mark.parametrize("version", [0, 1])
def test_ranges_follow_http(
    url: str, header: str, status: int, start: int, stop: int, version: int
) -> None:
    """Ranges work across block borders, and nonsense means the whole file."""
    pin_legacy(url, [("m1", M1)], pinataOptions={"cidVersion": version})
    answer = get(f"{url}/ipfs/{(M1_V0, M1_V1)[version]}", headers={"Range": header})
    assert answer.status_code == status
    if status == 416:
        assert answer.headers["Content-Range"] == "bytes */1000000"
    else:
        assert answer.content == M1[start:stop]
    if status == 206:
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/1000000"


def test_head_and_conditional_requests_send_no_body(url: str) -> None:
    """HEAD tells the length, and a known ETag is answered with 304."""
    pin_legacy(url, [("m1", M1)])
    head = requests.head(f"{url}/ipfs/{M1_V0}", timeout=10)
    assert (head.status_code, head.headers["Content-Length"]) == (200, "1000000")
    assert head.content == b""
    known = get(f"{url}/ipfs/{M1_V0}", headers={"If-None-Match": head.headers["ETag"]})
    assert known.status_code == 304


def test_blocks_and_car_files_hold_the_whole_tree(url: str) -> None:
    """?format=raw is the root block; ?format=car has every block once, each true to its CID."""
    pin_legacy(url, [("m1", M1)], pinataOptions={"cidVersion": 1})
    root = get(f"{url}/ipfs/{M1_V1}?format=raw")
    assert root.headers["Content-Type"] == "application/vnd.ipld.raw"
    assert Cid.parse(M1_V1).names(root.content)
    accepted = get(f"{url}/ipfs/{M1_V1}", headers={"Accept": "application/vnd.ipld.raw"})
    assert accepted.content == root.content
    answer = get(f"{url}/ipfs/{M1_V1}?format=car")
    assert answer.headers["Content-Type"].startswith("application/vnd.ipld.car")
    sections = read_sections(answer.content)
    assert sections[0] == (
        b"\xa2\x65roots\x81\xd8\x2a\x58\x25\x00" + Cid.parse(M1_V1).to_bytes() + b"\x67version\x01"
    )
    blocks = {Cid.from_bytes(section[:36]): section[36:] for section in sections[1:]}
    assert all(cid.names(block) for cid, block in blocks.items())
    assert next(iter(blocks)) == Cid.parse(M1_V1)
    assert len(blocks) == len(sections) - 1 == 5
    assert b"".join(list(blocks.values())[1:]) == M1
    assert get(f"{url}/ipfs/{M1_V1}?format=tar").status_code == 400


def read_sections(data: bytes) -> list[bytes]:
    sections, at = [], 0
    while at < len(data):
        length, at = read_varint(data, at)
        sections.append(data[at : at + length])
        at += length
    return sections


@pytest.mark.parametrize("text", ["x", "..%2f..%2fetc%2fpasswd", "Qm" + "1" * 44, "a" * 5000])
def test_what_is_no_cid_is_400(url: str, text: str) -> None:
    """Only parsed CIDs reach the disk."""
    assert get(f"{url}/ipfs/{text}").status_code == 400


def test_unknown_content_is_404_at_once(url: str) -> None:
    """The local gateway doesn't go looking for content in the world."""
    assert get(f"{url}/ipfs/{M1_V0}").status_code == 404


def test_uploads_over_the_limit_are_413(url: str) -> None:
    """The limit holds for declared and for undeclared lengths, and leaves nothing behind."""
    assert pin_legacy(url, [("big", bytes(2_100_000))]).status_code == 413
    boundary = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    chunks = iter([boundary, *[bytes(500_000)] * 5, b"\r\n--b--\r\n"])
    headers = KEYS | {"Content-Type": "multipart/form-data; boundary=b"}
    answer = requests.post(f"{url}/pinning/pinFileToIPFS", data=chunks, headers=headers, timeout=10)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "multipart/form-data"),
        (b"{}", "application/json"),
        (b"garbage", "multipart/form-data; boundary=b"),
        (b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--b--\r\n',
         "multipart/form-data; boundary=b"),
    ],
)  # fmt: skip
def test_broken_uploads_are_400(url: str, data: bytes, kind: str) -> None:
    """A body that is no upload is refused, not answered with a stack trace."""
    answer = requests.post(
        f"{url}/pinning/pinFileToIPFS",
        data=data,
        headers=KEYS | {"Content-Type": kind},
        timeout=10,
    )
    assert answer.status_code == 400


def test_faults_strike_when_the_switchboard_says_so(url: str, faults: Faults) -> None:
    """Wrong bytes keep their length, and a service that is down answers 503; both pass."""
    pin_legacy(url, [("m1", M1)])
    faults.counts = {"gateway_wrong_bytes": 1, "pin_down": 1}
    wrong = get(f"{url}/ipfs/{M1_V0}").content
    assert len(wrong) == len(M1)
    assert sum(a != b for a, b in zip(wrong, M1, strict=True)) == 1
    assert get(f"{url}/data/pinList", headers=KEYS).status_code == 503
    assert get(f"{url}/ipfs/{M1_V0}").content == M1
    assert get(f"{url}/data/pinList", headers=KEYS).status_code == 200


def test_pins_survive_a_restart(tmp_path: Path) -> None:
    """What was pinned, publicly or privately, is there for the next server on the same folder."""
    with serve(make_pin_app(PinStore(tmp_path))) as url:
        pin_legacy(url, [("m1", M1)])
        pin_v3(url, b"secret", name="s")
    (tmp_path / "incoming" / "left-over").mkdir()
    with serve(make_pin_app(PinStore(tmp_path))) as url:
        assert get(f"{url}/ipfs/{M1_V0}").content == M1
        files = get(f"{url}/v3/files/private", headers=BEARER).json()["data"]["files"]
        assert [file["name"] for file in files] == ["s"]
        assert not list((tmp_path / "incoming").iterdir())


def test_damage_on_disk_is_noticed(tmp_path: Path) -> None:
    """A rotten block is never served, and a rotten record is named."""
    store = PinStore(tmp_path)
    with serve(make_pin_app(store)) as url:
        cid = pin_legacy(url, [("x", b"content")]).json()["IpfsHash"]
        next((tmp_path / "blocks" / "public").iterdir()).write_bytes(b"rotten")
        assert get(f"{url}/ipfs/{cid}").status_code == 500
    next((tmp_path / "pins").iterdir()).write_text("{")
    with pytest.raises(CorruptionError, match="pin record"):
        PinStore(tmp_path)
