"""Words and numbers from strangers: what they can't do to a terminal, to memory, to a training.

Files have tests of their own: models in test_artifacts_hostile, datasets in test_datasets,
test_image_formats and test_text_formats, CIDs in test_cid and test_gateway_fetch, the chain's
accounts and events in test_codec_fuzz and test_v1_events, a worker's lines in test_jobs_child.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from aiohttp import web
from localchain import local_chain, until
from loopback import serving
from solders.pubkey import Pubkey
from websockets.asyncio.server import ServerConnection, serve

from decloud_trainer.chain import watch
from decloud_trainer.chain.failures import reason
from decloud_trainer.chain.rpc import Failure, Rpc
from decloud_trainer.chain.watch import RoundWatch, WatchPace
from decloud_trainer.checks.chain import websocket_check
from decloud_trainer.checks.model import Verdict
from decloud_trainer.cli.output import print_json
from decloud_trainer.errors import CorruptionError, DecloudError, Diverged, RpcError, plain
from decloud_trainer.settings import Settings
from decloud_trainer.store.version import Version
from decloud_trainer.training.artifacts import serialise
from decloud_trainer.training.hooks import Hooks
from decloud_trainer.training.inspection import inspect_model
from decloud_trainer.training.networks import SimpleCNN
from decloud_trainer.training.spec import InspectSpec

KEY = Pubkey.from_bytes(bytes(range(1, 33)))
# Clears the screen, sets the title, fills the clipboard, turns the writing round, rings.
STEERING = "\x1b[2J\x1b]0;PASS\x07\x1b]52;c;cm0=\x07\x9b31m\u202egnp.exe\r\x08"


@contextlib.asynccontextmanager
async def endpoint(body: bytes, **headers: str) -> AsyncIterator[Rpc]:
    """An RPC endpoint with one answer."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers)

    app = web.Application()
    app.router.add_post("/", handle)
    async with serving(app) as url, Rpc(url, attempts=1) as rpc:
        yield rpc


@contextlib.asynccontextmanager
async def websocket(message: str) -> AsyncIterator[str]:
    """The URL of a WebSocket endpoint that says this to everybody, at once."""

    async def handle(socket: ServerConnection) -> None:
        await socket.send(message)
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}"


def test_an_error_shows_a_strangers_words_as_text() -> None:
    """Nothing that a terminal would obey, in message and hint; lines, tabs and letters stay."""
    error = DecloudError(f"no: {STEERING}", hint=STEERING)
    for text in (error.message, str(error), error.hint):
        assert text.isprintable()
        assert "PASS" in text
    assert plain("zażółć\n\tпривет 模型") == "zażółć\n\tпривет 模型"


async def test_an_endpoints_refusal_can_t_steer_the_terminal() -> None:
    """Its message and a transaction's error name come from whoever runs the endpoint."""
    answer = {"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": STEERING}}
    async with endpoint(json.dumps(answer).encode()) as rpc:
        with pytest.raises(RpcError) as caught:
            await rpc.balance(KEY)
    assert caught.value.message.isprintable()
    assert reason(Failure({STEERING: 1})).sentence.isprintable()
    assert reason(Failure({"InstructionError": [0, STEERING]})).name.isprintable()


def test_json_output_is_lossless_and_inert(capsys: pytest.CaptureFixture[str]) -> None:
    """A round's CID is on the chain as its creator wrote it: scripts get it, terminals don't."""
    print_json({"model_cid": STEERING})
    printed = capsys.readouterr().out
    assert printed[:-1].isprintable()
    assert json.loads(printed) == {"model_cid": STEERING}
    print_json({"name": "модель"})
    assert "модель" in capsys.readouterr().out


async def test_a_compressed_answer_is_refused_before_it_is_unpacked() -> None:
    """We ask for plain answers; a few kB that become gigabytes are never unpacked."""
    result = {"context": {"slot": 1}, "value": 5}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    async with endpoint(body) as rpc:
        assert await rpc.balance(KEY) == 5
    async with endpoint(gzip.compress(body), **{"Content-Encoding": "gzip"}) as rpc:
        with pytest.raises(RpcError, match=r"127\.0\.0\.1"):
            await rpc.balance(KEY)


@pytest.mark.parametrize("message", ["[" * 50_000, "x" * 200_000, '{"id": 1e999}'])
async def test_a_hostile_websocket_costs_no_round(
    monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    """Deep nesting, a message over the limit, nonsense: the rounds come by asking instead."""
    monkeypatch.setattr(watch, "MAX_MESSAGE_BYTES", 100_000)
    pace = WatchPace(
        poll_interval_s=0.05, safety_interval_s=60, answer_s=0.2, first_retry_s=0.02, max_retry_s=1
    )
    seen: list[int] = []
    async with local_chain() as net, websocket(message) as url:
        number = net.post_round()
        net.settle_slots()
        rounds = RoundWatch(net.chain, url, pace=pace)

        async with contextlib.aclosing(rounds.changes()) as changes:
            async for each in changes:
                seen.append(each.id)
                break
        await until(lambda: seen == [number])
        assert not rounds.is_connected


async def test_the_doctor_survives_a_hostile_websocket() -> None:
    """It is a line of the report like any other."""
    async with websocket("[" * 50_000) as url:
        line = await websocket_check(Settings(ws_url=url, network="localnet"))
    assert line.verdict is not Verdict.PASS
    assert "RecursionError" in line.text


def test_a_nested_version_record_is_corruption() -> None:
    """A chain of versions may come from elsewhere."""
    with pytest.raises(CorruptionError, match="record is no JSON"):
        Version.from_bytes(b"[" * 100_000, "the record")


def test_weights_without_measure_are_said_to_be_useless(tmp_path: Path) -> None:
    """Finite, but so large that nothing can be learned: refused when the model is inspected."""
    torch.manual_seed(0)
    path = tmp_path / "model.pt"
    state = {k: torch.randn_like(v).sign() * 3e38 for k, v in SimpleCNN(10).state_dict().items()}
    path.write_bytes(serialise(state))
    hooks = Hooks(time.time, lambda _: None, lambda: False)
    spec = InspectSpec(path, 10**7, device="cpu", threads=1)
    with pytest.raises(Diverged, match="can't be trained: its weights are so large") as caught:
        inspect_model(spec, hooks)
    assert "skip this round" in caught.value.hint


def test_denormal_weights_cost_no_more_than_others(tmp_path: Path) -> None:
    """A worker computes with numbers below 1e-38 as with zero; they would be many times slower."""
    code = (
        "import threading, torch\n"
        "from pathlib import Path\n"
        "from decloud_trainer.training import inspection, worker\n"
        "from decloud_trainer.training.spec import InspectSpec\n"
        "class Told:\n"
        "    def to_json(self):\n"
        "        return {'product': float(torch.full((100_000,), 1e-40).mul(1.0).sum())}\n"
        "inspection.inspect_model = lambda spec, hooks: Told()\n"
        "spec = InspectSpec(Path('/m'), 1)\n"
        "commands = worker.Commands(0)\n"
        "events = worker.Events()\n"
        "print(worker.run(spec, Path.cwd(), events, commands)['product'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.stderr.strip() == "0.0"  # the worker takes stdout for its events
