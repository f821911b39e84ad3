"""Named places where a test can kill this process or let its disk fail: for crash drills alone.

Every durable write, every transaction's way to the chain, every reply and every boundary to a
child passes one of `POINTS`. Nothing is armed unless the environment says so:

    DECLOUD_FAULTS=journal.move.written=kill          SIGKILL at the first visit
    DECLOUD_FAULTS=send.join.sending@2=kill           at the second one
    DECLOUD_FAULTS=file.torn@3=ENOSPC                 the third visit raises OSError(ENOSPC)
    DECLOUD_FAULTS=jobs.start.writing@1+=EIO          every visit from the first on
    DECLOUD_FAULTS=*@57=kill                          the 57th visit of whatever point
    DECLOUD_FAULTS=sweep.found=kill,step.pin.done=kill    whichever comes first

A killed process says on stderr where. Children get none of this: the variable isn't passed on.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Final

from decloud_trainer.errors import SettingsError

VARIABLE: Final = "DECLOUD_FAULTS"
ANY: Final = "*"
KILL: Final = "kill"
ERRNOS: Final = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EROFS")}
KILLED: Final = "killed at the fault point "

JOURNAL_WRITES: Final = {
    "create": "makes or migrates the tables",
    "saw": "notes a round as the chain shows it",
    "move": "puts a row into a state",
    "wait": "leaves a row where it is, with a reason",
    "revise": "changes a row's facts",
    "reconsider": "has skipped rounds decided anew",
    "catch_up": "has every round looked at after a start",
    "record_intent": "keeps a signed transaction, before it is sent",
    "settle_intent": "keeps what became of it",
    "record_transfer": "keeps a signed transfer to the cold address, before it is sent",
    "settle_transfer": "keeps what became of it",
    "ask": "leaves a command's request",
    "answer": "answers one",
    "set_mark": "keeps a session's mark",
}
JOBS_WRITES: Final = {
    "create": "makes or migrates the tables",
    "submit": "keeps a new job",
    "take_over": "queues again what a dead supervisor left",
    "start": "gives a job a lease",
    "keep_child": "keeps the child's identity",
    "renew": "renews the lease and keeps the progress",
    "keep_wish": "keeps a wish to stop or to cancel",
    "requeue": "queues a failed or interrupted attempt again",
    "finish": "keeps a job's end",
}
TRANSACTIONS: Final = ("join", "submit", "claim", "transfer")
# The states of a row that isn't final, each of which has a step.
STEPS: Final = (
    "seen",
    "watching",
    "fetched",
    "joined",
    "trained",
    "pinned",
    "submitted",
    "claimable",
    "skipped",
)


def _pairs() -> dict[str, str]:
    """The points that every write, transaction and step has."""
    found: dict[str, str] = {}
    for base, writes in (("journal", JOURNAL_WRITES), ("jobs", JOBS_WRITES)):
        for name, what in writes.items():
            found[f"{base}.{name}.writing"] = f"before the commit of what {what}"
            found[f"{base}.{name}.written"] = f"after the commit of what {what}"
    for name in TRANSACTIONS:
        found[f"send.{name}.signing"] = f"the {name} is decided and not signed yet"
        found[f"send.{name}.recorded"] = f"the {name} is signed and recorded, no node has it"
        found[f"send.{name}.sending"] = f"the {name} is on its way to a node"
        found[f"send.{name}.sent"] = f"a node has taken the {name}, we have its answer"
        found[f"send.{name}.settled"] = f"the fate of the {name} is known and not recorded"
    for name in STEPS:
        found[f"step.{name}.begin"] = f"a row that is {name} begins its step"
        found[f"step.{name}.done"] = "that step has done its work, which isn't recorded"
    return found


POINTS: Final = {
    **_pairs(),
    "file.begin": "a file is about to be replaced",
    "file.torn": "half of its new bytes are written beside it",
    "file.written": "all of them are written and not renamed",
    "file.renamed": "the new bytes are in place, the folder not yet synced",
    "publish.begin": "a fetched model is verified and not in its place",
    "publish.renamed": "a fetched model is in its place, the folder not yet synced",
    "pin.begin": "an artefact is about to be uploaded",
    "pin.replied": "the pin service has answered with its CID",
    "pin.seen": "a gateway or the service confirms it, no row says so",
    "child.starting": "a training child is about to be started",
    "child.started": "it runs and nobody has noted its number",
    "child.told": "it knows its work",
    "child.ended": "it has given its result or its error, nothing is recorded",
    "child.killing": "it is about to be ended with all its children",
    "child.killed": "it is gone, nothing is recorded",
    "sweep.begin": "the chain is asked for every submission of the wallet",
    "sweep.found": "one is found that no row here knows of",
    "request.taking": "a command's request is about to be carried out",
    "request.taken": "it is carried out and not answered",
    "artifact.discarding": "a finished round's upload is about to be removed",
}

_FAULT = re.compile(r"(?P<point>[a-z_.]+|\*)(@(?P<visit>\d{1,9})(?P<on>\+?))?=(?P<action>\w+)")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the `visit`-th visit of a point, and at every later one if `on`."""

    point: str
    action: str
    visit: int = 1
    on: bool = False


_text = os.environ.get(VARIABLE, "")
_faults: tuple[Fault, ...] | None = None
_visits: Counter[str] = Counter()
_lock = threading.Lock()


def arm(text: str) -> None:
    """As the variable would have: from now on, counted from zero."""
    global _text, _faults
    _faults = parse(text)
    _visits.clear()
    _text = text


def visited() -> dict[str, int]:
    """How often each point was reached since something was armed."""
    return dict(_visits)


def parse(text: str) -> tuple[Fault, ...]:
    """The faults that the variable's text names.

    Raises:
        SettingsError: it can't be understood, or names no point there is.
    """
    found = []
    for part in filter(None, text.split(",")):
        match = _FAULT.fullmatch(part)
        if match is None or match["point"] not in {*POINTS, ANY}:
            raise SettingsError(f"{VARIABLE}: {part[:80]!r} names no fault", hint="unset it")
        if match["action"] != KILL and match["action"] not in ERRNOS:
            raise SettingsError(f"{VARIABLE}: {part[:80]!r} is none of kill, {', '.join(ERRNOS)}")
        visit = int(match["visit"] or 1)
        found.append(Fault(match["point"], match["action"], visit, bool(match["on"])))
    return tuple(found)


def reach(name: str) -> None:
    """Say that the process is here. Nothing happens unless a fault is armed for it.

    Raises:
        OSError: an armed one.
        SettingsError: the variable can't be understood.
    """
    if _text:
        _visit(name)


def _visit(name: str) -> None:
    global _faults
    with _lock:
        if _faults is None:
            _faults = parse(_text)
        for counted in (name, ANY):
            _visits[counted] += 1
            for fault in _faults:
                count = _visits[counted]
                is_due = count == fault.visit or (fault.on and count > fault.visit)
                if fault.point == counted and is_due:
                    _strike(fault.action, name)


def _strike(action: str, name: str) -> None:
    if action != KILL:
        raise OSError(ERRNOS[action], os.strerror(ERRNOS[action]))
    os.write(2, f"{KILLED}{name}\n".encode("ascii"))
    os.kill(os.getpid(), signal.SIGKILL)
