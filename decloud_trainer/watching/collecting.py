"""Gathers the figures of a running daemon for one scrape, and says whether it is healthy."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from decloud_trainer import __version__
from decloud_trainer.chain.health import Health
from decloud_trainer.errors import NetworkError
from decloud_trainer.rounds.entry import RowKey
from decloud_trainer.rounds.figures import counts, lately
from decloud_trainer.rounds.journal import JournalThread
from decloud_trainer.rounds.marks import SESSION, mark
from decloud_trainer.rounds.watchdog import ALARMS, Alarm
from decloud_trainer.watching.metrics import Sample
from decloud_trainer.watching.tally import Tally

# The open rounds are read every 20 s at least, or every `poll_interval`; this is several of both.
FRESH_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a scrape's figures come from.

    Attributes:
        journal: a thread of its own, so that no scrape holds up the daemon's.
        fresh_s: without anything heard of the chain for so long, the daemon isn't healthy.
        silent_s: seconds since anything was heard of the chain.
        is_subscribed: whether changes are told at once.
        endpoints: host and record of each RPC endpoint, in the user's order.
        gateways: URL and score of each IPFS gateway.
        alarms: those that are on.
        looked_s: seconds since the watchdog's last look that succeeded.
        round_cost: lamports that taking part costs; may raise a NetworkError.
    """

    journal: JournalThread
    key: RowKey
    network: str
    started_at: float
    tally: Tally
    silent_s: Callable[[], float]
    is_subscribed: Callable[[], bool]
    endpoints: Callable[[], Sequence[tuple[str, Health]]]
    gateways: Callable[[], Mapping[str, float]]
    alarms: Callable[[], Sequence[Alarm]]
    looked_s: Callable[[], float]
    round_cost: Callable[[], Awaitable[int]]
    fresh_s: float = FRESH_S


def troubles(sources: Sources) -> list[str]:
    """Why the daemon isn't healthy, in sentences; empty if it is."""
    found = []
    silent_s, looked_s = sources.silent_s(), sources.looked_s()
    if silent_s > sources.fresh_s:
        found.append(f"nothing was heard of the chain for {silent_s:.0f} s")
    if looked_s > FRESH_S:
        found.append(f"the journal couldn't be looked at for {looked_s:.0f} s")
    return found


async def samples(sources: Sources) -> list[Sample]:
    """All figures as of now.

    Raises:
        DecloudError: the journal can't be read.
    """
    journal, key = sources.journal, sources.key
    session = await journal(mark, SESSION)
    found = await journal(counts, key)
    last = await journal(lately, key, math.inf)
    labels = {"version": __version__, "network": sources.network, "wallet": key.wallet}
    return [
        Sample("decloud_info", 1, labels),
        Sample("decloud_up", not troubles(sources)),
        *(Sample("decloud_rounds", n, {"state": state}) for state, n in found.rounds.items()),
        *(
            Sample("decloud_transactions_total", n, {"kind": kind, "outcome": outcome})
            for (kind, outcome), n in found.transactions.items()
        ),
        Sample("decloud_rewards_lamports_total", found.rewards_lamports),
        Sample("decloud_rent_lamports_total", found.rent_lamports),
        Sample("decloud_fees_lamports_total", found.fees_lamports),
        *_balance(session, key),
        *await _cost(sources),
        Sample("decloud_last_event_timestamp_seconds", last.last_event_at),
        Sample("decloud_chain_silence_seconds", sources.silent_s()),
        Sample("decloud_subscription_up", sources.is_subscribed()),
        *_endpoints(sources.endpoints()),
        *_gateways(sources.gateways()),
        *_session(sources.tally),
        *_alarms(sources.alarms()),
        Sample("process_start_time_seconds", sources.started_at),
        *_process(),
    ]


def _balance(session: Any, key: RowKey) -> Iterator[Sample]:
    if session is not None and session["wallet"] == key.wallet:
        yield Sample("decloud_balance_lamports", session["balance"])


async def _cost(sources: Sources) -> list[Sample]:
    try:
        return [Sample("decloud_round_cost_lamports", await sources.round_cost())]
    except NetworkError:  # not known yet, and not now
        return []


def _endpoints(endpoints: Sequence[tuple[str, Health]]) -> Iterator[Sample]:
    now = time.monotonic()
    for place, (host, health) in enumerate(endpoints):
        labels = {"place": str(place), "endpoint": host}
        resting = now < health.rests_until or health.is_barred(now)
        yield Sample("decloud_rpc_up", not resting, labels)
        yield Sample("decloud_rpc_latency_seconds", health.latency_s, labels)
        yield Sample("decloud_rpc_failures", health.failures, labels)
        if health.slot:
            yield Sample("decloud_rpc_slot", health.slot, labels)


def _gateways(scores: Mapping[str, float]) -> Iterator[Sample]:
    worst: dict[str, float] = {}  # two of one host would be one sample
    for url, seconds in scores.items():
        host = urlsplit(url).netloc.rpartition("@")[2]
        worst[host] = max(seconds, worst.get(host, 0.0))
    for host, seconds in worst.items():
        yield Sample("decloud_gateway_score_seconds", seconds, {"gateway": host})


def _session(tally: Tally) -> Iterator[Sample]:
    for state, number in sorted(tally.failures.items()):
        yield Sample("decloud_step_failures_total", number, {"state": state})
    for round_id, running in sorted(tally.running.items()):
        labels = {"round": str(round_id)}
        if running.done is not None:
            yield Sample("decloud_training_done_ratio", running.done, labels)
        if running.samples_per_s is not None:
            yield Sample("decloud_training_samples_per_second", running.samples_per_s, labels)
        if running.loss is not None:
            yield Sample("decloud_training_loss", running.loss, labels)


def _alarms(found: Sequence[Alarm]) -> Iterator[Sample]:
    number = Counter(alarm.name for alarm in found)
    for name in ALARMS:
        yield Sample("decloud_alarm", number[name], {"alarm": name})


def _process() -> Iterator[Sample]:
    """What Linux tells of a process; nothing elsewhere."""
    own = Path("/proc/self")
    try:
        pages = int((own / "statm").read_text().split()[1])
        files = len(list((own / "fd").iterdir()))
    except (OSError, ValueError, IndexError):
        return
    yield Sample("process_resident_memory_bytes", pages * os.sysconf("SC_PAGE_SIZE"))
    yield Sample("process_open_fds", files)
