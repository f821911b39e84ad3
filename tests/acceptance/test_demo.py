"""``demo``: the whole product in one command."""

from __future__ import annotations

import os

import pytest
from terminal import run


@pytest.mark.slow
def test_a_demo_earns_its_reward() -> None:
    """A round on a local network pays: exit code 0, one JSON object, and all numbers agree."""
    done = run("demo", "--json", "--slot-ms", "100", env={"DECLOUD_PRIVATE_KEY": "not for a demo"})
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 1
    told = done.json

    assert told["reward_claimed"] is True
    assert told["net_lamports"] > 0
    costs = told["fees_lamports"] + told["rent_lamports"]
    assert told["reward_lamports"] - costs == told["net_lamports"]
    assert told["balance_change_lamports"] == told["net_lamports"]
    assert told["accuracy_after"] > told["accuracy_before"] + 20
    assert told["preview_accuracy"] == pytest.approx(told["accuracy_after"], abs=0.01)
    assert 0 < told["contribution_bps"] <= 10_000
    assert told["trainers"] == 2
    assert told["gradient_cid"].startswith("baf")
    signatures = {told[f"{kind}_signature"] for kind in ("join", "submit", "claim")}
    assert len(signatures) == 3
    assert min(map(len, signatures)) > 80
    assert 0 < told["seconds"] < 120
    assert not os.path.exists(os.environ["DECLOUD_HOME"]), "a demo leaves the user's home alone"
