"""A daemon's memory is tidied up after its rounds."""

from __future__ import annotations

import asyncio
import gc
import weakref
from unittest.mock import patch

from decloud_trainer.cli import footprint


class Left:
    """Something that holds itself, as a failed task and its traceback do."""

    def __init__(self) -> None:
        self.itself = self


async def test_what_rounds_leave_in_cycles_goes_soon() -> None:
    """Without waiting for Python's own collector, which may take days for old objects."""
    footprint.limit_areas()
    gc.disable()
    try:
        with patch.object(footprint, "TIDY_S", 0.01):
            async with footprint.kept_small(), asyncio.timeout(10):
                assert gc.get_freeze_count() > 0
                left = weakref.ref(Left())
                while left() is not None:  # noqa: ASYNC110  nothing tells of it
                    await asyncio.sleep(0.01)
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable()
