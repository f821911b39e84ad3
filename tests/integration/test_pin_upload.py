"""Uploads to pin services that answer wrongly, and what the uploads look like."""

from __future__ import annotations

import contextlib
import os
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import requests
from aiohttp import web
from loopback import serve

from decloud_trainer.errors import DecloudError, PinError, PinRefused, SettingsError
from decloud_trainer.ipfs.cid import V1_2025, Cid, Codec, build_file, file_cid
from decloud_trainer.ipfs.pinning import PinataLegacy, PinataV3
from decloud_trainer.ipfs.uploads import Upload
from decloud_trainer.localnet.pin_server import make_pin_app
from decloud_trainer.localnet.pin_store import PinStore

JWT = "eyJ.s3cret.token"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def service() -> Iterator[Callable[[Handler], PinataV3]]:
    with contextlib.ExitStack() as stack:

        def start(handler: Handler) -> PinataV3:
            app = web.Application(client_max_size=10**8)
            app.router.add_route("*", "/{path:.*}", handler)
            url = stack.enter_context(serve(app))
            return PinataV3(JWT, api_url=url, upload_url=url)

        yield start


@pytest.fixture
def gradient(tmp_path: Path) -> Path:
    path = tmp_path / "gradient.pt"
    path.write_bytes(os.urandom(1_500_000))
    return path


def answering(status: int, body: object = None, text: str | None = None) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        if text is not None:
            return web.Response(status=status, text=text)
        return web.json_response(body, status=status)

    return answer


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, PinRefused),
        (401, PinRefused),
        (402, PinRefused),
        (403, PinRefused),
        (413, PinRefused),
        (302, PinRefused),
        (408, PinError),
        (429, PinError),
        (500, PinError),
        (502, PinError),
        (503, PinError),
    ],
)
def test_refusals_and_passing_failures_are_told_apart(
    service: Callable[[Handler], PinataV3], gradient: Path, status: int, kind: type[DecloudError]
) -> None:
    """What may pass is retryable, what won't is not; the service's words are told without ours."""
    said = {"error": {"reason": "REASON", "details": f"bad token {JWT}\x1b[31m"}}
    with pytest.raises(kind, match=f"{status}: REASON") as caught:
        service(answering(status, said)).pin(Upload(gradient, "g"))
    assert type(caught.value) is kind
    assert JWT not in f"{caught.value} {caught.value.hint} {caught.value!r}"
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>ok</html>",
        "[]",
        "{}",
        '{"data": null}',
        '{"data": {"cid": 7}}',
        '{"data": {"cid": "../../x"}}',
        '{"data": {"cid": "QmUPvoFCTojacw65HicUxNzxCmSbh6rov3aZGTrZYnFyCo"}}',
        " " * 2_000_000,
    ],
)
def test_answers_that_prove_nothing_are_errors(
    service: Callable[[Handler], PinataV3], gradient: Path, text: str
) -> None:
    """Only the CID of the very bytes that lie here counts as pinned."""
    with pytest.raises(PinError):
        service(answering(200, text=text)).pin(Upload(gradient, "g"))


def test_other_known_ways_to_cut_a_file_are_accepted(
    service: Callable[[Handler], PinataV3], gradient: Path
) -> None:
    """A service with newer defaults answers another CID of the same bytes, which verifies."""
    with gradient.open("rb") as file:
        cid = str(build_file(file, V1_2025).cid)
    assert cid != str(file_cid(gradient, 1))
    assert service(answering(201, {"data": {"cid": cid}})).pin(Upload(gradient, "g")) == cid


def test_uploads_stream_from_disk(service: Callable[[Handler], PinataV3], tmp_path: Path) -> None:
    """A file of 40 MB goes out with its length announced and a fraction of it in memory."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(40_000_000)
    seen: dict[str, int] = {}

    async def count(request: web.Request) -> web.StreamResponse:
        seen["announced"] = request.content_length or 0
        seen["received"] = 0
        async for chunk in request.content.iter_any():
            seen["received"] += len(chunk)
        return web.json_response({"data": {"cid": str(file_cid(path))}})

    pinata = service(count)
    tracemalloc.start()
    pinata.pin(Upload(path, "large"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen["announced"] == seen["received"] > 40_000_000
    assert peak < 12_000_000  # the server's half is counted too


def test_pins_are_always_public_and_named(tmp_path: Path, gradient: Path) -> None:
    """Both services record the name, and content is on the gateway at once."""
    with serve(make_pin_app(PinStore(tmp_path / "pins"))) as url:
        PinataV3("localnet-jwt", api_url=url, upload_url=url).pin(Upload(gradient, "round_7 ünï"))
        cid = str(file_cid(gradient))
        assert requests.get(f"{url}/ipfs/{cid}", timeout=5).content == gradient.read_bytes()
        headers = {"Authorization": "Bearer localnet-jwt"}
        files = requests.get(f"{url}/v3/files/public", headers=headers, timeout=5).json()
        assert files["data"]["files"][0]["name"] == "round_7 ünï"


def test_the_jwt_follows_no_redirect(tmp_path: Path, gradient: Path) -> None:
    """Credentials go to the configured address and nowhere else."""
    stolen: list[str] = []

    async def thief(request: web.Request) -> web.StreamResponse:
        stolen.append(request.headers.get("Authorization", ""))
        return web.json_response({})

    async def redirect(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=307, headers={"Location": f"{there}/v3/files"})

    other, app = web.Application(), web.Application(client_max_size=10**8)
    other.router.add_route("*", "/{path:.*}", thief)
    app.router.add_route("*", "/{path:.*}", redirect)
    with serve(other) as there, serve(app) as url, pytest.raises(PinRefused, match="307"):
        PinataV3(JWT, api_url=url, upload_url=url).pin(Upload(gradient, "g"))
    assert stolen == []


def test_a_netrc_file_does_not_replace_our_credentials(
    service: Callable[[Handler], PinataV3], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The header that we set is the header that is sent."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    sent: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse:
        sent.append(request.headers["Authorization"])
        return web.json_response({})

    service(note).check()
    assert sent == [f"Bearer {JWT}"]


def test_an_upload_can_be_stopped(service: Callable[[Handler], PinataV3], tmp_path: Path) -> None:
    """Shutting down doesn't wait for an upload."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    stop, received = threading.Event(), 0

    async def receive(request: web.Request) -> web.StreamResponse:
        nonlocal received
        stop.set()
        async for chunk in request.content.iter_any():
            received += len(chunk)
        return web.json_response({})

    with pytest.raises(PinError, match="stopped"):
        service(receive).pin(Upload(path, "g", stop=stop))
    assert received < 100_000_000


def test_nobody_there_is_worth_another_try(gradient: Path) -> None:
    """A refused connection is a PinError without a traceback's worth of text."""
    dead = "http://127.0.0.1:1"
    with pytest.raises(PinError, match="connection failed"):
        PinataLegacy("k", "s", api_url=dead).pin(Upload(gradient, "g"))
    with pytest.raises(PinError, match="connection failed"):
        PinataV3(JWT, api_url=dead, upload_url=dead).check()


def test_what_cannot_be_read_or_pinned_is_refused(tmp_path: Path) -> None:
    """Missing files, and folders with links in them, fail before anything is sent."""
    pinata = PinataLegacy("k", "s", api_url="http://127.0.0.1:1")
    with pytest.raises(PinRefused, match="can't read"):
        pinata.pin(Upload(tmp_path / "missing", "g"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to("/etc/passwd")
    with pytest.raises(PinRefused, match="neither a file nor a folder"):
        pinata.pin(Upload(tmp_path / "folder", "g"))


@pytest.mark.parametrize("bad", ["", "  ", "two words", "line\nbreak", "ümlaut", "a\x00b"])
def test_credentials_that_no_header_can_carry_are_refused(bad: str) -> None:
    """A mangled key is a settings error that names the setting and not the key."""
    for make in (lambda: PinataV3(bad), lambda: PinataLegacy("key", bad)):
        with pytest.raises(SettingsError, match="pinata_") as caught:
            make()
        assert not bad.strip() or bad not in str(caught.value)


def test_reprs_hide_the_secrets() -> None:
    """Logs and tracebacks show the services without their keys."""
    shown = f"{PinataV3(JWT)!r} {PinataLegacy('the-key', 'the-secret')!r}"
    shown += repr(PinataV3(JWT)._client)
    assert not [text for text in (JWT, "the-key", "the-secret") if text in shown]


def test_raw_blocks_verify_in_whatever_size(
    service: Callable[[Handler], PinataV3], gradient: Path
) -> None:
    """A service that keeps a file as one raw block answers a CID that verifies as well."""
    cid = str(Cid.of_block(gradient.read_bytes(), Codec.RAW, 1))
    assert service(answering(200, {"data": {"cid": cid}})).pin(Upload(gradient, "g")) == cid
