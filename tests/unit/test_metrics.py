"""What Prometheus and Grafana get: the format, the names, the dashboard, the door to them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from roundvalues import KEY, NOW, a_round

from decloud_trainer.chain.health import Health
from decloud_trainer.cli.metrics import dashboard_text
from decloud_trainer.errors import RpcError
from decloud_trainer.rounds import intents, marks
from decloud_trainer.rounds.engine import Told
from decloud_trainer.rounds.entry import NOTHING_KNOWN, Entry, State
from decloud_trainer.rounds.journal import Journal, JournalThread
from decloud_trainer.rounds.marks import SESSION
from decloud_trainer.rounds.model import Action, ActionKind, Intent, Outcome, OutcomeState
from decloud_trainer.rounds.parts import Progress
from decloud_trainer.rounds.watchdog import ALARMS, Alarm
from decloud_trainer.watching.collecting import Sources, samples
from decloud_trainer.watching.metrics import CONTENT_TYPE, METRICS, Sample, exposition
from decloud_trainer.watching.server import watched_at
from decloud_trainer.watching.tally import Tally

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def families(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """As Prometheus' own reader understands it: name -> label values -> value."""
    return {
        sample.name: {
            tuple(one.labels.values()): one.value
            for one in family.samples
            if one.name == sample.name
        }
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_text_is_read_by_prometheus_as_it_was_meant() -> None:
    """Large counters to the last digit, and labels with whatever characters."""
    odd = 'a "quoted\\name"\nof two lines'
    text = exposition(
        [
            Sample("decloud_rewards_lamports_total", 9_007_199_254_740_991),
            Sample("decloud_info", 1, {"version": odd, "network": "devnet", "wallet": "W"}),
            Sample("decloud_rpc_latency_seconds", 0.25, {"place": "0", "endpoint": "h:1"}),
            Sample("decloud_up", False),
        ]
    )
    found = families(text)
    assert found["decloud_rewards_lamports_total"] == {(): 9_007_199_254_740_991}
    assert found["decloud_info"] == {(odd, "devnet", "W"): 1}
    assert found["decloud_rpc_latency_seconds"] == {("0", "h:1"): 0.25}
    assert found["decloud_up"] == {(): 0}
    assert "9007199254740991\n" in text
    kinds = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert kinds["decloud_rewards_lamports"] == "counter"
    assert kinds["decloud_up"] == "gauge"


def test_names_follow_the_customs() -> None:
    """Counters end in _total, nothing else does; units are in the names."""
    for name, metric in METRICS.items():
        assert re.fullmatch(r"(decloud|process)_[a-z_]+", name)
        assert (metric.kind == "counter") == name.endswith("_total")
        assert metric.help.endswith(".")


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    """And each one is on it, so nothing is measured for nobody."""
    board = json.loads(dashboard_text())
    asked = set()
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            asked |= set(re.findall(r"\b(?:decloud|process)_\w+", target["expr"]))
    assert asked == set(METRICS)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_the_dashboard_names_labels_and_states_that_there_are() -> None:
    """A panel with a misspelt label would stay empty without a word."""
    for panel in json.loads(dashboard_text())["panels"]:
        for target in panel.get("targets", ()):
            names = re.findall(r"\b(?:decloud|process)_\w+", target["expr"])
            labels = {label for name in names for label in METRICS[name].labels} | {"instance"}
            assert set(re.findall(r"(\w+)=~?\"", target["expr"])) <= labels
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
            for states in re.findall(r"state=~\"([\w|]+)\"", target["expr"]):
                assert set(states.split("|")) <= {state.value for state in State}


def test_every_metric_and_alarm_is_in_the_readme() -> None:
    """Which is where people look them up."""
    assert {name for name in METRICS if f"`{name}`" not in README} == set()
    assert {name for name in ALARMS if f"| `{name}` |" not in README} == set()


def fill(journal: Journal) -> None:
    """A claimed round, a lost one, and one in work."""
    for number, state in ((7, State.CLAIMED), (8, State.LOST), (9, State.JOINED)):
        key = dataclasses.replace(KEY, round_id=number)
        journal.saw(key, a_round(id=number))
        entry = journal.entry(key)
        assert entry is not None
        for kind, change in ((ActionKind.JOIN, -1_738_040), (ActionKind.CLAIM, 899_000)):
            if kind is ActionKind.JOIN or state is State.CLAIMED:
                intent = Intent(Action(kind, number), f"{kind.value}{number}", b"raw", 1)
                intents.record(journal, entry, intent)
                outcome = Outcome(OutcomeState.LANDED, 5, 5_000, change)
                intents.settle(journal, entry, intent, outcome)
        journal.move(entry, state, "", NOTHING_KNOWN)
    other = dataclasses.replace(KEY, genesis="another network", round_id=70)
    journal.saw(other, a_round(id=70))
    marks.set_mark(journal, SESSION, {"wallet": KEY.wallet, "balance": 5_000_000_000})


async def unknown_cost() -> int:
    raise RpcError("nothing answers")


async def a_cost() -> int:
    return 1_748_040


@asynccontextmanager
async def sources(folder: Path, **changes: Any) -> AsyncIterator[Sources]:
    """Of a daemon with which all is well."""
    journal = JournalThread(folder / "journal.sqlite", clock=lambda: NOW)
    await journal(fill)
    tally = Tally()
    told = Progress(9, "train", {"samples_per_s": 100, "loss": float("nan")})
    tally.progress(told, 0.5)
    base = Sources(
        journal=journal,
        key=KEY,
        network="devnet",
        started_at=NOW - 60,
        tally=tally,
        silent_s=lambda: 3.5,
        is_subscribed=lambda: True,
        endpoints=lambda: [("rpc.example", Health(0, latency_s=0.1, slot=77))],
        gateways=lambda: {"https://u:p@gw.example/a": 2.0, "https://gw.example/b": 3.0},
        alarms=lambda: [Alarm("backing_off", "", "a"), Alarm("backing_off", "", "b")],
        looked_s=lambda: 1.0,
        round_cost=a_cost,
    )
    try:
        yield dataclasses.replace(base, **changes)
    finally:
        journal.close()


async def test_the_figures_are_those_of_the_journal(tmp_path: Path) -> None:
    """To the lamport, of this wallet on this network alone; so restarts count nothing twice."""
    async with sources(tmp_path) as found:
        figures = families(exposition(await samples(found)))
    assert figures["decloud_rounds"][("claimed",)] == 1
    assert figures["decloud_rounds"][("seen",)] == 0
    assert len(figures["decloud_rounds"]) == len(State)
    assert figures["decloud_rewards_lamports_total"] == {(): 904_000}
    assert figures["decloud_rent_lamports_total"] == {(): 3 * 1_733_040}
    assert figures["decloud_fees_lamports_total"] == {(): 4 * 5_000}
    assert figures["decloud_transactions_total"] == {
        ("join", "landed"): 3,
        ("claim", "landed"): 1,
    }
    assert figures["decloud_balance_lamports"] == {(): 5_000_000_000}
    assert figures["decloud_round_cost_lamports"] == {(): 1_748_040}
    assert figures["decloud_last_event_timestamp_seconds"] == {(): NOW}
    assert figures["decloud_alarm"][("backing_off",)] == 2
    assert figures["decloud_alarm"][("blind",)] == 0
    assert figures["decloud_rpc_slot"] == {("0", "rpc.example"): 77}
    assert figures["decloud_gateway_score_seconds"] == {("gw.example",): 3.0}
    assert figures["decloud_training_done_ratio"] == {("9",): 0.5}
    assert "decloud_training_loss" not in figures


async def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    """Nothing is shown as 0 that nobody has asked yet."""
    async with sources(tmp_path, round_cost=unknown_cost) as found:
        await found.journal(marks.set_mark, SESSION, None)
        figures = families(exposition(await samples(found)))
    assert "decloud_round_cost_lamports" not in figures
    assert "decloud_balance_lamports" not in figures


async def ask(port: int | None, path: str, **options: Any) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}", **options) as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_metrics_and_health_are_served_on_loopback(tmp_path: Path) -> None:
    """In the format's own content type; alarms are told, and are no reason to be restarted."""
    async with sources(tmp_path) as found, watched_at(0, found) as port:
        status, kind, text = await ask(port, "/metrics")
        assert (status, kind) == (200, CONTENT_TYPE)
        assert families(text)["decloud_up"] == {(): 1}
        status, _, text = await ask(port, "/health")
        assert status == 200
        health = json.loads(text)
        assert (health["healthy"], health["reasons"]) == (True, [])
        assert [alarm["alarm"] for alarm in health["alarms"]] == ["backing_off", "backing_off"]


async def test_a_daemon_that_hears_nothing_is_not_healthy(tmp_path: Path) -> None:
    """Nor one that can't look at its journal; each reason is said."""
    deaf = sources(tmp_path, silent_s=lambda: 500.0, looked_s=lambda: 400.0)
    async with deaf as found, watched_at(0, found) as port:
        status, _, text = await ask(port, "/health")
        assert status == 503
        assert json.loads(text)["reasons"] == [
            "nothing was heard of the chain for 500 s",
            "the journal couldn't be looked at for 400 s",
        ]
        _, _, text = await ask(port, "/metrics")
        assert families(text)["decloud_up"] == {(): 0}


async def test_no_web_page_can_read_it_by_a_name_of_its_own(tmp_path: Path) -> None:
    """A browser on this machine may be sent to loopback under any name."""
    async with sources(tmp_path) as found, watched_at(0, found) as port:
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example"):
            status, _, _ = await ask(port, "/metrics", headers={"Host": host})
            assert status == 403
        status, _, _ = await ask(port, "/health", headers={"Host": f"localhost:{port}"})
        assert status == 200


async def test_a_port_that_is_taken_stops_no_daemon(tmp_path: Path) -> None:
    """It earns without metrics, and says so."""
    async with sources(tmp_path) as found, watched_at(0, found) as port:
        assert port is not None
        async with watched_at(port, found) as second:
            assert second is None


def test_a_round_is_a_label_only_while_it_trains() -> None:
    """Months of rounds would be a burden to Prometheus."""
    tally = Tally()
    tally.progress(Progress(9, "train", {"loss": 1.0}), None)
    assert tally.running[9].loss == 1.0
    entry = Entry(1, KEY, State.TRAINED, "", NOTHING_KNOWN, None, 0.0, 0, NOW, NOW)
    tally.event(Told(NOW, dataclasses.replace(entry, key=KEY), moved=True))
    tally.event(Told(NOW, entry, moved=False, problem=True))
    assert tally.running.keys() == {9}
    done = dataclasses.replace(entry, key=dataclasses.replace(KEY, round_id=9))
    tally.event(Told(NOW, done, moved=True))
    assert tally.running == {}
    assert tally.failures == {"trained": 1}
