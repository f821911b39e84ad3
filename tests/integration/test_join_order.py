"""What lies between a round that can be joined and our join: one event, and few calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from daemonworld import a_world

from decloud_trainer.chain.jsonrpc import Endpoint
from decloud_trainer.chain.watch import WatchPace
from decloud_trainer.rounds import daemon as daemon_module
from decloud_trainer.rounds.entry import State

NEVER = 3600.0
EVENTS_ALONE = WatchPace(poll_interval_s=NEVER, safety_interval_s=NEVER)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that endpoints are asked for, as they are."""
    real, methods = Endpoint.exchange, list[str]()

    async def exchange(self: Endpoint, method: str, params: Sequence[Any]) -> Mapping[str, Any]:
        methods.append(method)
        return await real(self, method, params)

    monkeypatch.setattr(Endpoint, "exchange", exchange)
    return methods


@pytest.mark.parametrize("training", [False, True])
async def test_a_round_is_joined_by_its_event_and_in_few_calls(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    """Nothing waits for a timer: all are an hour. The same while another round trains."""
    async with a_world(tmp_path) as world:
        monkeypatch.setattr(daemon_module, "LONGEST_SLEEP_S", NEVER)
        script = {"train": {"seconds": NEVER}}
        terms = {"max_concurrent_rounds": 2}
        async with world.daemon(pace=EVENTS_ALONE, script=script, terms=terms) as running:
            if training:
                other = world.open()
                await running.until(other, State.JOINED)
                world.net.start_training(other)
                while not running.progress:
                    await running.until(other, State.JOINED)
            number = world.post()
            await running.until_reason(number, "waiting for a validator")
            asked.clear()
            world.take(number)
            await running.until(number, State.JOINED)
            before = asked[: asked.index("sendTransaction")]
            assert before.index("getLatestBlockhash") < before.index("simulateTransaction")
            assert len(before) <= 8, before
