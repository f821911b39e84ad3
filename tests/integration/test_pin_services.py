"""Pinning when services fail, lie or aren't seen by any gateway; nodes and pinning APIs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from loopback import serve

from decloud_trainer.errors import PinError, PinRefused, SettingsError
from decloud_trainer.ipfs.cid import file_cid, folder_cid
from decloud_trainer.ipfs.gateways import Gateways
from decloud_trainer.ipfs.kubo import Kubo
from decloud_trainer.ipfs.pinning_api import PinningApi
from decloud_trainer.ipfs.pins import IpfsPins
from decloud_trainer.ipfs.uploads import Upload
from decloud_trainer.localnet.pin_kubo import NODE_ADDRESS
from decloud_trainer.localnet.pin_server import make_pin_app
from decloud_trainer.localnet.pin_store import PinStore

Answers = Callable[[web.Request, bytes], Any]
NOBODY = "http://127.0.0.1:1"
TOKEN = "t0ken-of-a-service"


class Service:
    """A pin service in memory: what it answers is decided by the test."""

    def __init__(self, name: str, error: Exception | None = None, *, confirmed: bool = True):
        self.name = name
        self.uploads = 0
        self.confirmed = confirmed
        self._error = error

    def check(self) -> None: ...

    def usage(self) -> None:
        return None

    def confirms(self, cid: str) -> bool:
        return self.confirmed

    def pin(self, upload: Upload) -> str:
        self.uploads += 1
        if self._error is not None:
            raise self._error
        return str(file_cid(upload.path))


class PatientNode(Kubo):
    """A node that may take its time, however little of it the pinning API gets."""

    def pin(self, upload: Upload) -> str:
        return super().pin(replace(upload, answer_s=60.0))


@pytest.fixture
def gradient(tmp_path: Path) -> Path:
    path = tmp_path / "gradient.pt"
    path.write_bytes(os.urandom(300_000))
    return path


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    """A gateway with the content of `Kubo` nodes at the same address."""
    with serve(make_pin_app(PinStore(tmp_path / "pins"))) as url:
        yield url


def pins(*services: Any, gateway: str = NOBODY, availability_s: float = 0.2) -> IpfsPins:
    return IpfsPins(Gateways([gateway]), services, availability_s=availability_s)


async def test_the_next_service_stands_in(gradient: Path, gateway: str) -> None:
    """Busy or refused: the first that takes it is enough, and none after it is asked."""
    busy, no = Service("A", PinError("503")), Service("B", PinRefused("401"))
    node, spare = Kubo(gateway), Service("D")
    assert await pins(busy, no, node, spare, gateway=gateway).pin(gradient, name="g") == str(
        file_cid(gradient)
    )
    assert (busy.uploads, no.uploads, spare.uploads) == (1, 1, 0)


@pytest.mark.parametrize(
    ("second", "kind"), [(PinRefused("401"), PinRefused), (PinError("503"), PinError)]
)
async def test_when_all_fail_each_reason_is_told(
    gradient: Path, second: Exception, kind: type[Exception]
) -> None:
    """It is worth another try if one of them may take it later."""
    with pytest.raises(kind, match="gradients: A: no plan; B: ") as caught:
        await pins(Service("A", PinRefused("no plan")), Service("B", second)).pin(
            gradient, name="g"
        )
    assert type(caught.value) is kind


async def test_what_no_gateway_has_is_not_pinned_yet(gradient: Path) -> None:
    """Neither seen nor confirmed: an error that is worth a retry, which looks once more before
    it uploads again."""
    silent = Service("A", confirmed=False)
    both = pins(silent, availability_s=0.05)
    for uploads in (1, 1, 2, 2, 3):
        with pytest.raises(PinError, match="no gateway delivers it"):
            await both.pin(gradient, name="g")
        assert silent.uploads == uploads
    gradient.write_bytes(b"trained again")  # noqa: ASYNC240  nothing else runs here
    with pytest.raises(PinError, match=str(file_cid(gradient))):
        await both.pin(gradient, name="g")
    assert silent.uploads == 4


async def test_a_confirmation_counts_where_gateways_are_blind(
    gradient: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the service's own word a round isn't lost to slow gateways; the log says so."""
    caplog.set_level(logging.WARNING)
    assert await pins(Service("A")).pin(gradient, name="g") == str(file_cid(gradient))
    assert "no gateway delivers it yet" in caplog.text


async def test_a_service_that_lost_the_upload_is_followed_by_the_next(
    gradient: Path, gateway: str
) -> None:
    """Taken is not pinned: without proof the next service gets the upload."""
    loser = Service("A", confirmed=False)
    taken = await pins(loser, Kubo(gateway), gateway=gateway).pin(gradient, name="g")
    assert (taken, loser.uploads) == (str(file_cid(gradient)), 1)


async def test_the_check_can_be_left_out(gradient: Path) -> None:
    """With no time for it the service's answer is all there is."""
    service = Service("A", confirmed=False)
    assert await pins(service, availability_s=0).pin(gradient, name="g") == str(file_cid(gradient))


async def test_a_near_deadline_shortens_the_wait(gradient: Path) -> None:
    """An hour for the gateways ends when half of the time that is left has passed."""
    service = Service("A", confirmed=False)
    with pytest.raises(PinError, match="after 0 s no gateway"):
        await pins(service, availability_s=3600).pin(gradient, name="g", within_s=0.2)


@pytest.mark.parametrize("body", ["<html>", "gradient", ""])
def test_other_bytes_on_a_gateway_are_no_proof(gradient: Path, body: str) -> None:
    """A gateway that answers 200 with something else doesn't have it."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=body)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    with serve(app) as url, pytest.raises(PinError, match="no gateway"):
        asyncio.run(pins(Service("A", confirmed=False), gateway=url).pin(gradient, name="g"))


async def test_a_folder_is_looked_for_as_well(tmp_path: Path, gateway: str) -> None:
    """Its root block proves it."""
    folder = tmp_path / "package"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a b%2F.bin").write_bytes(b"a")
    (folder / "b").write_bytes(b"b")
    node = Kubo(gateway)
    cid = await pins(node, gateway=gateway, availability_s=60).pin(folder, name="g")
    assert cid == str(folder_cid(folder))


@contextlib.contextmanager
def answering(answers: Answers) -> Iterator[str]:
    """A service whose answers a function makes of requests: JSON, text, or a status."""

    async def answer(request: web.Request) -> web.StreamResponse:
        told = answers(request, await request.read())
        if isinstance(told, int):
            return web.Response(status=told)
        return web.Response(text=told if isinstance(told, str) else json.dumps(told))

    app = web.Application(client_max_size=10**8)
    app.router.add_route("*", "/{path:.*}", answer)
    with serve(app) as url:
        yield url


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ("", "without a usable CID"),
        ("{}", "without a usable CID"),
        ("nonsense", "isn't JSON"),
        ("[1]", "isn't a JSON object"),
        ('{"Hash": 7}', "without a usable CID"),
        ('{"Hash": "../../etc/passwd"}', "without a usable CID"),
        (
            '{"Hash": "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"}',
            "isn't the CID",
        ),
        (
            '{"Name": "g"}\n{"Message": "disk \\u001b full", "Code": 0}',
            "failed to add it: disk  full",
        ),
    ],
)
def test_a_node_that_proves_nothing_is_an_error(gradient: Path, told: str, match: str) -> None:
    """Only the CID of the very bytes that lie here counts as added."""
    with answering(lambda request, body: told) as url, pytest.raises(PinError, match=match):
        Kubo(url).pin(Upload(gradient, "g"))


def test_what_is_no_node_is_told(gradient: Path) -> None:
    """A gateway's port in the place of the API's is a common slip."""
    with answering(lambda request, body: {}) as url, pytest.raises(PinRefused, match="Kubo node's"):
        Kubo(url).check()
    with answering(lambda request, body: 404) as url, pytest.raises(PinRefused, match="404"):
        Kubo(f"{url}/api/v0/").check()


def test_a_pinning_api_without_a_node_says_so(gradient: Path) -> None:
    """It takes no uploads, so it is refused with the setting that is missing."""
    service = PinningApi(f"{NOBODY}/psa", TOKEN, None)
    for call in (service.check, lambda: service.pin(Upload(gradient, "g"))):
        with pytest.raises(PinRefused, match="takes no uploads") as caught:
            call()
        assert "kubo_api_url" in caught.value.hint
    assert not service.confirms(str(file_cid(gradient)))
    assert TOKEN not in repr(service)
    with pytest.raises(SettingsError, match="pinning_api_token"):
        PinningApi(NOBODY, "", None)


def test_a_pinning_api_is_told_where_the_content_is(gradient: Path, gateway: str) -> None:
    """It gets the node's addresses, the node gets its; only `pinned` ends the wait."""
    cid = str(file_cid(gradient))
    asked: list[tuple[str, str]] = []
    states = ["queued", "pinning", "pinned"]

    def answers(request: web.Request, body: bytes) -> Any:
        asked.append((request.method, request.path))
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        if request.path == "/pins" and request.method == "GET":
            return {"count": 0, "results": []}
        if request.method == "POST":
            wanted = json.loads(body)
            assert (wanted["cid"], wanted["name"]) == (cid, "g")
            assert wanted["origins"] == [NODE_ADDRESS]
        state = states.pop(0)
        return {"requestid": "a/b", "status": state, "pin": {"cid": cid}, "delegates": ["/x", 7]}

    with answering(answers) as url:
        assert PinningApi(url, TOKEN, Kubo(gateway)).pin(Upload(gradient, "g")) == cid
    assert asked == [
        ("GET", "/pins"),
        ("POST", "/pins"),
        ("GET", "/pins/a/b"),
        ("GET", "/pins/a/b"),
    ]


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"status": "failed", "info": f"no {TOKEN} providers"}, r"did not pin .*: no \*\*\* prov"),
        ({"status": "pinned", "pin": {"cid": "bafyother"}}, "did not pin"),
        ({"status": "pinned", "pin": "x"}, "did not pin"),
        ({"status": {}, "pin": {}}, "did not pin"),
        ({"status": "queued"}, "still queued after"),
        (503, "503"),
    ],
)
def test_a_pinning_api_that_does_not_pin_is_an_error(
    gradient: Path, gateway: str, told: Any, match: str
) -> None:
    """Failed, about something else, or never done: nothing counts but `pinned` for our CID."""
    cid = str(file_cid(gradient))

    def answers(request: web.Request, body: bytes) -> Any:
        if isinstance(told, int):
            return told
        if request.method == "GET" and request.path == "/pins":
            return {"results": [None, 7]}
        return {"requestid": "1", "pin": {"cid": cid}} | told

    with answering(answers) as url, pytest.raises(PinError, match=match) as caught:
        PinningApi(url, TOKEN, PatientNode(gateway)).pin(Upload(gradient, "g", answer_s=0.3))
    assert TOKEN not in str(caught.value)
