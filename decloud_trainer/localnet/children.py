"""The actors' processes, as the network that started them holds them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

Hear = Callable[[str, dict[str, Any]], None]

# What a Python process needs to find its parts. No key and no token ever comes that way.
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH")
PATIENCE_S = 3.0


class Actor:
    """One actor: its settings go in by stdin, what it reports comes back line by line.

    It ends when its stdin does, so not even a killed network leaves actors behind.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, hear: Hear) -> None:
        self.name = name
        self._process = process
        self._stopping = False
        self._listener = asyncio.create_task(self._listen(hear), name=f"listen to {name}")

    @classmethod
    async def start(
        cls, name: str, module: str, settings: Mapping[str, Any], log: Path, hear: Hear
    ) -> Self:
        """Start ``python -m module``; `hear(name, event)` is called for each of its reports."""
        environment = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**environment, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for the network, which then stops its actors
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        return cls(name, process, hear)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def stop(self) -> None:
        """End the process, by force if it doesn't go."""
        self._stopping = True
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), PATIENCE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._listener

    async def _listen(self, hear: Hear) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            hear(self.name, json.loads(line))
        code = await self._process.wait()
        if not self._stopping:
            hear(self.name, {"event": "ended", "exit_code": code})
