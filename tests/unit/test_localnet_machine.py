"""The virtual machine's requirements."""

from __future__ import annotations

import pytest

from decloud_trainer.errors import SettingsError
from decloud_trainer.localnet import machine


def test_an_old_solders_is_told_with_the_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """solders 0.26 has a LiteSVM too, but one without rent rules: it is refused by name."""
    monkeypatch.setattr(machine, "LiteSVM", object)
    with pytest.raises(SettingsError, match=r"solders 0\.29") as raised:
        machine.Machine()
    assert "pip install --upgrade" in raised.value.hint
