"""What a training child hands in is looked at before it is published."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from daemonworld import a_world

from decloud_trainer.rounds.entry import State


async def test_an_artefact_larger_than_any_models_is_not_uploaded(tmp_path: Path) -> None:
    """A child that was taken over can't have the daemon publish what fills its disk."""
    async with a_world(tmp_path) as world, world.daemon() as running:
        parts = running.engine.parts
        # The scripted worker's artefact has 2.5 MB.
        running.engine.parts = dataclasses.replace(parts, max_model_bytes=1_000_000)
        number = world.open()
        await running.until(number, State.JOINED)
        world.net.start_training(number)
        entry = await running.until(number, State.FAILED)
        assert "more than any model's gradients" in entry.reason
        assert [pin.name for pin in world.store.pins("public")] == ["model"]
