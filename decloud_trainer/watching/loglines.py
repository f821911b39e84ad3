"""The daemon's log as JSON lines, each with an event name that stays while its words may change.

Every name stands here, so that whoever filters by one finds all. A name is given to a call by its
module and its text; a call may also bring its own name and fields: ``extra={"event": ...,
"fields": {...}}``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

# What `start --json` prints has the same names, and the same fields.
TOLD: Final = (
    "started",
    "round",
    "progress",
    "decision",
    "alarm",
    "alarm_over",
    "stopped",
)

NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "chain.client": {
        "skipped the account %s: %s": "chain.account_skipped",
        "what others pay for priority can't be asked: %s": "chain.priority_unknown",
    },
    "chain.clock": {
        "%s: connecting anew, reading everything again": "clock.jumped",
        "the chain's clock can't be read: %s": "clock.unread",
    },
    "chain.endpoints": {"%s; trying again": "rpc.retry"},
    "chain.pool": {
        "%s": "rpc.foreign",
        "%s is %d slots behind the others and is not used": "rpc.behind",
        "%s: %s": "rpc.probe_failed",
        "%s serves our cluster now": "rpc.ours_again",
    },
    "chain.fees": {
        "no priority fee, since what others pay can't be asked: %s": "fees.priority_unknown",
    },
    "chain.generation": {
        "the program is %s (detected by simulating a claim)": "program.detected",
    },
    "chain.openrounds": {
        "the counter can't be read: %s": "rounds.counter_unread",
        "could not look for rounds with unusual CIDs: %s": "rounds.unusual_unread",
    },
    "chain.passphrases": {"the keyring can't be asked: %s": "wallet.keyring_unasked"},
    "chain.sending": {
        "%s was executed, but the endpoint doesn't serve its record: only its fee is booked": (
            "transaction.record_missing"
        ),
        "%s: not settled yet; it is looked up later": "transaction.unsettled",
        "%s: %s": "transaction.settled",
        "%s: %s; going on": "transaction.retry",
    },
    "chain.watch": {
        "subscribed to the program's rounds": "watch.subscribed",
        "no subscription (%s); reading every few seconds instead": "watch.unsubscribed",
        "can't read rounds: %s": "watch.unread",
        "rounds can be read again": "watch.read_again",
    },
    "checks.run": {"the check %r broke down": "check.broke"},
    "cli.systemd": {"systemd can't be told %r: %s": "systemd.untold"},
    "ipfs.pins": {
        "%s confirms %s, no gateway delivers it yet": "pin.not_delivered",
        "%s did not pin %s: %s": "pin.failed",
    },
    "jobs.attempt": {"job %s: attempt %d with %s": "job.attempt_changed"},
    "jobs.store": {"%s": "jobs.mended"},
    "jobs.supervisor": {
        "%s; trying again (%s)": "job.store_retry",
        "supervising job %s broke down": "job.broke",
        "job %s: attempt %d is process %d": "job.attempt",
        "job %s: attempt %d failed: %s": "job.failed",
        "job %s: %s": "job.note",
    },
    "rounds.coldstore": {
        "%s more than sweep_above keeps are in the wallet: they go to %s in %d minutes, and from "
        "then on whatever exceeds it. If that isn't your address: decloud-trainer config --unset "
        "cold_address, and start again": "cold.announced",
        "not sent to %s: %s %s": "cold.refused",
        "nothing is sent to the cold address for now: %s": "cold.held",
        "sent %s to the cold address %s (%s)": "cold.sent",
    },
    "rounds.daemon": {
        "looking for what exceeds the float: %s": "cold.failed",
        "unexpected; going on in %g s": "daemon.unexpected",
        "can't see what other terminals ask for: %s": "daemon.requests_unread",
        "round %s can't go on for now": "round.stuck",
        "looking for unclaimed rewards: %s": "sweep.failed",
        "round %s can't be read: %s": "round.unread",
        "request %s waits for the network: %s": "request.waits",
    },
    "rounds.engine": {
        "round %s: step of state %s": "step.unexpected",
        "round %s: an event can't be shown": "round.unshown",
    },
    "rounds.intake": {"submission of round %s: %s": "sweep.unreadable"},
    "rounds.mending": {"%s": "journal.mended"},
    "rounds.passing": {
        "%s: %s": "passing.failed",
        "commits of %s can't go on to %s now: %s; the training goes on": "passing.held",
    },
    "rounds.recall": {"what an inspection found can't be kept: %s": "models.unkept"},
    "rounds.training_jobs": {"progress of round %s can't be shown": "progress.unshown"},
    "watching.notices": {
        "an alarm can't be told, it is tried again: %s": "notice.failed",
        "notify_desktop is set, and nothing here shows notifications": "notice.no_desktop",
    },
    "watching.server": {
        "the metrics can't be read: %s": "metrics.unread",
        "metrics_port %d can't be used (%s): no metrics in this session": "metrics.unserved",
    },
    "watching.watchman": {
        "the watchdog can't look: %s": "watchdog.failed",
        "the watchdog's look broke down": "watchdog.broke",
    },
}


def event_of(record: logging.LogRecord) -> str:
    """The record's event name; its module for a record that has none."""
    own = getattr(record, "event", None)
    if isinstance(own, str):
        return own
    module = record.name.removeprefix("decloud_trainer.")
    return NAMES.get(module, {}).get(str(record.msg), module)


class JsonLines(logging.Formatter):
    """``{"time": ..., "level": ..., "event": ..., "logger": ..., "message": ..., ...}``

    ``time`` is UTC with milliseconds; ``trace`` is there with an exception. Fields that a call
    brings come behind these."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": event_of(record),
            "logger": record.name.removeprefix("decloud_trainer."),
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            line |= {name: value for name, value in fields.items() if name not in line}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
