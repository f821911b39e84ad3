"""The check of what training children are kept from here: a child tries it all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from decloud_trainer.checks.machine import SHIPPED_MODEL
from decloud_trainer.checks.model import Check, failed, passed, warned
from decloud_trainer.config import config_path
from decloud_trainer.jobs.child import child_environment
from decloud_trainer.jobs.memory import MemoryWatch
from decloud_trainer.settings import Settings
from decloud_trainer.wiring import worker_of

NAME = "sandbox"
TRIAL = (sys.executable, "-P", "-m", "decloud_trainer.training.trial")
TIMEOUT_S = 30.0
_KINDS = {
    "the network": ("connect", "send a datagram"),
    "local services": ("connect to a local service",),
    "other files": ("write elsewhere", "change a mode", "read"),
    "the daemon": ("look at the daemon", "signal the daemon"),
    "programs and processes": ("start a program", "start a process"),
}


async def sandbox_check(settings: Settings, keypair: str | None) -> Check:
    """What would a hijacked training child reach, the keys' files among it?"""
    found = await try_out(settings, _keys(settings, keypair))
    if found is None:
        return failed(NAME, "the child that tries it out broke down", "try it again with --verbose")
    numbers = {key: found[key] for key in ("landlock", "missing", "possible", "limits")}
    if not settings.sandbox:
        fix = "decloud-trainer config --set sandbox=true"
        return warned(NAME, "switched off: training children have all your rights", fix, **numbers)
    kept, open_to = _sorted(found["possible"])
    text = _limits_text(found["limits"])
    if kept:
        text = f"training children can't reach {', '.join(kept)}; {text}"
        text += f"; Landlock {found['landlock']}" if found["landlock"] else ""
    if not open_to and not found["missing"]:
        return passed(NAME, text, **numbers)
    reached = f"training children can reach {', '.join(open_to)}" if open_to else ""
    why = "; ".join(part for part in (reached, *found["missing"], text) if part)
    fix = "Linux 6.2 or later has all of it; elsewhere use a virtual machine for the trainer alone"
    return warned(NAME, why, fix, **numbers)


def _keys(settings: Settings, keypair: str | None) -> list[Path]:
    key_file = Path(keypair or settings.keypair_path).expanduser()
    return [path for path in (config_path(), key_file) if path.is_file()]


async def try_out(settings: Settings, keys: list[Path]) -> Mapping[str, Any] | None:
    """What `training.trial` found out, with files of our own and with `keys`; None if it failed."""
    with tempfile.TemporaryDirectory(prefix="decloud-trial-") as name:
        job, elsewhere = Path(name) / "job", Path(name) / "elsewhere"
        job.mkdir()
        elsewhere.mkdir()
        (elsewhere / "file").write_bytes(b"x")
        spec = {
            "model": str(SHIPPED_MODEL),
            "max_bytes": SHIPPED_MODEL.stat().st_size,
            "device": settings.device,
        }
        async with _listening(str(elsewhere / "socket")) as port:
            targets = {
                "port": port,
                "socket": str(elsewhere / "socket"),
                "read": [str(elsewhere / "file"), *map(str, keys)],
                "write": str(elsewhere),
                "mode": str(elsewhere / "file"),
            }
            lines = ({"kind": "inspect", "spec": spec, "folder": str(job)}, targets)
            process = await asyncio.create_subprocess_exec(
                *TRIAL,
                *worker_of(settings)[len(TRIAL) :],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=job,
                env=child_environment("inspect", os.environ),
                start_new_session=True,
            )
            given = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            try:
                told, _ = await asyncio.wait_for(process.communicate(given), TIMEOUT_S)
            except TimeoutError:
                process.kill()
                await process.wait()
                return None
    try:
        found = json.loads(told)
    except ValueError:
        return None
    return found if isinstance(found, dict) and process.returncode == 0 else None


@contextlib.asynccontextmanager
async def _listening(path: str) -> AsyncIterator[int]:
    """Servers that hang up at once: on a port of 127.0.0.1, and on a UNIX socket at `path`."""

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    by_port = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    by_path = await asyncio.start_unix_server(hang_up, path)
    async with by_port, by_path:
        yield by_port.sockets[0].getsockname()[1]


def _sorted(possible: list[str]) -> tuple[list[str], list[str]]:
    """(what is out of reach, what isn't)"""
    reached = {
        kind
        for kind, attempts in _KINDS.items()
        if any(did == each or did.startswith(f"{each} ") for did in possible for each in attempts)
    }
    return [kind for kind in _KINDS if kind not in reached], [k for k in _KINDS if k in reached]


def _limits_text(limits: Mapping[str, int]) -> str:
    told = {
        "memory_bytes": "memory {:,.0f} GB",
        "file_bytes": "files of {:,.0f} GB",
        "cpu_s": "{:,.0f} s of processor time",
        "open_files": "{:,} open files",
    }
    parts = [
        form.format(limits[name] / 1e9 if name.endswith("_bytes") else limits[name])
        for name, form in told.items()
        if name in limits
    ]
    if limits.get("core_bytes") == 0:
        parts.append("no core dumps")
    text = f"to inspect a model: {', '.join(parts)}"
    together = MemoryWatch().limit_bytes
    return f"{text}; all children together: {together / 1e9:,.0f} GB" if together else text
