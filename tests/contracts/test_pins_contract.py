"""What every implementation of the port `Pins` promises, against a pin service on loopback."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import serve

from decloud_trainer.errors import (
    ContentMismatch,
    GatewayError,
    InvalidCid,
    PinError,
    PinRefused,
    TooLarge,
)
from decloud_trainer.ipfs.cid import file_cid, folder_cid
from decloud_trainer.ipfs.gateways import Gateways
from decloud_trainer.ipfs.kubo import Kubo
from decloud_trainer.ipfs.pinning import PinataLegacy, PinataV3
from decloud_trainer.ipfs.pinning_api import PinningApi
from decloud_trainer.ipfs.pins import IpfsPins
from decloud_trainer.ipfs.uploads import PinService, Upload
from decloud_trainer.localnet.pin_server import make_pin_app
from decloud_trainer.localnet.pin_store import PinStore
from decloud_trainer.rounds.ports import Pins

DATA = random.Random("gradient").randbytes(700_000)
SECRETS = ("localnet-secret", "localnet-jwt", "wr0ng-secret")


class Faults:
    def __init__(self) -> None:
        self.active: set[str] = set()

    def take(self, name: str) -> bool:
        return name in self.active


def v3(url: str, secret: str | None = None) -> PinService:
    return PinataV3(secret or "localnet-jwt", api_url=url, upload_url=url)


def legacy(url: str, secret: str | None = None) -> PinService:
    return PinataLegacy("localnet-key", secret or "localnet-secret", api_url=url)


def kubo(url: str, secret: str | None = None) -> PinService:
    return Kubo(url, secret or "localnet-jwt")


def pinning_api(url: str, secret: str | None = None) -> PinService:
    return PinningApi(f"{url}/psa", secret or "localnet-jwt", Kubo(url))


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def url(tmp_path: Path, faults: Faults) -> Iterator[str]:
    with serve(make_pin_app(PinStore(tmp_path / "pins"), faults=faults)) as base:
        yield base


@pytest.fixture(params=[v3, legacy, kubo, pinning_api], ids=["v3", "legacy", "kubo", "psa"])
def service(request: pytest.FixtureRequest) -> Callable[..., PinService]:
    return request.param


@pytest.fixture
def pins(url: str, service: Callable[..., PinService]) -> Pins:
    return IpfsPins(Gateways([url]), [service(url)])


@pytest.fixture
def gradient(tmp_path: Path) -> Path:
    path = tmp_path / "gradient.pt"
    path.write_bytes(DATA)
    return path


async def test_what_is_pinned_can_be_fetched(pins: Pins, gradient: Path, tmp_path: Path) -> None:
    """A file comes back to the byte under the CID that was computed here."""
    cid = await pins.pin(gradient, name="gradient_round_7")
    assert cid == str(file_cid(gradient, 1))
    await pins.fetch(cid, tmp_path / "back", max_bytes=len(DATA))
    assert (tmp_path / "back").read_bytes() == DATA


async def test_a_folder_is_pinned_under_its_own_cid(pins: Pins, tmp_path: Path) -> None:
    """A folder with folders in it has the CID that was computed here."""
    folder = tmp_path / "package"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(DATA)
    (folder / "tokenizer" / "vocab ü.json").write_bytes(b"{}")
    (folder / "config.json").write_bytes(b"")
    assert await pins.pin(folder, name="round/7") == str(folder_cid(folder, 1))


async def test_both_directions_are_idempotent(pins: Pins, gradient: Path, tmp_path: Path) -> None:
    """Pinning and fetching again gives the same and does no harm."""
    first, second = [await pins.pin(gradient, name="g") for _ in range(2)]
    assert first == second
    for _ in range(2):
        await pins.fetch(first, tmp_path / "back", max_bytes=len(DATA))
    assert sorted(os.listdir(tmp_path)) == ["back", "gradient.pt", "pins"]


async def test_an_empty_file_is_content_too(pins: Pins, tmp_path: Path) -> None:
    """No bytes are pinned and fetched like others."""
    (tmp_path / "empty").touch()
    cid = await pins.pin(tmp_path / "empty", name="e")
    await pins.fetch(cid, tmp_path / "back", max_bytes=0)
    assert (tmp_path / "back").read_bytes() == b""


@pytest.mark.parametrize("cid", ["", "../../etc/passwd", "Qm" + "x" * 44, "https://ipfs.io/x"])
async def test_what_is_no_cid_is_refused(pins: Pins, cid: str, tmp_path: Path) -> None:
    """A CID from the chain is text of a stranger: it is parsed before anything else."""
    with pytest.raises(InvalidCid):
        await pins.fetch(cid, tmp_path / "x", max_bytes=10)
    assert not (tmp_path / "x").exists()


async def test_too_large_content_is_refused(pins: Pins, gradient: Path, tmp_path: Path) -> None:
    """One byte over the limit is too much, and nothing stays on the disk."""
    cid = await pins.pin(gradient, name="g")
    with pytest.raises(TooLarge, match="700000"):
        await pins.fetch(cid, tmp_path / "x", max_bytes=len(DATA) - 1)
    assert sorted(os.listdir(tmp_path)) == ["gradient.pt", "pins"]


async def test_unknown_content_is_worth_another_try(pins: Pins, tmp_path: Path) -> None:
    """Content that no gateway has yet may come: a network error."""
    (tmp_path / "other").write_bytes(b"never pinned")
    with pytest.raises(GatewayError, match="404") as caught:
        await pins.fetch(str(file_cid(tmp_path / "other")), tmp_path / "x", max_bytes=100)
    assert caught.value.retryable


async def test_wrong_bytes_are_never_accepted(
    pins: Pins, gradient: Path, tmp_path: Path, faults: Faults
) -> None:
    """A gateway that lies about everything gives an error, not a file."""
    cid = await pins.pin(gradient, name="g")
    faults.active.add("gateway_wrong_bytes")
    with pytest.raises(ContentMismatch, match=cid):
        await pins.fetch(cid, tmp_path / "x", max_bytes=len(DATA))
    assert not (tmp_path / "x").exists()


async def test_a_service_that_is_down_is_worth_another_try(
    pins: Pins, gradient: Path, faults: Faults
) -> None:
    """5xx is retryable, and says what failed."""
    faults.active.add("pin_down")
    with pytest.raises(PinError, match=r"Failed to upload gradients.*503"):
        await pins.pin(gradient, name="g")


async def test_wrong_credentials_are_final(
    url: str, service: Callable[..., PinService], gradient: Path
) -> None:
    """401 or 403 names the settings to look at, and no secret."""
    wrong = service(url, "wr0ng-secret")
    with pytest.raises(PinRefused, match=r"Failed to upload gradients.*40[13]") as caught:
        await IpfsPins(Gateways([url]), [wrong]).pin(gradient, name="g")
    assert re.search("check the settings (pinata|kubo|pinning)_", caught.value.hint)
    with pytest.raises(PinRefused, match=r"40[13]"):
        wrong.check()
    texts = [str(caught.value), caught.value.hint, repr(caught.value), repr(wrong)]
    assert not [text for text in texts for secret in SECRETS if secret in text]


def test_right_credentials_pass_the_check(url: str, service: Callable[..., PinService]) -> None:
    """`check` is quiet when all is well, and the account can be asked what it holds."""
    service(url).check()
    usage = service(url).usage()
    assert usage is not None
    assert (usage.files or 0) == (usage.bytes or 0) == 0


async def test_a_service_confirms_what_it_has_and_nothing_else(
    url: str, service: Callable[..., PinService], gradient: Path, faults: Faults
) -> None:
    """Before the pin, when it is down, and for a stranger there is no confirmation."""
    cid = str(file_cid(gradient, 1))
    assert not service(url).confirms(cid)
    assert service(url).pin(Upload(gradient, "g")) == cid
    assert service(url).confirms(cid)
    assert not service(url, "wr0ng-secret").confirms(cid)
    faults.active.add("pin_down")
    assert not service(url).confirms(cid)


async def test_without_a_service_pinning_says_what_to_set(url: str, gradient: Path) -> None:
    """A trainer that isn't set up is told the command."""
    with pytest.raises(PinRefused, match="Failed to upload gradients: IPFS is not config") as told:
        await IpfsPins(Gateways([url])).pin(gradient, name="g")
    assert "decloud-trainer config --set pinata_jwt" in told.value.hint
