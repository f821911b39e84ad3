"""Fetching from gateways that are wrong, slow, broken or hostile."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from loopback import serve

from decloud_trainer.errors import (
    ContentMismatch,
    DecloudError,
    GatewayError,
    SettingsError,
    TooLarge,
)
from decloud_trainer.ipfs.cid import (
    V0,
    V1,
    V1_WRAPPED,
    Cid,
    Codec,
    Profile,
    build_file,
    build_folder,
)
from decloud_trainer.ipfs.gateway import Patience
from decloud_trainer.ipfs.gateways import Gateways
from decloud_trainer.ipfs.scores import Scores
from decloud_trainer.ipfs.unixfs import Kind, Link, Node, encode_node

DATA = random.Random("model").randbytes(1_000_000)
ODD = Profile(1, raw_leaves=True, chunk_bytes=100_000, fanout=4)  # nobody's default
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Blocks(dict[str, bytes]):
    """Blocks by CID, for gateways in tests."""

    def add(self, data: bytes, profile: Profile = V1) -> str:
        return str(build_file(io.BytesIO(data), profile, self.keep).cid)

    def keep(self, cid: Cid, block: bytes) -> None:
        self[str(cid)] = block

    def put(self, node: Node) -> Cid:
        block = encode_node(node)
        cid = Cid.of_block(block, Codec.DAG_PB, 1)
        self.keep(cid, block)
        return cid


class Served:
    """A running gateway: its address, and the requests that it has seen."""

    def __init__(self, handler: Handler) -> None:
        self.seen: list[web.Request] = []
        self._handler = handler
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        return await self._handler(request)


@pytest.fixture
def gateway() -> Iterator[Callable[[Handler], Served]]:
    with contextlib.ExitStack() as stack:

        def start(handler: Handler) -> Served:
            served = Served(handler)
            app = web.Application()
            app.router.add_get("/{path:.*}", served.handle)
            served.url = stack.enter_context(serve(app))
            return served

        yield start


def answering(data: bytes, blocks: dict[str, bytes] | None = None, **more: object) -> Handler:
    """A gateway with this plain content and these blocks, for every CID."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.query.get("format") != "raw":
            return web.Response(body=data, **more)  # type: ignore[arg-type]
        block = (blocks or {}).get(request.path.rpartition("/")[2])
        return web.Response(status=404) if block is None else web.Response(body=block)

    return answer


class NoWaiting(threading.Event):
    """A stop signal that notes how long it would have been waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return False


def fetch(urls: list[str], cid: str, into: Path, max_bytes: int = 2_000_000) -> bytes:
    gateways = Gateways(urls, Patience(connect_s=2, read_s=2))
    gateways.fetch(cid, into, max_bytes=max_bytes, stop=NoWaiting())
    return into.read_bytes()


@pytest.mark.parametrize("body", [DATA[:-1] + b"x", b"<html>Please wait</html>", DATA[:-1], b""])
@pytest.mark.parametrize("profile", [V0, V1])
def test_the_next_gateway_is_asked_after_wrong_bytes(
    gateway: Callable[[Handler], Served], body: bytes, profile: Profile, tmp_path: Path
) -> None:
    """Flipped, foreign, short or no bytes with status 200 cost a request, nothing more."""
    cid = Blocks().add(DATA, profile)
    wrong, right = gateway(answering(body)), gateway(answering(DATA))
    assert fetch([wrong.url, right.url], cid, tmp_path / "model") == DATA
    assert os.listdir(tmp_path) == ["model"]
    assert (tmp_path / "model").stat().st_mode & 0o077 == 0


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


@pytest.mark.parametrize("profile", [V0, V1, V1_WRAPPED])
def test_one_flipped_bit_in_any_piece_is_refused(
    gateway: Callable[[Handler], Served], profile: Profile, tmp_path: Path
) -> None:
    """Whichever piece of the plain file it is in; the next gateway makes it good."""
    cid = Blocks().add(DATA, profile)
    right = gateway(in_ranges(DATA))
    for piece in range(0, len(DATA), profile.chunk_bytes):
        wrong = gateway(answering(flipped(DATA, min(piece + 100_000, len(DATA) - 1))))
        with pytest.raises(ContentMismatch, match="wrong bytes"):
            fetch([wrong.url], cid, tmp_path / "model")
        assert fetch([wrong.url, right.url], cid, tmp_path / f"model {piece}") == DATA
    assert len(os.listdir(tmp_path)) == 4


@pytest.mark.parametrize("profile", [V1, ODD])
def test_one_flipped_bit_in_any_block_is_refused(
    gateway: Callable[[Handler], Served], profile: Profile, tmp_path: Path
) -> None:
    """A gateway that serves one damaged block, root or leaf, gives no file."""
    blocks = Blocks()
    cid = blocks.add(DATA, profile)
    served = gateway(answering(b"wrong", blocks))
    for name in list(blocks):
        whole = blocks[name]
        blocks[name] = flipped(whole, len(whole) // 2)
        with pytest.raises(ContentMismatch, match="wrong blocks"):
            fetch([served.url], cid, tmp_path / "model")
        blocks[name] = whole
    assert fetch([served.url], cid, tmp_path / "model") == DATA
    assert os.listdir(tmp_path) == ["model"]


def test_unusual_cuts_are_verified_block_by_block(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """Content that no known profile explains is reassembled from blocks that prove themselves."""
    blocks = Blocks()
    cid = blocks.add(DATA, ODD)
    assert fetch([gateway(answering(DATA, blocks)).url], cid, tmp_path / "model") == DATA


@pytest.mark.parametrize("profile", [V0, V1, ODD])
def test_gateways_that_all_lie_are_told_as_such(
    gateway: Callable[[Handler], Served], profile: Profile, tmp_path: Path
) -> None:
    """When everybody answers and nobody has the right bytes, a retry is pointless."""
    cid = Blocks().add(DATA, profile)
    liars = [gateway(answering(b"<html>")).url, gateway(answering(DATA[1:])).url]
    with pytest.raises(ContentMismatch, match="wrong bytes, and no blocks to be had") as caught:
        fetch(liars, cid, tmp_path / "model")
    assert all(url in caught.value.message for url in liars)
    assert not caught.value.retryable


def test_an_existing_right_file_needs_no_network(tmp_path: Path) -> None:
    """A file that is already there and right is left alone; a wrong one is replaced or kept."""
    cid = Blocks().add(DATA)
    into = tmp_path / "model"
    into.write_bytes(DATA)
    nobody = "http://127.0.0.1:1"
    assert fetch([nobody], cid, into) == DATA
    into.write_bytes(b"other")
    with pytest.raises(GatewayError, match="connection failed"):
        fetch([nobody], cid, into)
    assert into.read_bytes() == b"other"


def test_a_damaged_file_is_noticed_and_fetched_again(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """One bit that the disk lost is enough."""
    cid = Blocks().add(DATA)
    into = tmp_path / "model"
    into.write_bytes(flipped(DATA, 500_000))
    served = gateway(answering(DATA))
    assert fetch([served.url], cid, into) == DATA
    assert len(served.seen) == 1


@pytest.mark.parametrize("length", ["9" * 30, "9" * 5000, "-1", "x"])
def test_nonsense_for_a_length_is_passed_over(
    gateway: Callable[[Handler], Served], length: str, tmp_path: Path
) -> None:
    """The limit holds while bytes arrive, whatever was declared."""
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"

    async def raw(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        if not request.query:
            request.transport.write(answer.encode() + DATA)  # type: ignore[attr-defined]
        request.transport.close()
        raise asyncio.CancelledError

    wrong, right = gateway(raw), gateway(in_ranges(DATA))
    assert fetch([wrong.url, right.url], Blocks().add(DATA), tmp_path / "model") == DATA


@pytest.mark.parametrize("status", [403, 404, 410, 429, 500, 502, 504])
def test_failing_gateways_are_told_one_by_one(
    gateway: Callable[[Handler], Served], status: int, tmp_path: Path
) -> None:
    """The error lists each gateway with its reason, and is worth a retry if the network was one."""
    cid = Blocks().add(DATA)
    failing = gateway(answering(b"", status=status))
    wrong = gateway(answering(b"wrong"))
    with pytest.raises(GatewayError) as caught:
        fetch([failing.url, wrong.url], cid, tmp_path / "model")
    assert f"{failing.url}: {status}" in caught.value.message
    assert f"{wrong.url}: " in caught.value.message
    assert caught.value.retryable


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("profile", [V1, None])
def test_oversized_answers_end_at_the_limit(
    gateway: Callable[[Handler], Served],
    declared: bool,
    profile: Profile | None,
    tmp_path: Path,
) -> None:
    """The limit holds by the declared length and, when that is missing, while bytes arrive."""
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        if request.query:
            return web.Response(status=404)
        response = web.StreamResponse()
        if declared:
            response.content_length = 1_000_000_000
        await response.prepare(request)
        while sent < 100_000_000:
            await response.write(bytes(100_000))
            sent += 100_000
        return response

    raw = str(Cid.of_block(DATA, Codec.RAW, 1))
    cid = Blocks().add(DATA, profile) if profile else raw
    with pytest.raises(TooLarge):
        fetch([gateway(answer).url], cid, tmp_path / "model")
    assert sent < 50_000_000
    assert os.listdir(tmp_path) == []


def test_a_root_that_states_too_much_is_proof(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """The verified root settles the size: no further gateway is bothered."""
    blocks = Blocks()
    cid = blocks.add(DATA)
    first, second = gateway(answering(DATA, blocks)), gateway(answering(DATA, blocks))
    with pytest.raises(TooLarge, match="1000000 bytes"):
        fetch([first.url, second.url], cid, tmp_path / "model", max_bytes=999_999)
    assert not second.seen


def dropping(data: bytes, *, ranges: bool, after: int, times: int) -> Handler:
    """A gateway whose connections break `times` times, each after `after` bytes."""
    broken = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal broken
        start = (request.http_range.start or 0) if ranges else 0
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(data) - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        await response.prepare(request)
        broken += 1
        if broken > times:
            await response.write(data[start:])
            return response
        await response.write(data[start : start + after])
        await asyncio.sleep(0.02)
        assert request.transport is not None
        request.transport.close()
        return response

    return answer


def test_a_dropped_download_goes_on_where_it_stopped(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """Broken connections cost a reconnect, not the bytes that came before."""
    cid = Blocks().add(DATA)
    served = gateway(dropping(DATA, ranges=True, after=200_000, times=3))
    assert fetch([served.url], cid, tmp_path / "model") == DATA
    asked = [request.headers.get("Range") for request in served.seen]
    assert asked == [None, "bytes=200000-", "bytes=400000-", "bytes=600000-"]


def test_without_ranges_a_download_starts_again(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """A gateway that ignores Range is read from the start, and given up when it always drops."""
    cid = Blocks().add(DATA)
    served = gateway(dropping(DATA, ranges=False, after=200_000, times=1))
    assert fetch([served.url], cid, tmp_path / "model") == DATA
    hopeless = gateway(dropping(DATA, ranges=False, after=200_000, times=99))
    with pytest.raises(GatewayError, match="download"):
        fetch([hopeless.url], cid, tmp_path / "other")
    assert len(hopeless.seen) < 10


def redirecting(to: str, status: int = 302) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": to})

    return answer


def test_redirects_are_followed_a_few_times(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """Gateways redirect to host names of their own; a circle ends."""
    cid = Blocks().add(DATA)
    right = gateway(answering(DATA))
    hop = gateway(redirecting(f"{right.url}/elsewhere"))
    assert fetch([hop.url], cid, tmp_path / "model") == DATA
    circle = gateway(redirecting("/again"))
    with pytest.raises(GatewayError, match="redirects"):
        fetch([circle.url], cid, tmp_path / "other")
    assert len(circle.seen) == 6


@pytest.mark.parametrize("to", ["http://example.com/x", "ftp://127.0.0.1/x", "http://[::1", "//"])
def test_redirects_to_unfit_addresses_are_refused(
    gateway: Callable[[Handler], Served], to: str, tmp_path: Path
) -> None:
    """Plain http off this machine, other schemes and nonsense end the attempt."""
    served = gateway(redirecting(to))
    with pytest.raises(GatewayError, match="redirects"):
        fetch([served.url], Blocks().add(DATA), tmp_path / "model")


@pytest.mark.parametrize(
    ("header", "waits"), [("7", [7.0, 7.0]), ("31", []), ("", []), ("soon", []), ("-1", [])]
)
def test_retry_after_is_honoured_up_to_a_bound(
    gateway: Callable[[Handler], Served], header: str, waits: list[float], tmp_path: Path
) -> None:
    """A gateway that asks for a short pause gets it; a long one sends us to the next gateway."""
    refusals = 2

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal refusals
        refusals -= 1
        if refusals < 0:
            return web.Response(body=DATA)
        return web.Response(status=429, headers={"Retry-After": header})

    busy, spare = gateway(answer), gateway(answering(DATA))
    stop = NoWaiting()
    gateways = Gateways([busy.url, spare.url], Patience(wait_s=30))
    gateways.fetch(Blocks().add(DATA), tmp_path / "model", max_bytes=10**7, stop=stop)
    assert stop.waits == waits
    assert bool(spare.seen) == (not waits)


def silent_after(data: bytes, count: int, released: asyncio.Event) -> Handler:
    """A gateway that sends the beginning and then nothing, until it is released."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(data)
        if count:
            await response.prepare(request)
            await response.write(data[:count])
        await released.wait()
        raise web.HTTPServiceUnavailable

    return answer


def in_ranges(data: bytes) -> Handler:
    """A gateway that serves the plain content from wherever it is asked."""

    async def answer(request: web.Request) -> web.StreamResponse:
        start = request.http_range.start or 0
        if not start:
            return web.Response(body=data)
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return web.Response(status=206, body=data[start:], headers=headers)

    return answer


HASTY = Patience(hedge_s=0.05)


@pytest.mark.parametrize("count", [0, 300_000])
def test_a_silent_gateway_is_overtaken_from_where_it_stopped(
    gateway: Callable[[Handler], Served], count: int, tmp_path: Path
) -> None:
    """Before its first byte or after any, silence has the next one go on with what there is."""
    released = asyncio.Event()
    silent, right = gateway(silent_after(DATA, count, released)), gateway(in_ranges(DATA))
    gateways = Gateways([silent.url, right.url], HASTY)
    gateways.fetch(Blocks().add(DATA), tmp_path / "model", max_bytes=10**7)
    assert (tmp_path / "model").read_bytes() == DATA
    asked = [request.headers.get("Range") for request in right.seen]
    assert asked == [f"bytes={count}-" if count else None]
    assert os.listdir(tmp_path) == ["model"]


def test_a_wrong_beginning_that_was_taken_over_costs_a_new_start(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """What a silent liar had sent is found out at the end and fetched again."""
    wrong = b"x" + DATA[1:]
    silent = gateway(silent_after(wrong, 300_000, asyncio.Event()))
    right = gateway(in_ranges(DATA))
    gateways = Gateways([silent.url, right.url], HASTY)
    gateways.fetch(Blocks().add(DATA), tmp_path / "model", max_bytes=10**7)
    assert (tmp_path / "model").read_bytes() == DATA
    assert [r.headers.get("Range") for r in right.seen] == ["bytes=300000-", None]


def test_a_drop_is_made_good_by_another_gateway(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """When one gateway is gone for good, the next one delivers only the rest."""
    first = gateway(dropping(DATA, ranges=False, after=200_000, times=1))

    async def gone(request: web.Request) -> web.StreamResponse:
        return await first._handler(request) if len(lost.seen) == 1 else web.Response(status=500)

    lost, right = gateway(gone), gateway(in_ranges(DATA))
    assert fetch([lost.url, right.url], Blocks().add(DATA), tmp_path / "model") == DATA
    assert [r.headers.get("Range") for r in right.seen] == ["bytes=200000-"]


def test_slow_bytes_never_make_a_fetch_fail(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """However slowly they come, and though nobody else has any, all of them are waited for."""

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for at in range(100):
            await response.write(DATA[at : at + 1])
            await asyncio.sleep(0.003)
        return response

    slow, none = gateway(drip), gateway(answering(b"", status=404))
    patience = Patience(read_s=0.2, hedge_s=0.02)  # a hundred times less than it takes in all
    Gateways([slow.url, none.url], patience).fetch(
        Blocks().add(DATA[:100]), tmp_path / "model", max_bytes=100
    )
    assert (tmp_path / "model").read_bytes() == DATA[:100]
    assert none.seen


def test_blocks_go_on_with_another_gateway(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """What blocks have proved is not fetched again when their gateway fails on the way."""
    blocks = Blocks()
    cid = blocks.add(DATA, ODD)

    def plain_first_then(some: dict[str, bytes]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            if request.query.get("format") != "raw":
                return web.Response(status=406)
            block = some.get(request.path.rpartition("/")[2])
            return web.Response(status=503) if block is None else web.Response(body=block)

        return answer

    leaves = [name for name in blocks if name.startswith("bafkrei")]
    some = {name: block for name, block in blocks.items() if name not in leaves[6:]}
    half, whole = gateway(plain_first_then(some)), gateway(plain_first_then(blocks))
    assert fetch([half.url, whole.url], cid, tmp_path / "model") == DATA
    asked = {request.path.rpartition("/")[2] for request in whole.seen if request.query}
    assert not asked & set(leaves[:6])
    assert set(leaves[6:]) <= asked


def test_the_gateway_that_served_well_is_asked_first(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """A failure sends a gateway to the end of the line, over a restart, too."""
    bad, good = gateway(answering(b"", status=500)), gateway(answering(DATA))
    cid = Blocks().add(DATA)
    for name in ("one", "two"):
        scores = Scores(tmp_path / "scores.json")
        Gateways([bad.url, good.url], scores=scores).fetch(cid, tmp_path / name, max_bytes=10**7)
    assert (len(bad.seen), len(good.seen)) == (1, 2)


def test_a_fetch_can_be_stopped(gateway: Callable[[Handler], Served], tmp_path: Path) -> None:
    """Shutting down doesn't wait for a download."""
    stop = threading.Event()
    served = gateway(dropping(DATA, ranges=True, after=200_000, times=99))

    def report(done: int, total: int | None) -> None:
        assert total == len(DATA)
        stop.set()

    with pytest.raises(GatewayError, match="stopped"):
        Gateways([served.url]).fetch(
            Blocks().add(DATA), tmp_path / "model", max_bytes=10**7, report=report, stop=stop
        )
    assert len(served.seen) == 1
    assert os.listdir(tmp_path) == []


def test_the_body_of_a_redirect_is_not_read(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """An endless page behind a redirect costs neither time nor memory."""
    cid = Blocks().add(DATA)
    right = gateway(answering(DATA))
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=302, headers={"Location": right.url})
        await response.prepare(request)
        while sent < 200_000_000:
            await response.write(bytes(1_000_000))
            sent += 1_000_000
        return response

    assert fetch([gateway(endless).url], cid, tmp_path / "model") == DATA
    assert sent < 50_000_000


def test_compressed_answers_are_not_unpacked(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """Identity is asked for, and a body that is compressed all the same is refused."""
    served = gateway(answering(b"\x1f\x8b bomb", headers={"Content-Encoding": "gzip"}))
    with pytest.raises(DecloudError):
        fetch([served.url], Blocks().add(DATA), tmp_path / "model")
    assert served.seen[0].headers["Accept-Encoding"] == "identity"


def hostile_trees() -> dict[str, tuple[Blocks, str]]:
    """Verified roots that are no files, or that promise what they don't hold."""
    trees = {}

    def add(name: str, blocks: Blocks, cid: object) -> None:
        trees[name] = (blocks, str(cid))

    blocks = Blocks()
    inner = build_file(io.BytesIO(b"x"), V1, blocks.keep)
    add("folder", blocks, build_folder([(("a",), inner)], 1, blocks.keep).cid)

    blocks = Blocks()
    leaf = Cid.parse(blocks.add(b"abc")).to_bytes()
    add("wrong size", blocks, blocks.put(Node(Kind.FILE, (Link(leaf, "", 3),), sizes=(4,), size=4)))

    blocks = Blocks()
    empty = Cid.parse(blocks.add(b""))
    node = Node(Kind.FILE, (Link(empty.to_bytes(), "", 0),) * 1000, sizes=(0,) * 1000)
    add("a thousand empty pieces", blocks, blocks.put(node))

    blocks = Blocks()
    child = Cid.parse(blocks.add(b"x"))
    for _ in range(40):
        child = blocks.put(Node(Kind.FILE, (Link(child.to_bytes(), "", 1),), sizes=(1,), size=1))
    add("a bottomless chain", blocks, child)

    blocks = Blocks()
    link = Link(b"\x01\x71\x12\x20" + bytes(32), "", 3)  # dag-cbor
    add("foreign codec", blocks, blocks.put(Node(Kind.FILE, (link,), sizes=(3,), size=3)))

    blocks = Blocks()
    cid = Cid.of_block(b"garbage", Codec.DAG_PB, 1)
    blocks.keep(cid, b"garbage")
    add("no node", blocks, cid)

    blocks = Blocks()
    cid = blocks.put(Node(Kind.SYMLINK, data=b"/etc/passwd"))
    add("symbolic link", blocks, cid)
    return trees


HOSTILE = hostile_trees()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_trees_are_refused_for_good(
    gateway: Callable[[Handler], Served], name: str, tmp_path: Path
) -> None:
    """Blocks that prove themselves and still are no sound file end the fetch, soon."""
    blocks, cid = HOSTILE[name]
    first, second = gateway(answering(b"?", blocks)), gateway(answering(b"?", blocks))
    with pytest.raises(ContentMismatch, match=cid):
        fetch([first.url, second.url], cid, tmp_path / "model")
    assert len(first.seen) < 30
    assert not second.seen
    assert os.listdir(tmp_path) == []


def test_a_walk_has_a_bounded_number_of_blocks(
    gateway: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """A file in one-byte blocks is given up, not fetched with thousands of requests."""
    blocks = Blocks()
    cid = blocks.add(bytes(1_200), Profile(1, raw_leaves=True, chunk_bytes=1, fanout=174))
    served = gateway(answering(b"?", blocks))
    with pytest.raises(ContentMismatch, match="sound"):
        fetch([served.url], cid, tmp_path / "model", max_bytes=1_200)
    assert len(served.seen) <= 1_010


@pytest.mark.parametrize(
    "url",
    [
        "http://ipfs.io",
        "ftp://ipfs.io",
        "ipfs.io",
        "",
        "https://user:pass@ipfs.io",
        "https://ipfs.io?token=x",
        "https://ipfs.io:port",
        "http://127.0.0.1.example.com",
    ],
)
def test_unfit_addresses_are_refused_at_once(url: str) -> None:
    """Plain http is for this machine; secrets don't belong into an address."""
    with pytest.raises(SettingsError) as caught:
        Gateways([url])
    assert "pass" not in caught.value.message


def test_usual_spellings_of_an_address_are_understood() -> None:
    """A trailing slash or /ipfs is no mistake, and one gateway is asked once."""
    gateways = Gateways(["https://ipfs.io/", "https://ipfs.io/ipfs/", "http://localhost:8080"])
    assert repr(gateways) == "Gateways(['https://ipfs.io', 'http://localhost:8080'])"
    with pytest.raises(SettingsError, match="no IPFS gateway"):
        Gateways([])


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The disk's errors come as ours."""
    with pytest.raises(DecloudError, match=r"can't write .*missing"):
        fetch(["http://127.0.0.1:1"], Blocks().add(DATA), tmp_path / "missing" / "model")
