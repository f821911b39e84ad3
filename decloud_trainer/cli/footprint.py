"""Keeps a daemon that runs for months as small as it was on its first day.

No leak is mended here; two things are kept from looking like one for days. Python's collector
looks at old objects only when a quarter more have come, and hundreds of thousands come with the
imports: what rounds leave in cycles would pile up for as long. And what Python gives back, the C
library keeps, by default in an area of its own for each thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any, Final

TIDY_S: Final = 60.0
# Numbers of glibc's mallopt; other C libraries have no such function, and no need of it.
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
_ARENAS: Final = 2
# Larger blocks go back to the system at once. Said, it stays so; else it grows with their size.
_LARGE_BYTES: Final = 128 * 1024


def limit_areas() -> None:
    """To be called before there are threads: each gets its area when it begins."""
    libc = _c_library()
    if hasattr(libc, "mallopt"):
        libc.mallopt(_ARENA_MAX, _ARENAS)
        libc.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


@contextlib.asynccontextmanager
async def kept_small() -> AsyncIterator[None]:
    """What is there now stays and isn't looked at again; what comes later is tidied up after."""
    gc.collect()
    gc.freeze()
    tidying = asyncio.create_task(_keep_tidying())
    try:
        yield
    finally:
        tidying.cancel()
        gc.unfreeze()


def _c_library() -> Any:
    import ctypes

    return ctypes.CDLL(None)


async def _keep_tidying() -> None:
    libc = _c_library()
    while True:
        await asyncio.sleep(TIDY_S)
        gc.collect()  # of what has come since the start: milliseconds
        if hasattr(libc, "malloc_trim"):
            await asyncio.to_thread(libc.malloc_trim, 0)
