"""Where the package keeps the model that the creator posts."""

from __future__ import annotations

from pathlib import Path

from decloud_trainer import data

MODEL = Path(data.__file__).parent / "models" / "simple_cnn.pt"
