"""The v1 network's one architecture, as the validator knows it."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn

CLASSES = 10  # the v1 validator always builds ten


class SimpleCNN(nn.Module):
    """Three convolutions and two linear layers: (N, 3, 32, 32) -> (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1)
        self.fc1 = nn.Linear(64 * 4 * 4, 512)
        self.fc2 = nn.Linear(512, CLASSES)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # (N, 32, 16, 16)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # (N, 64, 8, 8)
        x = F.max_pool2d(F.relu(self.conv3(x)), 2)  # (N, 64, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))
        return cast(torch.Tensor, self.fc2(self.dropout(x)))
