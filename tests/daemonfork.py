"""Starts daemons by forking: a process with everything imported, so that a start costs little.

Orders come as JSON lines on stdin, one daemon each; ``{"pid": ...}`` and, at its end,
``{"pid": ..., "status": ...}`` go to stdout. A forked process is a daemon of its own: its own
session, its output in a log, killed and ended like any other. The parts are `open_trainer`'s,
with the waiting between looks shortened; nothing that decides is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import gc
import json
import logging
import os
import select
import signal
import ssl
import sys
import traceback
from typing import Any

from decloud_trainer import faultpoints, wiring
from decloud_trainer.chain import (
    client,
    clock,
    generation,
    guard,
    lifecycle,
    passphrases,
    sending,
    watch,
)
from decloud_trainer.chain.rpc import Rpc
from decloud_trainer.errors import DecloudError, NetworkError
from decloud_trainer.ipfs import gateways, kubo, pinning, pinning_api, pins
from decloud_trainer.jobs import supervisor
from decloud_trainer.localnet import options
from decloud_trainer.rounds import (
    coldstore,
    daemon,
    engine,
    intake,
    journal,
    landing,
    mending,
    steps,
    training_jobs,
)
from decloud_trainer.rounds.daemon import Daemon
from decloud_trainer.settings import Settings
from decloud_trainer.training.data import published

# Needed by the daemon, which imports them late.
IMPORTED = (client, clock, engine, gateways, generation, guard, intake, journal)
IMPORTED += (lifecycle, pinning, pins, training_jobs, watch)
IMPORTED += (kubo, mending, options, passphrases, pinning_api, published)
PACE = sending.Pace(0.02, 0.1, 0.3, 20, 5, 2)


class Scripts:
    """The jobs, whose scripted workers get a script by kind, or by kind and round."""

    def __init__(self, real: Any, scripts: dict[str, Any]) -> None:
        self._real = real
        self._scripts = scripts

    async def submit(self, job_id: str, kind: str, spec: Any, **options: Any) -> Any:
        number = job_id.partition("-")[0]
        script = self._scripts.get(f"{kind} {number}") or self._scripts.get(kind) or {}
        return await self._real.submit(job_id, kind, {**spec, "script": script}, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def run(order: dict[str, Any]) -> None:
    worker = None
    if order["worker"] == "scripted":
        worker = (*supervisor.SCRIPTED_WORKER, json.dumps({"seconds": 0.01}))
    settings = Settings(**order["settings"])
    until = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, until.set)
    ignore = lambda told: None  # noqa: E731
    async with wiring.open_trainer(
        settings, None, on_event=ignore, on_progress=ignore, worker=worker
    ) as trainer:
        parts = trainer.engine.parts
        parts.sender._pace = PACE  # type: ignore[attr-defined]
        parts.jobs._limits = dataclasses.replace(  # type: ignore[attr-defined]
            parts.jobs._limits,  # type: ignore[attr-defined]
            tick_s=0.1,
            retry_wait_s=0.1,
        )
        if worker is not None:
            jobs = Scripts(parts.jobs, order["scripts"])
            trainer.engine.parts = dataclasses.replace(parts, jobs=jobs)
        works = Daemon(trainer.engine, trainer.watch, trainer.scope, trainer.followed)
        await works.run(until)


def main(order: dict[str, Any]) -> int:
    """One daemon's life, in the forked process; its exit code as the command's."""
    os.setsid()
    # Nobody is left behind when the whole test is killed. 1 is PR_SET_PDEATHSIG, of Linux.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    out = os.open(order["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for handle, own in ((null, 0), (out, 1), (out, 2)):
        os.dup2(handle, own)
    os.environ["DECLOUD_HOME"] = order["home"]
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    faultpoints.arm(order["faults"])
    daemon.REQUESTS_S, daemon.LONGEST_SLEEP_S, daemon.FAILURE_PAUSE_S = 0.05, 0.1, 0.2
    daemon.STORE_S, guard._RECORDED_WITHIN_S = 1.0, 2.0
    steps.PHASE_LOOK_S, coldstore.NOTICE_S, landing.UNKNOWN_S = 0.1, 0.0, 1.0
    try:
        asyncio.run(run(order))
    except DecloudError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        return error.exit_code
    except BaseException:  # noqa: BLE001 - the top of a process
        traceback.print_exc()
        return 70
    return 0


async def warm_up() -> None:
    """Have the libraries of an endpoint's client imported, which a first call does."""
    async with Rpc("http://127.0.0.1:9", attempts=1) as nobody:
        with contextlib.suppress(NetworkError):
            await nobody.call("getHealth")


def serve() -> None:
    assert IMPORTED
    # Nobody here has TLS, and to read all certificates is a good part of a daemon's start.
    ssl.SSLContext.load_verify_locations = lambda *_, **__: None  # type: ignore[method-assign]
    asyncio.run(warm_up())
    gc.freeze()
    pending = b""
    alive: set[int] = set()
    say = lambda told: os.write(1, json.dumps(told).encode() + b"\n")  # noqa: E731
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    while True:
        select.select([0, wake], [], [])
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)
        while alive:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            alive.discard(pid)
            say({"pid": pid, "status": os.waitstatus_to_exitcode(status)})
        if not select.select([0], [], [], 0)[0]:
            continue
        data = os.read(0, 1 << 20)
        if not data:
            for pid in alive:
                os.kill(pid, signal.SIGKILL)
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os._exit(main(order))
            alive.add(pid)
            say({"id": order["id"], "pid": pid})


if __name__ == "__main__":
    serve()
