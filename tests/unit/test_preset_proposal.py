"""Which preset a machine is offered."""

from __future__ import annotations

import pytest

from decloud_trainer import presets
from decloud_trainer.checks.proposal import proposed_preset

ROOMY = 50_000_000_000


@pytest.mark.parametrize(
    ("network", "speed", "free_bytes", "name"),
    [
        ("devnet", 20_000.0, ROOMY, "image-all"),
        ("devnet", 1_000.0, ROOMY, "image-small"),
        ("mainnet-beta", 50.0, ROOMY, "quick-test"),
        ("devnet", 20_000.0, 1_000_000_000, "quick-test"),
        ("devnet", None, ROOMY, "image-small"),
        ("localnet", 20_000.0, ROOMY, ""),
    ],
)
def test_a_machine_is_offered_what_it_can_do(
    network: str, speed: float | None, free_bytes: int, name: str
) -> None:
    """Fast ones all images, slow ones and full disks less, the local network nothing at all."""
    found = proposed_preset(network, speed, free_bytes)
    assert found.preset == name
    assert found.reason
    assert not name or name in presets.names()
