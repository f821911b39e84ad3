"""Several endpoints are as good as their best one, and none is trusted alone with money."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from localchain import until
from solders.pubkey import Pubkey

from decloud_trainer.chain.jsonrpc import Endpoint
from decloud_trainer.chain.pool import Use
from decloud_trainer.chain.rpc import Failure, Rpc, Status
from decloud_trainer.errors import RpcError, SettingsError

KEY = Pubkey.from_bytes(bytes(range(1, 33)))
SIGNATURE = "1" * 64
# No answer on loopback takes that long, on however busy a machine.
NEVER_S = 60.0
# For what hangs.
SOON_S = 0.05


@dataclass
class Node:
    """An RPC endpoint whose behaviour a test sets; it counts what it was asked."""

    value: int = 7
    slot: int = 1000
    genesis: str = "ours"
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    release: asyncio.Event | None = None
    error: dict[str, Any] | None = None
    finalized: int = 900
    knows: dict[str, Any] | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body["method"])
        if self.hangs:
            await asyncio.Event().wait()
        if self.release is not None:
            await self.release.wait()
        if self.code != 200:
            return web.Response(status=self.code, headers=self.headers)
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": body["id"]}
        if self.error is not None and body["method"] != "getGenesisHash":
            return web.json_response({**answer, "error": self.error})
        return web.json_response({**answer, "result": self.result(body["method"])})

    def result(self, method: str) -> Any:
        context = {"slot": self.slot}
        position = {"absoluteSlot": self.finalized, "blockHeight": self.finalized}
        return {
            "getGenesisHash": self.genesis,
            "getSlot": self.slot,
            "getBalance": {"context": context, "value": self.value},
            "getEpochInfo": position,
            "getSignatureStatuses": {"context": context, "value": [self.knows]},
            "sendTransaction": SIGNATURE,
        }[method]

    def times(self, method: str) -> int:
        return self.asked.count(method)


class Clock:
    """Driven monotonic seconds; sleeping passes them at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def serve(
    *nodes: Node,
    genesis: str = "",
    attempts: int = 1,
    limit: int = 0,
    hedge_s: float = NEVER_S,
) -> AsyncIterator[tuple[Rpc, Clock]]:
    async with contextlib.AsyncExitStack() as stack:
        for node in nodes:
            app = web.Application()
            app.router.add_post("/{path:.*}", node.handle)
            runner = web.AppRunner(
                app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            node.url = f"http://127.0.0.1:{runner.addresses[0][1]}/SECRETKEY"
        clock = Clock()
        rpc = Rpc(
            [node.url for node in nodes],
            timeout_s=5,
            attempts=attempts,
            use=Use(hedge_s=hedge_s, genesis=genesis, limit=limit),
            clock=lambda: clock.now,
            sleep=clock.sleep,
        )
        async with rpc:
            yield rpc, clock


async def test_the_first_endpoint_is_used_while_it_serves() -> None:
    """The order of the settings is the user's wish."""
    first, second = Node(value=1), Node(value=2)
    async with serve(first, second) as (rpc, _):
        assert [await rpc.balance(KEY) for _ in range(3)] == [1, 1, 1]
    assert second.asked == []


def fail_with_503(node: Node) -> None:
    node.code = 503


def hang(node: Node) -> None:
    node.hangs = True


def limit(node: Node) -> None:
    node.code, node.headers = 429, {"Retry-After": "7"}


def fall_behind(node: Node) -> None:
    node.slot -= 500


def talk_nonsense(node: Node) -> None:
    node.value = "seven"  # type: ignore[assignment]


def be_busy(node: Node) -> None:
    node.error = {"code": -32005, "message": "Node is behind by 42 slots"}


BREAK = [fail_with_503, hang, limit, fall_behind, talk_nonsense, be_busy]


@pytest.mark.parametrize("break_it", BREAK, ids=lambda fault: fault.__name__)
async def test_when_an_endpoint_fails_the_next_one_answers_the_same_call(
    break_it: Callable[[Node], None],
) -> None:
    """No pause and no error: the caller doesn't notice. Then the bad one rests, and comes back."""
    first, second = Node(value=1), Node(value=2)
    hedge_s = SOON_S if break_it is hang else NEVER_S
    async with serve(first, second, hedge_s=hedge_s) as (rpc, clock):
        await rpc.probe()
        break_it(first)
        assert await rpc.balance(KEY) == 2
        assert clock.slept == []
        assert await rpc.balance(KEY) == 2
        if break_it is not hang:  # which is also asked when the other one is a little slow
            assert first.times("getBalance") == 1
        first.__dict__.update(value=1, code=200, hangs=False, error=None, slot=1000)
        clock.now += 61
        assert await rpc.balance(KEY) == 1


class Driven(asyncio.SelectorEventLoop):
    """An event loop without clocks: what is waited for comes at once, and its time has passed."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


@pytest.mark.parametrize("hanging", [1, 2])
def test_failover_takes_less_than_two_seconds(
    monkeypatch: pytest.MonkeyPatch, hanging: int
) -> None:
    """One second for each endpoint that hangs, as this program uses them; by a driven clock."""

    async def exchange(self: Endpoint, method: str, params: Any) -> dict[str, Any]:
        if int(self.host.removeprefix("rpc")) < hanging:
            await asyncio.Event().wait()
        return {"result": {"getGenesisHash": "ours", "getSlot": 1000}[method]}

    async def called() -> float:
        async with Rpc([f"http://rpc{number}" for number in range(hanging + 1)]) as rpc:
            assert await rpc.call("getSlot") == 1000
        return asyncio.get_running_loop().time()

    monkeypatch.setattr(Endpoint, "exchange", exchange)
    with asyncio.Runner(loop_factory=Driven) as runner:
        assert runner.run(called()) == hanging * 1.0


async def test_a_slow_endpoint_that_answers_first_is_no_failure() -> None:
    """The one that was asked beside it is not blamed for being overtaken either."""
    first, second = Node(value=1), Node(value=2)
    async with serve(first, second, hedge_s=SOON_S) as (rpc, _):
        await rpc.probe()
        first.release, second.release = asyncio.Event(), asyncio.Event()
        call = asyncio.create_task(rpc.balance(KEY))
        await until(lambda: second.times("getBalance") == 1)
        first.release.set()
        assert await call == 1
        assert [bool(health.trouble) for _, health in rpc.health()] == [False, False]
        second.release.set()


async def test_an_endpoint_that_keeps_failing_is_asked_ever_more_rarely() -> None:
    """The pauses double; while it rests, nothing is sent to it."""
    first, second = Node(code=500), Node(value=2)
    times = []
    async with serve(first, second) as (rpc, clock):
        for _ in range(100):
            before = len(first.asked)
            assert await rpc.balance(KEY) == 2
            if len(first.asked) > before:
                times.append(clock.now)
            clock.now += 1
    assert times == [0, 1, 3, 7, 15, 31, 63]


async def test_retry_after_is_obeyed_by_each_endpoint_alone() -> None:
    """While one may not be asked the other is; when none may, the call says so at once."""
    first, second = Node(code=429, headers={"Retry-After": "60"}), Node(value=2)
    async with serve(first, second, attempts=4) as (rpc, clock):
        assert await rpc.balance(KEY) == 2
        second.code, second.headers = 429, {"Retry-After": "30"}
        with pytest.raises(RpcError) as caught:
            await rpc.balance(KEY)
        assert caught.value.code == 429
        assert clock.slept == []
        asked = len(first.asked) + len(second.asked)
        clock.now = 29
        with pytest.raises(RpcError):
            await rpc.send(b"raw", preflight=False)
        assert len(first.asked) + len(second.asked) == asked
        second.code = 200
        clock.now = 31
        assert await rpc.balance(KEY) == 2


async def test_an_endpoint_on_another_cluster_is_not_used_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its answers are another network's; it is looked at again after a while."""
    first, second = Node(value=1, genesis="theirs"), Node(value=2)
    async with serve(first, second, genesis="ours") as (rpc, clock):
        for _ in range(3):
            assert await rpc.balance(KEY) == 2
        assert first.asked == ["getGenesisHash"]
        assert caplog.text.count("serves another cluster (genesis theirs) and is not used") == 1
        await rpc.send(b"raw", preflight=False)
        assert first.asked == ["getGenesisHash"]
        first.genesis = "ours"
        clock.now += 301
        assert await rpc.balance(KEY) == 1


async def test_without_a_known_cluster_the_first_endpoint_decides() -> None:
    """A local network's genesis hash is nobody's secret knowledge; a second opinion must agree."""
    first, second = Node(value=1, genesis="local"), Node(value=2, genesis="another")
    async with serve(first, second) as (rpc, _):
        assert await rpc.balance(KEY) == 1
        first.code = 500
        with pytest.raises(RpcError):
            await rpc.balance(KEY)
        assert second.times("getBalance") == 0


async def test_a_single_endpoint_on_the_wrong_cluster_is_refused() -> None:
    """With a known cluster no read and no transaction goes to another one."""
    only = Node(genesis="theirs")
    async with serve(only, genesis="ours", attempts=3) as (rpc, clock):
        for _ in range(2):
            with pytest.raises(RpcError, match="serves another cluster"):
                await rpc.send(b"raw", preflight=True)
        with pytest.raises(RpcError, match="serves another cluster"):
            await rpc.balance(KEY)
        assert only.asked == ["getGenesisHash"]
        assert clock.slept == []


async def test_a_stale_endpoint_is_told_once_and_used_again_when_it_has_caught_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Old answers are never given out, whatever the order of the endpoints."""
    first, second = Node(value=1, slot=100), Node(value=2, slot=1000)
    async with serve(first, second) as (rpc, clock):
        await rpc.probe()
        for _ in range(5):
            assert await rpc.balance(KEY) == 2
            clock.now += 100
        assert caplog.text.count("900 slots behind the others and is not used") == 1
        first.slot = 990
        clock.now += 100
        assert await rpc.balance(KEY) == 1


async def test_a_probe_sees_endpoints_that_are_not_in_use() -> None:
    """A fallback that serves the past is known before it is needed."""
    first, second = Node(slot=1000), Node(slot=100)
    async with serve(first, second) as (rpc, _):
        health = await rpc.probe()
        assert [one.slot for one in health] == [1000, 100]
        assert [bool(one.trouble) for one in health] == [False, True]
    assert (first.times("getBalance"), second.times("getBalance")) == (0, 0)


async def test_the_first_broadcast_goes_to_one_endpoint_the_next_to_all() -> None:
    """The same signed bytes may be sent anywhere; the program sees one transaction."""
    first, second = Node(), Node()
    async with serve(first, second) as (rpc, _):
        assert await rpc.send(b"raw", preflight=True) is None
        assert (first.times("sendTransaction"), second.times("sendTransaction")) == (1, 0)
        assert await rpc.send(b"raw", preflight=False) is None
        assert (first.times("sendTransaction"), second.times("sendTransaction")) == (2, 1)


def refusal(name: str) -> dict[str, Any]:
    return {"code": -32002, "message": "no", "data": {"err": name}}


async def test_a_refusal_beside_a_silent_endpoint_proves_nothing() -> None:
    """The silent one may have broadcast it: that is an error, not a Failure."""
    silent, refusing = Node(), Node(error=refusal("AccountInUse"))
    async with serve(silent, refusing, hedge_s=SOON_S) as (rpc, _):
        await rpc.genesis_hash()
        silent.hangs = True
        with pytest.raises(RpcError) as caught:
            await rpc.send(b"raw", preflight=True)
        assert caught.value.code is None
        # One that has the transaction already is the proof that it is out.
        refusing.error = refusal("AlreadyProcessed")
        assert await rpc.send(b"raw", preflight=True) == Failure("AlreadyProcessed")


async def test_a_refusal_after_a_429_costs_nothing() -> None:
    """An endpoint that limits us has certainly not taken the transaction."""
    limited, refusing = Node(code=429), Node(error=refusal("AccountInUse"))
    async with serve(refusing, limited) as (rpc, _):
        assert await rpc.send(b"raw", preflight=True) == Failure("AccountInUse")
    refusing.asked.clear()
    async with serve(limited, refusing, genesis="ours") as (rpc, _):
        limited.code = 200
        await rpc.genesis_hash()
        limited.code = 429
        assert await rpc.send(b"raw", preflight=True) == Failure("AccountInUse")


LANDED = {"slot": 500, "err": None, "confirmationStatus": "finalized"}
EXPIRY = {
    "one is past it and none knows it": ([Node(finalized=900), Node(finalized=400)], True),
    "no endpoint is past it": ([Node(finalized=600), Node(finalized=400)], False),
    "another one knows it": ([Node(finalized=900), Node(finalized=700, knows=LANDED)], 500),
    "one that hasn't reached its own finalized slot": ([Node(finalized=900, slot=850)], False),
    "one is dead": ([Node(code=500), Node(finalized=900)], True),
}


@pytest.mark.parametrize("case", EXPIRY)
async def test_expiry_is_proved_by_one_endpoint_and_denied_by_any(case: str) -> None:
    """A second signature is made only when the first can't land any more on any honest view."""
    nodes, expected = EXPIRY[case]
    for node in nodes:
        node.asked.clear()
    async with serve(*nodes) as (rpc, _):
        found = await rpc.has_expired(SIGNATURE, 650)
        assert (found.slot if isinstance(found, Status) else found) == expected


async def test_no_proof_while_endpoints_are_dead() -> None:
    """Silence is no answer."""
    async with serve(Node(code=500), Node(finalized=400)) as (rpc, _):
        with pytest.raises(RpcError):
            await rpc.has_expired(SIGNATURE, 650)


async def test_a_budget_that_is_used_up_sends_reads_to_the_next_endpoint() -> None:
    """Rather than wait for the first one."""
    first, second = Node(value=1), Node(value=2)
    async with serve(first, second, limit=20) as (rpc, clock):
        values = [await rpc.balance(KEY) for _ in range(8)]
        assert set(values[:3]) == {1}
        assert values[-1] == 2
        assert clock.slept == []


async def test_no_url_is_ever_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Keys in any endpoint's URL stay out of errors, logs and reprs."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.INFO)
    texts = []
    for break_it, other in itertools.product(BREAK, [Node(code=503)]):
        broken = Node()
        break_it(broken)
        async with serve(broken, other, hedge_s=SOON_S) as (rpc, _):
            for call in (rpc.balance(KEY), rpc.send(b"raw", preflight=False)):
                with contextlib.suppress(RpcError, TimeoutError):
                    async with asyncio.timeout(0.1):
                        await call
                        continue
                texts.append(repr(rpc))
            with contextlib.suppress(RpcError):
                broken.hangs, broken.code = False, 503
                await rpc.balance(KEY)
    with pytest.raises(SettingsError) as wrong:
        Rpc(["http://127.0.0.1:9/SECRETKEY", "SECRETKEY"])
    assert "SECRETKEY" not in "".join([*texts, caplog.text, str(wrong.value)])


def test_no_endpoint_at_all_is_a_settings_error() -> None:
    """And not a crash at the first call."""
    with pytest.raises(SettingsError):
        Rpc([])
