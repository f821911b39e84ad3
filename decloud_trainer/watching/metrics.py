"""The daemon's figures in Prometheus' text format (version 0.0.4).

Written by hand: every figure is read anew from the journal at each scrape, so that counters
survive restarts; a client library's registry of counters in memory would have no part in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """One family. kind: `counter` or `gauge`; labels: the names that each of its samples has."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()


# Every metric there is; the dashboard and the README use these names.
METRICS: Final[Mapping[str, Metric]] = {
    "decloud_info": Metric("gauge", "This session.", ("version", "network", "wallet")),
    "decloud_up": Metric("gauge", "1 if healthy, as /health says."),
    "decloud_rounds": Metric("gauge", "Rounds in the journal by state.", ("state",)),
    "decloud_transactions_total": Metric(
        "counter", "Transactions by kind and outcome.", ("kind", "outcome")
    ),
    "decloud_rewards_lamports_total": Metric("counter", "Rewards claimed, before fees."),
    "decloud_rent_lamports_total": Metric("counter", "Rent left in accounts for good."),
    "decloud_fees_lamports_total": Metric("counter", "Fees paid, also for refused transactions."),
    "decloud_balance_lamports": Metric("gauge", "The wallet's balance as last read."),
    "decloud_round_cost_lamports": Metric("gauge", "What taking part in a round costs."),
    "decloud_last_event_timestamp_seconds": Metric(
        "gauge", "Time on chain of the journal's latest event."
    ),
    "decloud_chain_silence_seconds": Metric("gauge", "Since anything was heard of the chain."),
    "decloud_subscription_up": Metric("gauge", "1 while changes of rounds are told at once."),
    "decloud_rpc_up": Metric("gauge", "1 unless the endpoint rests.", ("place", "endpoint")),
    "decloud_rpc_latency_seconds": Metric(
        "gauge", "Moving average of the endpoint's answers.", ("place", "endpoint")
    ),
    "decloud_rpc_failures": Metric(
        "gauge", "Failures of the endpoint in a row.", ("place", "endpoint")
    ),
    "decloud_rpc_slot": Metric("gauge", "Newest slot of the endpoint.", ("place", "endpoint")),
    "decloud_gateway_score_seconds": Metric(
        "gauge", "What a model from this IPFS gateway may cost; small is good.", ("gateway",)
    ),
    "decloud_step_failures_total": Metric(
        "counter", "Failed steps of this session by the round's state.", ("state",)
    ),
    "decloud_training_done_ratio": Metric("gauge", "Part of a training that is done.", ("round",)),
    "decloud_training_samples_per_second": Metric("gauge", "Speed of a training.", ("round",)),
    "decloud_training_loss": Metric("gauge", "Latest loss of a training.", ("round",)),
    "decloud_alarm": Metric("gauge", "Number of alarms of this name that are on.", ("alarm",)),
    "process_start_time_seconds": Metric("gauge", "Start of the session in unix time."),
    "process_resident_memory_bytes": Metric("gauge", "Memory of the daemon (Linux)."),
    "process_open_fds": Metric("gauge", "Open files of the daemon (Linux)."),
}


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def exposition(samples: Iterable[Sample]) -> str:
    """The text of a scrape: families in the order of METRICS, empty ones left out."""
    found: dict[str, list[Sample]] = {name: [] for name in METRICS}
    for sample in samples:
        assert set(sample.labels) == set(METRICS[sample.name].labels), sample
        found[sample.name].append(sample)
    lines = []
    for name, family in found.items():
        if family:
            lines.append(f"# HELP {name} {METRICS[name].help}")
            lines.append(f"# TYPE {name} {METRICS[name].kind}")
            lines.extend(map(_line, family))
    return "\n".join(lines) + "\n"


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
    text = str(int(sample.value)) if float(sample.value).is_integer() else repr(sample.value)
    return f"{sample.name}{'{' + labels + '}' if labels else ''} {text}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
